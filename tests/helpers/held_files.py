"""The market's shared files without their lock, where one thread of one process uses them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from components.vast.api.locked_file import Content, LockedJsonFile


class Kept(Content):
    """A content that is kept as JSON in memory."""

    def __init__(self, texts: dict[Path, str], path: Path) -> None:
        self._texts = texts
        self._path = path
        self.values = json.loads(texts.get(path, "{}"))

    def save(self) -> None:
        self._texts[self._path] = json.dumps(self.values)


class _Held(LockedJsonFile):
    """A file in memory, which nobody else can hold."""

    def __init__(self, texts: dict[Path, str], path: Path) -> None:
        super().__init__(path)
        self._texts = texts

    @contextlib.contextmanager
    def lock(self, *, wait: bool = True) -> Iterator[Content]:
        del wait
        yield Kept(self._texts, self._path)


class HeldFiles:
    """Opens such files; they last as long as this."""

    def __init__(self) -> None:
        self._texts: dict[Path, str] = {}

    def __call__(self, path: Path) -> LockedJsonFile:
        return _Held(self._texts, path)
