"""Where the files for Prometheus lie, and that nobody else of this computer reads them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from components.core.errors import PlatformError
from toolchain.day_two.dashboard.prometheus import OF_A_TARGET
from toolchain.on_emulator import BELONGINGS

PLACE = BELONGINGS / "dashboards"
"""Beside what else belongs to this checkout alone, and ignored by git."""


class NotWritten(PlatformError):
    """The files could not be written.

    Cost: nothing; some of them may be those of an earlier run.
    Remedy: make room, or give the folder to your user.
    """


def folder_of(stack: str, *, on_account: bool, place: Path = PLACE) -> Path:
    """Name the folder of a stack's files; the emulator's stacks have folders of their own."""
    return place / ("account" if on_account else "emulator") / stack


def write(folder: Path, texts: Mapping[str, str]) -> None:
    """Write the files of a folder anew, for this user alone; what others put there stays.

    Keys and certificates of targets that are gone go. A reader finds each file whole.

    Raises:
        NotWritten: if that is not possible.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        with tempfile.TemporaryDirectory(dir=folder.parent) as new:
            made = Path(new)
            for name, text in texts.items():
                place = made / name
                place.touch(mode=0o600)
                place.write_text(text, encoding="utf-8")
            # The configuration comes first in them, and should find its keys.
            for name in reversed([*texts]):
                (made / name).replace(folder / name)
        for file in folder.iterdir():
            if OF_A_TARGET.fullmatch(file.name) and file.name not in texts:
                file.unlink()
    except OSError as error:
        raise NotWritten(f"{folder} cannot be written: {error.strerror}") from None
