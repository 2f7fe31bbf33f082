"""The files of a checkout that the commands read and write: configuration and releases.

With the account these are the committed files. On the emulator the committed files are only read.
What a command writes goes into the emulator's own folder, which is laid over them. The emulator's
images, commits and contracts are made up, so real hosts would refuse a checkout with them.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from components.release.release import Release, load_release
from toolchain.configuration import for_emulator, path_of, read, settings_of


@dataclasses.dataclass(frozen=True)
class Project:
    """A checkout, as the account or as the emulator sees it."""

    folder: Path
    own: Path | None = None
    """The emulator's own files."""

    @property
    def releases(self) -> Path:
        """Where releases are read and written."""
        return (self.own or self.folder) / "releases"

    def release(self, name: str) -> Release:
        """See `load_release`."""
        return load_release(name, self.releases)

    def committed(self, stack: str) -> dict[str, Any]:
        """A stack's settings as they are committed, by full keys.

        Raises:
            NoConfiguration: if there are none, or nobody can read them.
        """
        return settings_of(read(path_of(stack, self.folder)))

    def path(self, stack: str) -> Path:
        """Where a command writes a setting."""
        committed = path_of(stack, self.folder)
        return committed if self.own is None else self.own / committed.name

    def shown(self, path: Path) -> str:
        """A path as people here know it."""
        return str(path.relative_to(self.folder) if path.is_relative_to(self.folder) else path)

    def text(self, stack: str) -> str:
        """Read the file; empty if no command has written it yet."""
        path = self.path(stack)
        return read(path) if path.exists() else ""

    def write(self, stack: str, text: str) -> None:
        """Write the file."""
        path = self.path(stack)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def settings(self, stack: str) -> dict[str, Any]:
        """The settings that the stack runs with."""
        committed = self.committed(stack)
        if self.own is None:
            return committed
        return for_emulator(committed)[0] | settings_of(self.text(stack))
