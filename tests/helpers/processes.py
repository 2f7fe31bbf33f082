"""The processes of one emulated container, or of one stack's commands: each has a home."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil


def processes_of(home: Path) -> list[psutil.Process]:
    """Whatever lives with this home: nobody else's."""
    mine = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("HOME") == str(home):
                mine.append(process)
    return mine


def command_lines(processes: list[psutil.Process]) -> list[list[str]]:
    """The words of each that still lives."""
    lines = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            lines.append(process.cmdline())
    return lines
