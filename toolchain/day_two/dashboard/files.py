"""Where the files for Prometheus lie, and that nobody else of this computer reads them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from components.core.errors import PlatformError
from toolchain.on_emulator import BELONGINGS

PLACE = BELONGINGS / "dashboards"
"""Beside what else belongs to this checkout alone, and ignored by git."""


class NotWritten(PlatformError):
    """The files could not be written.

    Cost: nothing; what was written earlier may be gone.
    Remedy: make room, or give the folder to your user.
    """


def folder_of(stack: str, *, on_account: bool, place: Path = PLACE) -> Path:
    """Name the folder of a stack's files; the emulator's stacks have folders of their own."""
    return place / ("account" if on_account else "emulator") / stack


def write(folder: Path, texts: Mapping[str, str]) -> None:
    """Write all files of a folder anew, for this user alone; others that lay there go.

    Raises:
        NotWritten: if that is not possible.
    """
    made = folder.with_name(f"{folder.name}.new")
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(mode=0o700)
        for name, text in texts.items():
            place = made / name
            place.touch(mode=0o600)
            place.write_text(text, encoding="utf-8")
        # Keys of machines that are gone do not stay.
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)
    except OSError as error:
        raise NotWritten(f"{folder} cannot be written: {error.strerror}") from None
