"""Set up everything that a fresh machine lacks: `make setup`, with the standard library alone.

Each step reports what it does, and is skipped when it is done. Its results are in `.venv/` and
`.tools/`, both ignored by git. The caches of pip and Go stay where those tools keep them.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import json
import os
import secrets
import shlex
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from pathlib import Path

OLDEST_PYTHON = (3, 11)

if sys.version_info < OLDEST_PYTHON:
    sys.exit(f"setup: Python 3.11 or newer is needed, this is {sys.version.split()[0]}")

# As a script it has the folder of this file on its path, and not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from toolchain.checkout import BIN, ROOT, TOOLS, VENV, environment_runs, runs, say, which
from toolchain.haproxy import HAPROXY
from toolchain.interpreter import faster, own
from toolchain.prometheus import PROMETHEUS
from toolchain.pulumi_cli import (
    DOWNLOAD_SECONDS,
    downloaded_pulumi_is_there,
    install_downloaded_pulumi,
    install_pulumi,
    platform_name,
    pulumi_is_there,
)

REQUIREMENTS = [ROOT / "requirements.txt", ROOT / "requirements-dev.txt"]

PLUGIN = "pulumi-resource-command"
PLUGIN_SHA256: dict[tuple[str, str], str] = {}
"""Of the plugin's archives, by version and platform (`("1.2.1", "linux-amd64")`). An archive
without a digest here is not downloaded. The table is empty: Pulumi publishes digests only beside
the archives, which the authors could not fetch.
"""

STAND_IN_MARK = b"emulator.command_plugin"
NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT)

PIP_SETTINGS = "[global]\ndisable-pip-version-check = true\n"
"""Configuration of the environment's pip. Pulumi asks pip for the list of packages before each
command. Without this, pip would first ask the package index for a newer pip, which takes 5 s
without a network.
"""

NO_VENV = (
    "setup: this Python makes no virtual environments; install its package for them (python3-venv "
    "on Debian and Ubuntu) and retry"
)

COMMANDS = ("openssl", "setsid", "flock")
"""What an emulated host needs of this machine, since its containers are processes."""


def main(only: str = "") -> None:
    """Take every step in order, or `pulumi` only: the CLI in `.tools/bin`, whatever the PATH has.

    Raises:
        SystemExit: with one sentence, if a step cannot be taken.
    """
    if os.pathsep in str(ROOT):
        sys.exit(
            f"setup: the folder {ROOT} has a {os.pathsep!r} in its name, at which a PATH is cut: "
            "give it another name and retry"
        )
    if missing := [name for name in COMMANDS if which(name) is None]:
        sys.exit(f"setup: {', '.join(missing)} cannot be found on the PATH; install it and retry")
    if only == "pulumi":
        step("Pulumi CLI", downloaded_pulumi_is_there, install_downloaded_pulumi, ".tools/bin")
        return
    step("virtual environment .venv", venv_is_there, make_venv, ".venv")
    step("Python packages, pinned and hash-checked", packages_are_there, install_packages, ".venv")
    step("Pulumi CLI", pulumi_is_there, install_pulumi, ".tools/bin")
    step("home, backend and passphrase of stack local", home_is_there, make_home, ".tools/home")
    step("plugin of pulumi-command", plugin_is_there, install_plugin, ".tools/home/plugins")
    for program in (HAPROXY, PROMETHEUS):
        step(program.name, program.is_there, program.set_up, ".tools/bin", optional=True)


def step(
    name: str,
    is_done: Callable[[], str],
    do: Callable[[], None],
    made: str,
    *,
    optional: bool = False,
) -> None:
    """Take one step, or say why it need not be taken; an `optional` one may be in vain.

    `made` is the folder that it fills. It can be removed; what lies beside it, such as the state
    and the passphrase of stack local in `.tools`, cannot be made again.
    """
    done = is_done()
    if done:
        say(f"{name}: {done}")
        return
    say(f"{name}: ...")
    started = time.monotonic()
    do()
    done = is_done()
    if not done and optional:
        return
    if not done:
        sys.exit(f"setup: {name} is not there after it was set up; remove {made}, retry")
    say(f"{name}: {done} ({time.monotonic() - started:.0f} s)")


def venv_is_there() -> str:
    """Whether the environment runs here."""
    return "there" if environment_runs(VENV) else ""


def make_venv() -> None:
    """Make the environment, of the distribution's Python if that is the faster one."""
    this = own()
    python = faster(this)
    if python is None:
        new_venv(VENV)
        return
    say(f"  of {python}: {this.executable} was built without --enable-optimizations,")
    say("  and is slower; `python3 -m venv --clear .venv` makes it of that one all the same")
    if not runs([str(python), "-m", "venv", "--clear", str(VENV)]):
        say(f"  {python} makes none, so it is of this one")
        new_venv(VENV)


def new_venv(folder: Path) -> None:
    """Make a virtual environment with pip in `folder`, in the place of what is there.

    Raises:
        SystemExit: with one sentence, if this Python makes none.
    """
    if importlib.util.find_spec("ensurepip") is None:
        sys.exit(NO_VENV)
    try:
        venv.create(folder, with_pip=True, clear=True)
    except subprocess.CalledProcessError:
        # A Python may have a part of ensurepip alone.
        sys.exit(NO_VENV)


def packages_are_there() -> str:
    """Whether the installed packages are those of the lock files, and pip has its configuration."""
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
    # It starts the code of one checkout with one environment, so a moved checkout needs a new
    # package.
    parts = (str(ROOT), str(VENV / "bin" / "python"))
    here = all(shlex.quote(part).encode() in content for part in parts)
    return f"{wanted}, the emulator's stand-in" if here else ""


def install_plugin() -> None:
    """Get the official plugin if its digest is known, else pack the emulator's stand-in."""
    wanted = plugin_version()
    digest = PLUGIN_SHA256.get((wanted, platform_name("amd64")))
    # A stand-in of a moved checkout also exists, and pulumi would keep it.
    if digest and plugin_installed([wanted, "--reinstall", "--checksum", digest], DOWNLOAD_SECONDS):
        return
    say("  the emulator's stand-in takes the official one's place: it runs local commands, so the")
    say("  smoke test, as the official one does, and has nothing besides")
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


if __name__ == "__main__":
    try:
        main(*sys.argv[1:2])
    except KeyboardInterrupt:
        sys.exit("setup: interrupted; `make setup` goes on where it was")
    except OSError as problem:
        if problem.errno not in NOT_WRITABLE:
            raise
        sys.exit(
            f"setup: {problem.filename} cannot be written ({problem.strerror}): .venv and .tools "
            "are made in the checkout, so work on a copy of it that is yours"
        )
