"""Programs of the system's own packages: found on the `PATH`, else unpacked into `.tools/`.

The packages come from where the system's own `apt-get` finds them, and it checks their signatures.
They are unpacked, so nothing is installed and no service starts.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from toolchain.checkout import TOOLS, say, which

SECONDS = 120.0
"""Longest wait for one command of the package manager."""

Run = Callable[[Sequence[str], Path], str]
"""Runs a command in a folder and gives what it prints; `OSError` if it fails or takes too long."""


@dataclasses.dataclass(frozen=True)
class Program:
    """A program of one of the system's packages."""

    name: str
    """For people."""
    package: str
    """Its own name too."""
    commands: Mapping[str, str]
    """Where the package has its commands, by their names; the first one is the program."""
    oldest: tuple[int, ...]
    """The oldest release that will do."""
    says: str
    """Regular expression of what its version begins with; each group is a part of it."""
    asked: str
    """The option that has it say its version."""
    most_packages: int
    """More than that is the program no more."""
    install: Mapping[str, str]
    """How a person installs it, by the package manager that is there."""
    needed_by: str
    """Who needs it, and who does not, as a sentence without its full stop."""
    needs_libraries: bool = True
    """Whether the packages that it depends on are unpacked too, if they are not there."""
    tools: Path = TOOLS

    @property
    def unpacked_at(self) -> Path:
        """The folder that its packages are unpacked into."""
        return self.tools / self.package

    @property
    def lists(self) -> Path:
        """Lists of packages of our own, where the system's will not do."""
        return self.tools / "apt-lists"

    def command(self, name: str) -> Path:
        """Where the command is that starts an unpacked one."""
        return self.tools / "bin" / name

    def program(self, name: str) -> Path | None:
        """Find a command of it: the unpacked one, else that on the `PATH`."""
        own = self.command(name)
        return own if own.exists() else which(name)

    @property
    def main(self) -> str:
        """The name of the program's own command."""
        return next(iter(self.commands))

    def is_there(self) -> str:
        """Whether a recent one is in `.tools/bin` or on the `PATH`, in words; empty if not."""
        own = self.command(self.main)
        for place in (own, which(self.main)):
            version = self.version_of(place)
            if version >= self.oldest:
                where = "in .tools" if place == own else f"on the PATH ({place})"
                return f"{_dotted(version)} {where}"
        return ""

    def set_up(self, run: Run | None = None) -> None:
        """Unpack the distribution's packages, or say which command installs the program.

        Not everybody needs it, so set-up goes on without it.
        """
        reason = self.unpacked(run or run_here)
        if not reason:
            return
        say(f"  {reason}")
        command = next((text for tool, text in self.install.items() if which(tool)), "")
        how = f"`{command}`" if command else "your system's package manager"
        say(f"  {self.needed_by}: install it with {how}")

    def unpacked(self, run: Run) -> str:
        """Unpack the packages; give a reason if that was not possible, and leave nothing then."""
        if which("apt-get") is None or which("dpkg") is None:
            return (
                f"there is no {self.name} {_dotted(self.oldest)} or newer on the PATH, and no "
                "apt-get to unpack one with"
            )
        try:
            self._with_lists((), run)
        except OSError:
            # The system's lists may be missing, or name packages that are gone by now.
            try:
                self._with_lists(self._own_lists(run), run)
            except OSError as problem:
                self._remove()
                return f"{self.name}'s packages could not be unpacked ({problem})"
            finally:
                shutil.rmtree(self.lists, ignore_errors=True)
        version = self.version_of(self.command(self.main))
        if version < self.oldest:
            self._remove()
            found = _dotted(version) or "one that does not start"
            return (
                f"this system's {self.name} is {found}, and {_dotted(self.oldest)} or newer is "
                "needed"
            )
        return ""

    def version_of(self, place: Path | None) -> tuple[int, ...]:
        """Ask a program for its version; an empty tuple if it has none to tell."""
        if place is None or not place.exists():
            return ()
        try:
            told = subprocess.run(  # noqa: S603  (our own arguments)
                [str(place), self.asked], check=True, capture_output=True, text=True, timeout=10
            ).stdout
        except (OSError, subprocess.SubprocessError):
            return ()
        found = re.match(self.says, told)
        return tuple(int(part) for part in found.groups() if part) if found else ()

    def _with_lists(self, options: Sequence[str], run: Run) -> None:
        """Find, download and unpack the packages; `options` of `apt-get` name its lists."""
        self._remove()
        simulated = ["--simulate", "--no-install-recommends", "install", self.package]
        names = self._missing(run(["apt-get", *simulated, *options], self.tools))
        self._unpack(names if self.needs_libraries else [self.package], options, run)

    def _own_lists(self, run: Run) -> Sequence[str]:
        """Fetch lists of packages, which needs no root; give the options to read them.

        Raises:
            OSError: if they cannot be fetched.
        """
        (self.lists / "partial").mkdir(parents=True, exist_ok=True)
        options = [
            f"-oDir::State::Lists={self.lists}",
            "-oDir::Cache::pkgcache=",
            "-oDir::Cache::srcpkgcache=",
        ]
        run(["apt-get", "update", *options], self.tools)
        return options

    def _missing(self, simulated: str) -> list[str]:
        """Read which packages an installation would bring: the program's, and what is not there.

        Raises:
            OSError: if it would bring none, or more than the program can need.
        """
        names = re.findall(r"^Inst ([a-z0-9][a-z0-9+.-]*) ", simulated, re.MULTILINE)
        if self.package not in names:
            raise OSError(
                f"apt-get would not install {self.package}; it may be installed and too old"
            )
        if len(names) > self.most_packages:
            raise OSError(f"apt-get would install {len(names)} packages")
        return names

    def _unpack(self, names: Sequence[str], options: Sequence[str], run: Run) -> None:
        """Download packages and unpack them, with wrappers that start the commands."""
        self.unpacked_at.mkdir(parents=True)
        with tempfile.TemporaryDirectory(dir=self.tools) as folder:
            run(["apt-get", "download", *names, *options], Path(folder))
            for package in sorted(Path(folder).glob("*.deb")):
                run(["dpkg", "-x", str(package), str(self.unpacked_at)], Path(folder))
        for name, within in self.commands.items():
            place = self.command(name)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(self._wrapper(within))
            place.chmod(0o755)

    def _wrapper(self, within: str) -> str:
        """Write the program that starts it with the libraries that were unpacked beside it."""
        # HAProxy starts itself again by the name it was started with, so that is a whole path.
        found = {str(one.parent) for one in self.unpacked_at.glob("usr/lib/**/*.so.*")}
        libraries = shlex.quote(os.pathsep.join(sorted(found)))
        program = shlex.quote(str(self.unpacked_at / within))
        return f'#!/bin/sh\nLD_LIBRARY_PATH={libraries} exec {program} "$@"\n'

    def _remove(self) -> None:
        """Take away what was unpacked."""
        shutil.rmtree(self.unpacked_at, ignore_errors=True)
        for name in self.commands:
            self.command(name).unlink(missing_ok=True)


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))


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
