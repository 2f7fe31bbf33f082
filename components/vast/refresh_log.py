"""What a refresh has read from a state lately, as a note on this computer.

A provider learns of one resource at a time and never sees the state. But the refresh at the
beginning of an `up` reads every machine in the state. So a contract that carries the stack's label
and was not read is in no state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.core.clock import Clock

if TYPE_CHECKING:
    from components.vast.api.locked_file import LockedJsonFile

FILE_NAME = "in-the-state.json"
"""Its file's name in the account's shared folder."""

LATELY = 3600.0
"""Seconds for which the note holds what was read."""


class RefreshLog:
    """The note: names of what was read, and when."""

    def __init__(self, file: LockedJsonFile, clock: Clock) -> None:
        """Keep it in `file`, by `clock`."""
        self._file = file
        self._clock = clock

    def note(self, name: str) -> float:
        """Note that something was read just now; return the moment, in whole seconds since 1970.

        Raises:
            NoSharedFolder: if the note cannot be written.
        """
        now = float(round(self._clock.epoch()))
        with self._file.lock() as content:
            content.values = {**self._young(content.values), name: now}
            content.save()
        return now

    def recent(self) -> dict[str, float]:
        """What was read, and when.

        Raises:
            NoSharedFolder: if the note cannot be read.
        """
        with self._file.lock() as content:
            return self._young(content.values)

    def _young(self, values: dict[str, object]) -> dict[str, float]:
        oldest = self._clock.epoch() - LATELY
        noted = {name: float(str(moment)) for name, moment in values.items()}
        return {name: moment for name, moment in noted.items() if moment >= oldest}
