"""Set up everything that a fresh machine lacks: `make setup`, with the standard library alone.

Each step says what it does and is skipped when it is done. What it makes stands in `.venv/` and
`.tools/`, both ignored by git; the caches of pip and Go stay where those tools keep them.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import importlib.util
import json
import os
import platform
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
import venv
from collections.abc import Callable
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
TOOLS = ROOT / ".tools"
BIN = TOOLS / "bin"
REQUIREMENTS = [ROOT / "requirements.txt", ROOT / "requirements-dev.txt"]

OLDEST_PYTHON = (3, 11)
OLDEST_PULUMI = (3, 250, 0)
"""The oldest release that this was tried with."""

BUILT = "3.260.0"
"""The release of Pulumi's CLI that is built where none can be downloaded; see `pulumi/go.mod`."""

CLI = "3.259.0"
"""The release of Pulumi's CLI that is downloaded."""

CLI_SHA256 = {
    "linux-x64": "94ba357acac23d01474084c4b00098dc0f7bc70ce13f34c777459254a5f718e5",
    "linux-arm64": "edc8327463a72160bb36cf82cf5062da9c8a244290a706d9980988e7bf486853",
    "darwin-x64": "eaca4c3b8277bfa3ab061fa3b270d1c66358a0b2e613da8c5587a04b7226c534",
    "darwin-arm64": "57c27f179e527e2cf9f62b841a448af72a020e44b2fb4ee0d9bd85556c00c864",
}
"""Of its archives, as Pulumi's own Homebrew tap has them (github.com/pulumi/homebrew-tap at commit
51fb494, Formula/pulumi.rb)."""

CLI_URL = "https://github.com/pulumi/pulumi/releases/download/v{0}/pulumi-v{0}-{1}.tar.gz"

MOST_BYTES = 500_000_000
"""Of a download: three times what the archive has."""

HELPERS = {
    "pulumi-language-python-exec": "python/cmd/pulumi-language-python-exec",
    "pulumi-resource-pulumi-python": "python/dist/pulumi-resource-pulumi-python",
}
"""Scripts beside the CLI's binaries, by their place in the module `sdk/v3`."""

PLUGIN = "pulumi-resource-command"
PLUGIN_SHA256: dict[tuple[str, str], str] = {}
"""Of the plugin's archives, by version and platform (`("1.2.1", "linux-amd64")`). One that is not
here is not downloaded. None is: Pulumi publishes them beside the archives alone, and nobody who
wrote this could fetch that."""

STAND_IN_MARK = b"emulator.command_plugin"
NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT)
DOWNLOAD_SECONDS = 600.0

PIP_SETTINGS = "[global]\ndisable-pip-version-check = true\n"
"""Of the environment's pip. Pulumi asks it for the list of packages before each command; otherwise
it would ask the package index for a newer pip first, 5 s where there is no way to it."""

COMMANDS = ("openssl", "setsid", "flock")
"""What an emulated host needs of this machine, since its containers are processes."""


def main(only: str = "") -> None:
    """Take every step in order, or `pulumi` only: the CLI in `.tools/bin`, whatever the PATH has.

    Raises:
        SystemExit: with one sentence, if a step cannot be taken.
    """
    if sys.version_info < OLDEST_PYTHON:
        sys.exit(f"setup: Python 3.11 or newer is needed, this is {sys.version.split()[0]}")
    if os.pathsep in str(ROOT):
        sys.exit(
            f"setup: the folder {ROOT} has a {os.pathsep!r} in its name, at which a PATH is cut: "
            "give it another name and retry"
        )
    if missing := [name for name in COMMANDS if which(name) is None]:
        sys.exit(f"setup: {', '.join(missing)} cannot be found on the PATH; install it and retry")
    if only == "pulumi":
        step("Pulumi CLI", downloaded_pulumi_is_there, install_downloaded_pulumi)
        return
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


def downloaded_pulumi_is_there() -> str:
    """Whether the very release that is downloaded is in `.tools/bin`."""
    there = ".".join(map(str, pulumi_version(BIN / "pulumi")))
    return f"{there} in .tools" if there == CLI else ""


def install_downloaded_pulumi() -> None:
    """Get Pulumi's own archive, and nothing in its place."""
    BIN.mkdir(parents=True, exist_ok=True)
    if not download_pulumi(platform_name("x64"), BIN):
        sys.exit("setup: Pulumi's CLI could not be downloaded; see above")


def install_pulumi() -> None:
    """Get the CLI: Pulumi's own archive, held to its digest, else out of its Go modules."""
    BIN.mkdir(parents=True, exist_ok=True)
    if download_pulumi(platform_name("x64"), BIN):
        return
    go = which("go")
    if go is None:
        sys.exit(
            "setup: there is no Pulumi CLI on the PATH, none could be downloaded, and there is no "
            "Go to build it; install Pulumi (3.250 or newer) or Go and retry"
        )
    build_pulumi(str(go))


def download_pulumi(
    wanted: str, folder: Path, fetch: Callable[[str], IO[bytes]] | None = None
) -> bool:
    """Whether the archive for a platform could be had; `fetch` opens a URL.

    Raises:
        SystemExit: if it is another one than was looked at; nothing of it is unpacked.
    """
    if wanted not in CLI_SHA256:
        return False
    url = CLI_URL.format(CLI, wanted)
    say(f"  downloading {url}")
    with tempfile.TemporaryFile() as archive:
        try:
            with (fetch or open_url)(url) as source:
                digest = copy_and_digest(source, archive, DOWNLOAD_SECONDS)
        except (OSError, http.client.HTTPException) as error:
            say(f"  it could not be downloaded ({error})")
            return False
        if digest != CLI_SHA256[wanted]:
            sys.exit(
                f"setup: {url} is not the archive that it was: its SHA-256 is {digest} and has to "
                f"be {CLI_SHA256[wanted]}; nothing of it was unpacked. Install Pulumi yourself, or "
                "find out why"
            )
        archive.seek(0)
        unpack_pulumi(archive, folder)
    return True


def open_url(url: str) -> IO[bytes]:
    """Open a URL of this file's own."""
    opened: IO[bytes] = urllib.request.urlopen(url, timeout=30)  # noqa: S310  (https, from above)
    return opened


def copy_and_digest(source: IO[bytes], target: IO[bytes], seconds: float) -> str:
    """Copy what a server sends, within a time and a size, and give its SHA-256.

    Raises:
        OSError: if it sends more, or takes longer.
    """
    digest = hashlib.sha256()
    until = time.monotonic() + seconds
    size = 0
    while piece := source.read(1 << 20):
        size += len(piece)
        if size > MOST_BYTES or time.monotonic() > until:
            raise OSError(f"no end after {size / 1e6:.0f} MB and {seconds:.0f} s at most")
        digest.update(piece)
        target.write(piece)
    return digest.hexdigest()


def unpack_pulumi(archive: IO[bytes], folder: Path) -> None:
    """Put the archive's programs, which lie in its folder `pulumi/`, into `folder`."""
    with tarfile.open(fileobj=archive, mode="r:gz") as packed:
        for member in packed:
            name = Path(member.name).name
            content = packed.extractfile(member) if member.isfile() else None
            if content is None or not name.startswith("pulumi"):
                continue
            with (folder / name).open("wb") as program:
                shutil.copyfileobj(content, program)
            (folder / name).chmod(0o755)


def platform_name(intel: str) -> str:
    """This computer as Pulumi's archives name it, such as `linux-x64`; `intel` is its word."""
    machine = {"x86_64": intel, "amd64": intel, "aarch64": "arm64"}
    given = platform.machine().lower()
    return f"{platform.system().lower()}-{machine.get(given, given)}"


def build_pulumi(go: str) -> None:
    """Build CLI and language host from the module proxy: minutes once, seconds with Go's caches."""
    say("  building it from its Go modules: about 5 minutes on 2 cores, the first time")
    stamp = f"-X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version={BUILT}"
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
    parts = (str(ROOT), str(VENV / "bin" / "python"))
    here = all(shlex.quote(part).encode() in content for part in parts)
    return f"{wanted}, the emulator's stand-in" if here else ""


def install_plugin() -> None:
    """Get the official plugin if its digest is known, else pack the emulator's stand-in."""
    wanted = plugin_version()
    digest = PLUGIN_SHA256.get((wanted, platform_name("amd64")))
    # A stand-in of a checkout that was moved is there as well, and pulumi would leave it at that.
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
