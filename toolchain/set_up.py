"""Set up everything that a fresh machine lacks: `make setup`, with the standard library alone.

Each step says what it does and is skipped when it is done. What it makes stands in `.venv/` and
`.tools/`, both ignored by git; the caches of pip and Go stay where those tools keep them.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
TOOLS = ROOT / ".tools"
BIN = TOOLS / "bin"
REQUIREMENTS = [ROOT / "requirements.txt", ROOT / "requirements-dev.txt"]

OLDEST_PYTHON = (3, 11)
OLDEST_PULUMI = (3, 250, 0)
"""The release that all of this was tried with."""

HELPERS = {
    "pulumi-language-python-exec": "python/cmd/pulumi-language-python-exec",
    "pulumi-resource-pulumi-python": "python/dist/pulumi-resource-pulumi-python",
}
"""Scripts beside the CLI's binaries, by their place in the module `sdk/v3`."""

PLUGIN = "pulumi-resource-command"
STAND_IN_MARK = b"emulator.command_plugin"
DOWNLOAD_SECONDS = 90.0

PIP_SETTINGS = "[global]\ndisable-pip-version-check = true\n"
"""Of the environment's pip. Pulumi asks it for the list of packages before each command; otherwise
it would ask the package index for a newer pip first, 5 s where there is no way to it."""

COMMANDS = ("openssl", "setsid", "flock")
"""What an emulated host needs of this machine, since its containers are processes."""


def main() -> None:
    """Take every step in order.

    Raises:
        SystemExit: with one sentence, if a step cannot be taken.
    """
    if sys.version_info < OLDEST_PYTHON:
        sys.exit(f"setup: Python 3.11 or newer is needed, this is {sys.version.split()[0]}")
    if missing := [name for name in COMMANDS if which(name) is None]:
        sys.exit(f"setup: {', '.join(missing)} cannot be found on the PATH; install it and retry")
    step("virtual environment .venv", venv_is_there, make_venv)
    step("Python packages, pinned and hash-checked", packages_are_there, install_packages)
    step("Pulumi CLI", pulumi_is_there, install_pulumi)
    step("home, backend and passphrase of stack local", home_is_there, make_home)
    step("plugin of pulumi-command", plugin_is_there, install_plugin)


def step(name: str, is_done: Callable[[], str], do: Callable[[], None]) -> None:
    """Take one step, or say why it need not be taken."""
    done = is_done()
    if done:
        say(f"{name}: {done}")
        return
    say(f"{name}: ...")
    started = time.monotonic()
    do()
    done = is_done()
    if not done:
        sys.exit(f"setup: {name} is not there after it was set up; remove .venv and .tools, retry")
    say(f"{name}: {done} ({time.monotonic() - started:.0f} s)")


def say(line: str) -> None:
    """Tell the person who waits."""
    print(f"setup: {line}", flush=True)  # noqa: T201  (a command's own output)


def venv_is_there() -> str:
    """Whether the environment has a working interpreter."""
    python = VENV / "bin" / "python"
    return "there" if python.exists() and runs([str(python), "-c", ""]) else ""


def make_venv() -> None:
    """Make the environment."""
    if importlib.util.find_spec("ensurepip") is None:
        sys.exit(
            "setup: this Python makes no virtual environments; install its package for them "
            "(python3-venv on Debian and Ubuntu) and retry"
        )
    venv.create(VENV, with_pip=True, clear=True)


def packages_are_there() -> str:
    """Whether what is installed is what the lock files say, and pip is set as it is meant to be."""
    wanted = {VENV / ".locked": locked(), VENV / "pip.conf": PIP_SETTINGS}
    there = all(file.is_file() and file.read_text() == text for file, text in wanted.items())
    return "as locked" if there else ""


def install_packages() -> None:
    """Install the locked requirements; pip refuses whatever has another hash."""
    (VENV / "pip.conf").write_text(PIP_SETTINGS)
    command = [str(VENV / "bin" / "python"), "-m", "pip", "install", "-q", "--require-hashes"]
    for file in REQUIREMENTS:
        command += ["-r", str(file)]
    subprocess.run(command, check=True)  # noqa: S603  (our own arguments)
    (VENV / ".locked").write_text(locked())


def locked() -> str:
    """Name the state of the lock files."""
    together = b"".join(file.read_bytes() for file in REQUIREMENTS)
    return hashlib.sha256(together).hexdigest()


def pulumi_is_there() -> str:
    """Whether a recent CLI with its Python language host is in `.tools/bin` or on the `PATH`."""
    for place in (BIN / "pulumi", which("pulumi")):
        version = pulumi_version(place)
        if version < OLDEST_PULUMI or place is None:
            continue
        host = place.parent / "pulumi-language-python"
        if host.exists() or which("pulumi-language-python"):
            where = "in .tools" if place.parent == BIN else f"on the PATH ({place})"
            return f"{'.'.join(map(str, version))} {where}"
    return ""


def install_pulumi() -> None:
    """Get the CLI: by the official installer, else out of its Go modules."""
    BIN.mkdir(parents=True, exist_ok=True)
    if installed_officially():
        return
    go = which("go")
    if go is None:
        sys.exit(
            "setup: there is no Pulumi CLI on the PATH, its installer could not download one, "
            "and there is no Go to build it; install Pulumi (3.250 or newer) or Go and retry"
        )
    build_pulumi(str(go))


def installed_officially() -> bool:
    """Whether Pulumi's own installer, as the Automation API ships it, could do it."""
    code = (
        "import sys; from pulumi.automation import PulumiCommand;"
        " PulumiCommand.install(root=sys.argv[1])"
    )
    say("  trying the official installer")
    try:
        subprocess.run(  # noqa: S603  (our own arguments)
            [str(VENV / "bin" / "python"), "-c", code, str(TOOLS)],
            check=True,
            capture_output=True,
            timeout=600,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        say("  it could not download the CLI")
        return False
    return True


def build_pulumi(go: str) -> None:
    """Build CLI and language host from the module proxy: minutes once, seconds with Go's caches."""
    say("  building it from its Go modules: about 5 minutes on 2 cores, the first time")
    version = ".".join(map(str, OLDEST_PULUMI))
    stamp = f"-X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version={version}"
    go_install(go, "language_host", "-s -w")
    go_install(go, "pulumi", f"-s -w {stamp}")
    module = subprocess.run(  # noqa: S603  (our own arguments)
        [go, "list", "-m", "-f", "{{.Dir}}", "github.com/pulumi/pulumi/sdk/v3"],
        cwd=ROOT / "toolchain" / "pulumi",
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    for name, place in HELPERS.items():
        shutil.copyfile(Path(module) / place, BIN / name)
        (BIN / name).chmod(0o755)


def go_install(go: str, module: str, linker_flags: str) -> None:
    """Build the tools that one module file names into `.tools/bin`, with a sign of life."""
    say(f"  go install ({module})")
    building = subprocess.Popen(  # noqa: S603  (our own arguments)
        [go, "install", "-trimpath", "-ldflags", linker_flags, "tool"],
        cwd=ROOT / "toolchain" / module,
        env={**os.environ, "GOBIN": str(BIN), "GOFLAGS": "-mod=readonly"},
    )
    started = time.monotonic()
    while True:
        try:
            status = building.wait(timeout=15)
        except subprocess.TimeoutExpired:
            say(f"  still building ({module}, {time.monotonic() - started:.0f} s)")
            continue
        if status != 0:
            sys.exit(f"setup: go install failed for {module} (status {status}); see above")
        return


def home_is_there() -> str:
    """Whether the local stack's belongings exist."""
    passphrase = TOOLS / "passphrase"
    return "there" if passphrase.is_file() and (TOOLS / "state").is_dir() else ""


def make_home() -> None:
    """Make the folders, and a passphrase that only this user can read."""
    for folder in ("state", "home"):
        (TOOLS / folder).mkdir(parents=True, exist_ok=True)
    passphrase = TOOLS / "passphrase"
    if not passphrase.exists():
        passphrase.touch(mode=0o600)
        passphrase.write_text(secrets.token_hex(16))


def plugin_is_there() -> str:
    """Whether Pulumi's home holds the plugin, and which one of the two."""
    wanted = plugin_version()
    executable = TOOLS / "home" / "plugins" / f"resource-command-v{wanted}" / PLUGIN
    if not wanted or not executable.is_file():
        return ""
    content = executable.read_bytes()
    if STAND_IN_MARK not in content:
        return f"{wanted}, the official one"
    # It starts the code of one checkout with one environment: moved, it has to be packed anew.
    here = str(ROOT).encode() in content and str(VENV).encode() in content
    return f"{wanted}, the emulator's stand-in" if here else ""


def install_plugin() -> None:
    """Get the official plugin, else pack the emulator's stand-in."""
    wanted = plugin_version()
    say("  trying to download the official one")
    # A stand-in of a checkout that was moved is there as well, and pulumi would leave it at that.
    if plugin_installed([wanted, "--reinstall"], DOWNLOAD_SECONDS):
        return
    say("  it could not be downloaded; the emulator's stand-in takes its place: it runs local")
    say("  commands, so the smoke test, as the official one does, and has nothing besides")
    say("  (with a way to get.pulumi.com: remove .tools/home/plugins, then `make setup`)")
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "plugin.tgz"
        subprocess.run(  # noqa: S603  (our own arguments)
            [str(VENV / "bin" / "python"), "-m", "emulator.command_plugin.package", str(archive)],
            cwd=ROOT,
            check=True,
        )
        if not plugin_installed([wanted, "--reinstall", "--file", str(archive)], 60):
            sys.exit("setup: `pulumi plugin install` refuses the stand-in; see `pulumi plugin ls`")


def plugin_installed(arguments: list[str], seconds: float) -> bool:
    """Whether `pulumi plugin install` could put the plugin into the project's own home."""
    own = BIN / "pulumi"
    command = [str(own if own.exists() else which("pulumi")), "plugin", "install", "resource"]
    environment = {
        **os.environ,
        "PULUMI_HOME": str(TOOLS / "home"),
        "PULUMI_SKIP_UPDATE_CHECK": "1",
    }
    try:
        subprocess.run(  # noqa: S603  (our own arguments)
            [*command, "command", *arguments],
            cwd=TOOLS,
            env=environment,
            check=True,
            capture_output=True,
            timeout=seconds,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return False
    return True


def plugin_version() -> str:
    """Read which plugin the installed package asks the engine for; empty without the package."""
    for said in VENV.glob("lib/python3*/site-packages/pulumi_command/pulumi-plugin.json"):
        return str(json.loads(said.read_text())["version"])
    return ""


def pulumi_version(place: Path | None) -> tuple[int, ...]:
    """Ask a CLI for its version; an empty tuple if it has none to tell."""
    if place is None or not place.exists():
        return ()
    environment = {**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "1"}
    try:
        told = subprocess.run(  # noqa: S603  (our own arguments)
            [str(place), "version"], check=True, capture_output=True, text=True, env=environment
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return ()
    found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", told.strip())
    return tuple(map(int, found.groups())) if found else ()


def which(name: str) -> Path | None:
    """Find a command on the `PATH`."""
    found = shutil.which(name)
    return Path(found) if found else None


def runs(command: list[str]) -> bool:
    """Whether a command ends well."""
    try:
        return subprocess.run(command, check=False, capture_output=True).returncode == 0  # noqa: S603  (our own arguments)
    except OSError:
        return False


if __name__ == "__main__":
    main()
