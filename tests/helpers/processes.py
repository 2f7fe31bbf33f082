"""Processes: those of one emulated container or of one stack's commands, and what one ignores."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import psutil

from tests.helpers.polling import eventually


def processes_of(home: Path) -> list[psutil.Process]:
    """Whatever lives with this home: nobody else's."""
    mine = []
    wanted = b"HOME=" + os.fsencode(home)
    # Most processes of a computer are others', so nothing but the variables is read of those.
    for number in psutil.pids():
        with contextlib.suppress(OSError, psutil.Error):
            if wanted in Path(f"/proc/{number}/environ").read_bytes().split(b"\0"):
                mine.append(psutil.Process(number))
    return mine


def end_all(home: Path) -> None:
    """End whatever lives with this home, with what was just being started."""
    eventually(lambda: not _killed(home))


def command_lines(processes: list[psutil.Process]) -> list[list[str]]:
    """The words of each that still lives."""
    lines = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            lines.append(process.cmdline())
    return lines


def ignores(pid: int, number: signal.Signals) -> bool:
    """Whether a signal does nothing to a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (mask,) = (line.split()[1] for line in lines if line.startswith("SigIgn:"))
    return bool(int(mask, 16) & (1 << (number - 1)))


def _killed(home: Path) -> list[psutil.Process]:
    """Kill whatever lives, and say what that was."""
    living = processes_of(home)
    for process in living:
        with contextlib.suppress(psutil.Error):
            process.kill()
    return living
