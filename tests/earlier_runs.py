"""Folders that earlier runs of the tests have left behind."""

from __future__ import annotations

import shutil
from pathlib import Path

BEGIN = "pytest-"
"""With a number behind it, the name of a run's folder."""

IN_USE = ".lock"
"""What pytest keeps in the folder of a run as long as that lasts."""


def remove_earlier(current: Path) -> None:
    """Remove the folders beside that of this run that are of earlier ones, and of no use any more.

    pytest would do so at its end, where everybody waits for it: 25,000 files take it three seconds.
    """
    this = _number(current)
    for folder in current.parent.glob(f"{BEGIN}*"):
        other = _number(folder)
        is_earlier = this is not None and other is not None and other < this
        if is_earlier and not (folder / IN_USE).exists():
            shutil.rmtree(folder, ignore_errors=True)


def _number(folder: Path) -> int | None:
    begin, name, number = folder.name.partition(BEGIN)
    return int(number) if name and not begin and number.isdecimal() else None
