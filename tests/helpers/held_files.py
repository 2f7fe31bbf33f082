"""The market's shared files in memory, where one thread of one process uses them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from components.vast.api.locked_file import Busy, Content, LockedJsonFile


class Kept(Content):
    """A content that is kept as JSON in memory."""

    def __init__(self, texts: dict[Path, str], path: Path) -> None:
        self._texts = texts
        self._path = path
        self.values = json.loads(texts.get(path, "{}"))

    def save(self) -> None:
        self._texts[self._path] = json.dumps(self.values)


class HeldFiles:
    """Opens such files; they last as long as this."""

    def __init__(self) -> None:
        self.texts: dict[Path, str] = {}
        self.held: set[Path] = set()

    def __call__(self, path: Path) -> LockedJsonFile:
        return _Held(self, path)


class _Held(LockedJsonFile):
    """One of them."""

    def __init__(self, files: HeldFiles, path: Path) -> None:
        super().__init__(path)
        self._files = files

    @contextlib.contextmanager
    def lock(self, *, wait: bool = True) -> Iterator[Content]:
        held = self._files.held
        if self._path in held:
            assert not wait, "it would wait for itself"
            raise Busy("another process or thread holds it")
        held.add(self._path)
        try:
            yield Kept(self._files.texts, self._path)
        finally:
            held.remove(self._path)
