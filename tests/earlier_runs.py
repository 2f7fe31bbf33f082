"""Folders that earlier runs of the tests have left behind."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

_RUN = re.compile(r"pytest-([0-9]+)")

IN_USE = ".lock"
"""What pytest keeps in the folder of a run as long as that lasts."""


def remove_earlier(current: Path) -> None:
    """Remove the folders beside that of this run that are of earlier ones, and of no use any more.

    pytest would do so at its end, where everybody waits for it: 25,000 files take it three seconds.
    """
    this = _number(current)
    if this is None:
        return
    for folder in current.parent.iterdir():
        number = _number(folder)
        if number is not None and number < this and not (folder / IN_USE).exists():
            shutil.rmtree(folder, ignore_errors=True)


def _number(folder: Path) -> int | None:
    found = _RUN.fullmatch(folder.name)
    return int(found[1]) if found else None
