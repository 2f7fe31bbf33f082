"""HAProxy, which the router is: found on the `PATH`, else unpacked out of the system's packages.

The packages come from where the system's own `apt-get` finds them, and it checks their signatures.
They are unpacked into `.tools/`, so nothing is installed and no service starts.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from toolchain.checkout import BIN, TOOLS, say, which

OLDEST = (2, 6)
"""The oldest release that takes the router's configuration, and the one that it was tried with."""

UNPACKED = TOOLS / "haproxy"
LISTS = TOOLS / "apt-lists"
WRAPPER = BIN / "haproxy"

SECONDS = 120.0
"""Longest wait for one command of the package manager."""

MOST_PACKAGES = 20
"""More than that is no HAProxy any more; a bare Debian 12 needs four."""

INSTALL = {
    "apt-get": "sudo apt-get update && sudo apt-get install haproxy",
    "dnf": "sudo dnf install haproxy",
    "brew": "brew install haproxy",
}
"""How a person installs it, by the package manager that is there."""

Run = Callable[[Sequence[str], Path], str]
"""Runs a command in a folder and gives what it prints; `OSError` if it fails or takes too long."""


def is_there() -> str:
    """Whether a recent one is in `.tools/bin` or on the `PATH`, in words; empty if not."""
    for place in (WRAPPER, which("haproxy")):
        version = version_of(place)
        if version >= OLDEST:
            where = "in .tools" if place == WRAPPER else f"on the PATH ({place})"
            return f"{'.'.join(map(str, version))} {where}"
    return ""


def install(run: Run | None = None) -> None:
    """Unpack the distribution's packages, or say which command installs HAProxy.

    Nothing but the router needs it, so set-up goes on without it.
    """
    reason = unpacked(run or run_here)
    if not reason:
        return
    say(f"  {reason}")
    command = next((text for tool, text in INSTALL.items() if which(tool)), "")
    how = f"`{command}`" if command else "your system's package manager"
    say(f"  one endpoint works without it; `make test` needs it: install it with {how}")


def unpacked(run: Run) -> str:
    """Unpack the packages; give a reason if that was not possible, and leave nothing then."""
    if which("apt-get") is None or which("dpkg") is None:
        return "there is no HAProxy 2.6 or newer on the PATH, and no apt-get to unpack one with"
    try:
        with_lists((), run)
    except OSError:
        # The system's lists may be missing, or name packages that are gone by now.
        try:
            with_lists(own_lists(run), run)
        except OSError as problem:
            remove()
            return f"HAProxy's packages could not be unpacked ({problem})"
        finally:
            shutil.rmtree(LISTS, ignore_errors=True)
    version = version_of(WRAPPER)
    if version < OLDEST:
        remove()
        found = ".".join(map(str, version)) or "one that does not start"
        return f"this system's HAProxy is {found}, and 2.6 or newer is needed"
    return ""


def with_lists(options: Sequence[str], run: Run) -> None:
    """Find, download and unpack the packages; `options` of `apt-get` say which lists it reads."""
    remove()
    names = missing_packages(run(["apt-get", *SIMULATED, *options], TOOLS))
    unpack(names, options, run)


def own_lists(run: Run) -> Sequence[str]:
    """Fetch lists of packages into `.tools/`, which needs no root; give the options to read them.

    Raises:
        OSError: if they cannot be fetched.
    """
    (LISTS / "partial").mkdir(parents=True, exist_ok=True)
    options = [
        f"-oDir::State::Lists={LISTS}",
        "-oDir::Cache::pkgcache=",
        "-oDir::Cache::srcpkgcache=",
    ]
    run(["apt-get", "update", *options], TOOLS)
    return options


SIMULATED = ("--simulate", "--no-install-recommends", "install", "haproxy")


def missing_packages(simulated: str) -> list[str]:
    """Read which packages an installation would bring: HAProxy, and what it needs and is not there.

    Raises:
        OSError: if it would bring none, or more than HAProxy can need.
    """
    names = re.findall(r"^Inst ([a-z0-9][a-z0-9+.-]*) ", simulated, re.MULTILINE)
    if "haproxy" not in names:
        raise OSError("apt-get would not install haproxy; it may be installed and too old")
    if len(names) > MOST_PACKAGES:
        raise OSError(f"apt-get would install {len(names)} packages")
    return names


def unpack(names: Sequence[str], options: Sequence[str], run: Run) -> None:
    """Download packages and unpack them into `.tools/haproxy`, with a wrapper that starts it."""
    UNPACKED.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=TOOLS) as folder:
        run(["apt-get", "download", *names, *options], Path(folder))
        for package in sorted(Path(folder).glob("*.deb")):
            run(["dpkg", "-x", str(package), str(UNPACKED)], Path(folder))
    BIN.mkdir(parents=True, exist_ok=True)
    WRAPPER.write_text(wrapper())
    WRAPPER.chmod(0o755)


def wrapper() -> str:
    """Write the program that starts it with the libraries that were unpacked beside it."""
    # HAProxy starts itself again by the name it was started with, so that name is a whole path.
    folders = sorted({str(one.parent) for one in UNPACKED.glob("usr/lib/**/*.so.*")})
    libraries = shlex.quote(os.pathsep.join(folders))
    program = shlex.quote(str(UNPACKED / "usr/sbin/haproxy"))
    return f'#!/bin/sh\nLD_LIBRARY_PATH={libraries} exec {program} "$@"\n'


def remove() -> None:
    """Take away what was unpacked."""
    shutil.rmtree(UNPACKED, ignore_errors=True)
    WRAPPER.unlink(missing_ok=True)


def version_of(place: Path | None) -> tuple[int, ...]:
    """Ask a program for its version; an empty tuple if it has none to tell."""
    if place is None or not place.exists():
        return ()
    try:
        told = subprocess.run(  # noqa: S603  (our own arguments)
            [str(place), "-v"], check=True, capture_output=True, text=True, timeout=10
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    found = re.match(r"HA-?Proxy version (\d+)\.(\d+)(?:\.(\d+))?", told)
    return tuple(int(part) for part in found.groups() if part) if found else ()


def run_here(command: Sequence[str], folder: Path) -> str:
    """Run a command of the package manager.

    Raises:
        OSError: if it fails, or takes longer than `SECONDS`.
    """
    # Its words are read, so they are English.
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(  # noqa: S603  (our own arguments)
            command,
            cwd=folder,
            env=environment,
            check=False,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise OSError(f"`{command[0]}` has not ended after {SECONDS:.0f} s") from None
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no word").splitlines()[-1]
        raise OSError(f"`{' '.join(command[:2])}` ends with {done.returncode}: {last[:200]}")
    return done.stdout
