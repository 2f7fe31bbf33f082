"""Folders that earlier runs of the tests have left behind."""

from __future__ import annotations

import shutil
from pathlib import Path

IN_USE = ".lock"
"""What pytest keeps in the folder of a run as long as that lasts."""


def remove_earlier(current: Path) -> None:
    """Remove the folders beside that of this run, `pytest-<number>`, of runs that are over.

    pytest would do so at its end, where everybody waits for it: 25,000 files take it three seconds.
    """
    begin, _, number = current.name.rpartition("-")
    if not number.isdigit():
        return
    for folder in current.parent.glob(f"{begin}-*"):
        other = folder.name.removeprefix(f"{begin}-")
        is_earlier = other.isdigit() and int(other) < int(number)
        if is_earlier and not (folder / IN_USE).exists():
            shutil.rmtree(folder, ignore_errors=True)
