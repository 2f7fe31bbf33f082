"""`pulumi` as the commands here start it: it is asked once to end, and left to end what it does.

A terminal sends Ctrl-C to everything in its foreground. `pulumi` takes a first one as a wish, ends
the operation that runs, writes it down and gives its lock back; killed, it does none of that. So it
runs in a process group of its own, and what comes here is handed on to it, each signal once.
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
"""Variable that marks `pulumi` and all that it starts, so that what is left of it can be found."""

HANDED_ON = {
    signal.SIGINT: signal.SIGINT,
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGHUP: signal.SIGTERM,
}
"""What arrives here and what `pulumi` is sent for it: it does not know a terminal that closes."""

Change = Callable[[str], str]
"""Says a line of `pulumi`, or a piece of one, in other words."""

PIECE = 65_536
"""Most bytes of its output that are read at once."""

LAST_WORDS_SECONDS = 10.0
"""What an ended `pulumi` has said is read for so long: something else may hold its pipes open."""

Started = Callable[[int, str], None]
"""Is told the process id of `pulumi` and the value of `RUN` as soon as there is one."""


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
        """Hand on what has come before there was a process."""
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

    What it prints is kept if `quiet`; else it goes on to where this prints, through `change`.
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
    """Output of `pulumi` as it comes, in other words.

    What may still become a command in backticks is held back until its line ends; all else goes on
    at once, since a wait is shown by dots without a line's end.
    """

    def __init__(self, change: Change) -> None:
        """Take in pieces of text, and give them back through `change`."""
        self._change = change
        self._held = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def take(self, piece: bytes) -> str:
        """Take a piece, and give what can be shown by now; an empty one is the end."""
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
    """End what a killed `pulumi` has left: what that does from now on reaches no state."""
    if process.returncode >= 0:
        return
    for left in marked(mark):
        with contextlib.suppress(psutil.Error):
            left.kill()


@contextlib.contextmanager
def _listening() -> Iterator[Wishes]:
    """Take the signals of the block; only the main thread may, others leave them where they go."""
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
