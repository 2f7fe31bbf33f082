"""`pulumi` as the commands start it: each signal reaches it once, and it may end its work.

A terminal sends Ctrl-C to every process in its foreground. On the first signal `pulumi` completes
the running operation, writes the state and releases its lock. A killed `pulumi` does none of that.
So it runs in a process group of its own, and each signal that arrives here is passed on once.
"""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, TextIO

import psutil

RUN = "STACK_RUN"
"""Variable that marks `pulumi` and its processes, so that leftovers can be found."""

HANDED_ON = {
    signal.SIGINT: signal.SIGINT,
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGHUP: signal.SIGTERM,
}
"""Signals that arrive here, with the signal for `pulumi`, which ignores a closed terminal."""

Change = Callable[[str], str]
"""Rewrites a line of `pulumi`, or a piece of a line."""

PIECE = 65_536
"""Most bytes of its output that are read at once."""

LAST_WORDS_SECONDS = 10.0
"""Seconds for the rest of an ended `pulumi`'s output, since another process may hold its pipes."""

Started = Callable[[int, str], None]
"""Receives the process id of `pulumi` and the value of `RUN` as soon as the process exists."""


@dataclasses.dataclass
class Wishes:
    """The signals that have come while `pulumi` ran."""

    process: subprocess.Popen[str] | None = None
    heard: list[int] = dataclasses.field(default_factory=list)

    def hear(self, number: int, _frame: FrameType | None = None) -> None:
        """Take a signal and hand it on."""
        self.heard.append(number)
        if self.process is not None:
            self._hand_on(self.process, number)

    def attach(self, process: subprocess.Popen[str]) -> None:
        """Pass on the signals that came before the process existed."""
        self.process = process
        for number in self.heard:
            self._hand_on(process, number)

    @staticmethod
    def _hand_on(process: subprocess.Popen[str], number: int) -> None:
        process.send_signal(HANDED_ON[signal.Signals(number)])


@dataclasses.dataclass(frozen=True)
class Ended:
    """How `pulumi` ended, and what it wrote if it was to be quiet."""

    returncode: int
    stdout: str
    stderr: str
    interrupted: bool
    """Whether somebody asked it to end."""

    @property
    def completed(self) -> subprocess.CompletedProcess[str]:
        """The same as the standard library has it."""
        return subprocess.CompletedProcess([], self.returncode, self.stdout, self.stderr)


def run(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    *,
    quiet: bool = False,
    started: Started | None = None,
    change: Change | None = None,
) -> Ended:
    """Run the CLI to its end, whatever signals come.

    Its output is kept if `quiet`; else it is printed here, through `change`.
    """
    mark = secrets.token_hex(8)
    pipe = subprocess.PIPE if quiet or change else None
    with _listening() as wishes:
        process = subprocess.Popen(  # noqa: S603  (our own arguments and the user's command line)
            ["pulumi", "--non-interactive", *arguments],  # noqa: S607  (the PATH was set up for it)
            cwd=folder,
            env={**environment, RUN: mark},
            stdin=subprocess.DEVNULL if quiet else None,
            stdout=pipe,
            stderr=pipe,
            text=True,
            process_group=0,
        )
        if started is not None:
            started(process.pid, mark)
        wishes.attach(process)
        if change is None or quiet:
            stdout, stderr = process.communicate()
        else:
            stdout, stderr = None, None
            _pass_on(process, change, mark)
    _end_left_over(process, mark)
    return Ended(process.returncode, stdout or "", stderr or "", bool(wishes.heard))


class Words:
    """Output of `pulumi` as it comes, with rewritten lines.

    Text that may become a command in backticks is held back until its line ends. All other text
    goes on at once, since a wait shows dots without a line's end.
    """

    def __init__(self, change: Change) -> None:
        """Take in pieces of text, and give them back through `change`."""
        self._change = change
        self._held = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def take(self, piece: bytes) -> str:
        """Take a piece, and return the text that can be shown; an empty piece is the end."""
        text = self._held + self._decoder.decode(piece, final=not piece)
        whole, end, rest = text.rpartition("\n")
        begun = rest.find("`")
        self._held = rest[begun:] if piece and begun >= 0 else ""
        shown = rest[:begun] if self._held else rest
        return "".join(map(self._change, f"{whole}{end}".splitlines(keepends=True))) + (
            shown if piece else self._change(shown)
        )


def _pass_on(process: subprocess.Popen[str], change: Change, mark: str) -> None:
    """Pass both streams on until they end."""

    def pump(source: IO[str], target: TextIO) -> None:
        words = Words(change)
        with source:
            while True:
                piece = os.read(source.fileno(), PIECE)
                # A terminal that is gone must not keep `pulumi` from its end.
                with contextlib.suppress(OSError):
                    target.write(words.take(piece))
                    target.flush()
                if not piece:
                    return

    pumps = [
        threading.Thread(target=pump, args=(source, target), daemon=True)
        for source, target in ((process.stdout, sys.stdout), (process.stderr, sys.stderr))
        if source is not None
    ]
    for one in pumps:
        one.start()
    process.wait()
    # It would hold the streams open.
    _end_left_over(process, mark)
    for one in pumps:
        one.join(LAST_WORDS_SECONDS)


def marked(mark: str) -> list[psutil.Process]:
    """Processes that `pulumi` of one run has started and that are still there."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(RUN) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _end_left_over(process: subprocess.Popen[str], mark: str) -> None:
    """End the processes that a killed `pulumi` has left, since no state records their work."""
    if process.returncode >= 0:
        return
    for left in marked(mark):
        with contextlib.suppress(psutil.Error):
            left.kill()


@contextlib.contextmanager
def _listening() -> Iterator[Wishes]:
    """Catch the signals of the block. Only the main thread may; other threads change nothing."""
    wishes = Wishes()
    if threading.current_thread() is not threading.main_thread():
        yield wishes
        return
    ignored = {number for number in HANDED_ON if signal.getsignal(number) is signal.SIG_IGN}
    before = {
        number: signal.signal(number, wishes.hear) for number in HANDED_ON if number not in ignored
    }
    try:
        yield wishes
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
