"""The server of `forked_pulumi`: it loads libraries once, and forks when a launcher asks for it.

A launcher writes a line with its number, its role and its arguments into `asked`. It is told the
number of its fork, and then how that has ended, through a pipe with its own number for a name.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import io
import os
import runpy
import select
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.places import ROOT

_LOADED = (
    "components.resources.instance",
    "components.resources.offer",
    "components.resources.router",
    "components.resources.server",
    "components.resources.smoke_test",
    "components.settings",
    "components.vast.lifecycle.preview",
    "dill",
    "emulator.command_plugin.provider",
    "grpc",
    "pulumi.dynamic",
    "pulumi.runtime.proto.provider_pb2_grpc",
    "pulumi_command",
)
"""What most of them load."""

_LOADED_BY_EACH = ("components.release.release", "huggingface_hub", "vastai")
"""What reads the environment, a fork's own, when it is loaded."""

_PROJECT = Path.cwd()
"""Where the project's code was loaded from."""

_EXEC = ROOT / ".tools/bin/pulumi-language-python-exec"
_WHOEVER_STARTED_IT = 0
"""The standard input: its other end closes when that process ends."""

_DIES_WITH_ITS_PARENT = 1
"""Linux's `PR_SET_PDEATHSIG`."""


@dataclass(frozen=True)
class _Launcher:
    """A process of `pulumi` that waits for its fork."""

    number: int
    role: str
    words: list[str]

    @property
    def proc(self) -> Path:
        return Path("/proc") / str(self.number)


class _Server:
    """Forks when a launcher asks for it, and tells the launcher how its fork has ended."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._asked = os.open(folder / "asked", os.O_RDWR)  # for writing as well: it never ends
        self._rest = b""
        self._poll = select.poll()
        self._poll.register(self._asked, select.POLLIN)
        self._poll.register(_WHOEVER_STARTED_IT, select.POLLHUP)
        self._forks: dict[int, tuple[int, int]] = {}

    def serve(self) -> _Launcher:
        """Work in the server for ever; return in each fork, with whom it works for."""
        while True:
            for number, _ in self._poll.poll():
                if number == _WHOEVER_STARTED_IT:
                    os._exit(0)
                if number != self._asked:
                    self._tell(number)
                    continue
                *lines, self._rest = (self._rest + os.read(number, 65536)).split(b"\n")
                for line in lines:
                    launcher = _read(line.decode())
                    if self._is_fork(launcher):
                        return launcher

    def _is_fork(self, launcher: _Launcher) -> bool:
        # For reading as well: a launcher that is dead by now is waited for by nobody.
        told = os.open(self._folder / str(launcher.number), os.O_RDWR)
        number = os.fork()
        if number:
            os.write(told, f"{number}\n".encode())
            ends = os.pidfd_open(number)
            self._forks[ends] = (number, told)
            self._poll.register(ends, select.POLLIN)
            return False
        for one in (self._asked, told, *self._forks, *(file for _, file in self._forks.values())):
            os.close(one)
        return True

    def _tell(self, ends: int) -> None:
        number, told = self._forks.pop(ends)
        self._poll.unregister(ends)
        os.close(ends)
        status = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
        os.write(told, f"{status if status >= 0 else 128 - status}\n".encode())
        os.close(told)


def _read(line: str) -> _Launcher:
    number, role, *words = line.split("\0")
    return _Launcher(int(number), role, words)


def _become(launcher: _Launcher, told: Path) -> None:
    """In a fork: have what Pulumi's own launcher would give to what it starts."""
    while told.exists():  # until the launcher passes signals on
        time.sleep(0.001)
    environment = (launcher.proc / "environ").read_bytes().split(b"\0")
    folder = (launcher.proc / "cwd").readlink()
    if folder != _PROJECT:
        raise ValueError(f"the project's code is loaded, and {folder} is not its folder")
    _use_the_files_of(launcher)
    os.environb.clear()
    for text in filter(None, environment):
        name, _, value = text.partition(b"=")
        os.environb[name] = value


def _use_the_files_of(launcher: _Launcher) -> None:
    for number, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        opened = os.open(launcher.proc / "fd" / str(number), flags)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = os.fdopen(0, closefd=False)
    # As with `python -u`, by which Pulumi starts providers.
    written = os.fdopen(1, "wb", 0 if launcher.role == "provider" else -1, closefd=False)
    sys.stdout = io.TextIOWrapper(written, encoding="utf-8", write_through=True)
    sys.stderr = os.fdopen(
        2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
    )


def _run_the_program(words: list[str]) -> None:
    sys.argv = [str(_EXEC), *words]
    sys.path[0] = str(_EXEC.parent)
    runpy.run_path(str(_EXEC), run_name="__main__")


def _run_a_provider(words: list[str]) -> None:
    os.environ["PATH"] = os.pathsep.join([str(ROOT / ".venv/bin"), os.environ["PATH"]])
    sys.argv = ["pulumi.dynamic", *" ".join(words).split()]
    sys.path[0] = str(_PROJECT)
    runpy.run_module("pulumi.dynamic", run_name="__main__", alter_sys=True)


def _run_the_command_plugin(words: list[str]) -> None:
    sys.argv = ["-c", *" ".join(words).split()]
    sys.path[0] = str(_PROJECT)
    runpy.run_module("emulator.command_plugin", run_name="__main__", alter_sys=True)


_RUN = {
    "program": _run_the_program,
    "provider": _run_a_provider,
    "command": _run_the_command_plugin,
}


def _die_with(launcher: _Launcher) -> int:
    """Die with the server, and as soon as the launcher is dead: the file that tells it."""
    ctypes.CDLL(None).prctl(_DIES_WITH_ITS_PARENT, signal.SIGKILL)
    try:
        died = os.pidfd_open(launcher.number)
    except ProcessLookupError:  # it was killed meanwhile
        os._exit(0)

    def watch() -> None:
        select.select([died], [], [])
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    return died


def _main(folder: Path) -> None:
    for name in _LOADED:
        importlib.import_module(name)
    too_early = [name for name in _LOADED_BY_EACH if name in sys.modules]
    if too_early:
        raise ImportError(f"each fork has to load what the server has: {', '.join(too_early)}")
    os.write(1, b"ready\n")
    gc.collect()
    gc.freeze()
    launcher = _Server(folder).serve()
    died = _die_with(launcher)
    try:
        _become(launcher, folder / str(launcher.number))
    except OSError:
        if select.select([died], [], [], 0)[0]:  # nobody waits for this fork any more
            os._exit(0)
        raise
    _RUN[launcher.role](launcher.words)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
