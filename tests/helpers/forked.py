"""Commands of this project as processes of their own that need not load it again.

A server of forks imports the modules once for each worker of the tests. Each command is forked off
it: it has its own number, folder, environment, files and end. It lacks a command line of its own,
and `/proc` shows the environment of the server.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_LOADED = (
    "emulator.__main__",
    "emulator.standins.df",
    "emulator.standins.hf",
    "emulator.standins.nvidia_smi",
    "emulator.standins.processes",
    "emulator.standins.vllm.command",
    "emulator.standins.vllm.serving",
    "psutil",
    "rich.table",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
    "yaml",
)
"""What the commands import before and while they run."""

_FORKS = multiprocessing.get_context("forkserver")
# `__main__` is loaded once there, too, where it is a script: each fork would load it otherwise.
_FORKS.set_forkserver_preload(["__main__", __name__, *_LOADED])


class Forked:
    """A command that runs, with the part of `subprocess.Popen` that tests need."""

    def __init__(self, process: ForkServerProcess) -> None:
        """Stand for a process that was started."""
        self._process = process
        self.pid = int(process.pid or 0)

    def poll(self) -> int | None:
        """Return its exit status, the negative number of a signal, or None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its exit status.

        Raises:
            subprocess.TimeoutExpired: it still runs after `timeout` seconds.
        """
        self._process.join(timeout)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)


@contextmanager
def started(
    words: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    stdout: Path,
    stderr: Path | None = None,
) -> Iterator[Forked]:
    """Run `python -P -m` with these words, and kill what is left of it at the end.

    It writes to the file `stdout`, and there as well what it says on stderr where no other is
    given.
    """
    for file in (stdout, stderr):
        if file is not None:  # at once: whoever reads it must not find what another has printed
            file.write_bytes(b"")
    files = (str(stdout), None if stderr is None else str(stderr))
    process = _FORKS.Process(
        target=_play, args=(list(words), str(folder), dict(environment), files), name=words[0]
    )
    process.start()
    forked = Forked(process)
    try:
        yield forked
    finally:
        forked.kill()
        process.join()
        process.close()


def run(
    words: Sequence[str], *, folder: Path, environment: Mapping[str, str], into: Path
) -> subprocess.CompletedProcess[str]:
    """Run `python -P -m` with these words to its end, within a minute.

    What it prints goes through two files of the folder `into`.

    Raises:
        subprocess.TimeoutExpired: it took longer.
    """
    stdout, stderr = into / "forked.stdout", into / "forked.stderr"
    with started(
        words, folder=folder, environment=environment, stdout=stdout, stderr=stderr
    ) as process:
        status = process.wait(60)
    return subprocess.CompletedProcess(list(words), status, stdout.read_text(), stderr.read_text())


def _play(
    words: list[str], folder: str, environment: dict[str, str], files: tuple[str, str | None]
) -> None:
    """In the fork: become what `python -P -m` with these words would be."""
    threading.Thread(target=_end_with_whoever_started_it, daemon=True).start()
    _write_to(*files)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [part for part in environment.get("PYTHONPATH", "").split(":") if part]
    sys.argv = words
    for name in (words[0], f"{words[0]}.__main__"):
        if not hasattr(sys.modules.get(name), "__path__"):  # what a fork runs, it runs anew
            sys.modules.pop(name, None)
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


def _end_with_whoever_started_it() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)


def _write_to(stdout: str, stderr: str | None) -> None:
    written = _opened(stdout)
    os.dup2(written, 1)
    os.dup2(written if stderr is None else _opened(stderr), 2)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(
        2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
    )


def _opened(file: str) -> int:
    return os.open(file, os.O_WRONLY)
