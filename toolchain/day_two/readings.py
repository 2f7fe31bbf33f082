"""Readings of metrics that a command keeps, so that the next one can speak of the last minutes.

They stand in the account's folder in the user's cache, beside what the client keeps there. A lost
file costs nothing: the next command then speaks of the time since the server's start.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from components.core.plain_numbers import is_count
from components.vast.api.locked_file import LockedJsonFile
from components.vast.errors import NoSharedFolder
from toolchain.day_two.answer import Model
from toolchain.day_two.metrics import Histogram, Reading

FILE_NAME = "readings.json"

BEST_AGE = 300.0
"""Seconds: of kept readings, the one nearest to this age is compared with."""

LEAST_AGE, MOST_AGE = 20.0, 900.0
"""Ages in seconds that a reading to compare with may have."""

APART = 15.0
"""Least seconds between two readings that are kept."""

KEPT = 24
"""Readings of one machine."""

MOST_MACHINES = 64


class Window(Model):
    """What a server did within a time."""

    seconds: float
    is_since_start: bool
    """Whether it is the whole time since the server's start, for want of an earlier reading."""
    requests: int
    written: int
    """Tokens."""
    first_token: Histogram | None


def window(reading: Reading, kept: Sequence[Reading], age: float | None) -> Window | None:
    """Compare a reading with a kept one; `age` is the server's, in seconds, None if unknown.

    None if neither gives a time.
    """
    for earlier in sorted(kept, key=lambda one: abs(reading.at - one.at - BEST_AGE)):
        seconds = reading.at - earlier.at
        if not LEAST_AGE <= seconds <= MOST_AGE or earlier.server != reading.server:
            continue
        if reading.ended < earlier.ended or reading.written < earlier.written:
            continue
        both = reading.first_token is not None and earlier.first_token is not None
        return Window(
            seconds=seconds,
            is_since_start=False,
            requests=reading.ended - earlier.ended,
            written=reading.written - earlier.written,
            first_token=reading.first_token.since(earlier.first_token)  # type: ignore[union-attr, arg-type]
            if both
            else None,
        )
    if age is None or age <= 0:
        return None
    return Window(
        seconds=age,
        is_since_start=True,
        requests=reading.ended,
        written=reading.written,
        first_token=reading.first_token,
    )


class Readings:
    """Kept readings by the contract's id."""

    def __init__(self, file: LockedJsonFile) -> None:
        """Keep them in `file`."""
        self._file = file

    def known(self) -> Mapping[int, tuple[Reading, ...]]:
        """All that are kept; none where the file cannot be used."""
        with contextlib.suppress(NoSharedFolder), self._file.lock() as content:
            return {
                int(name): _read(rows) for name, rows in content.values.items() if is_count(name)
            }
        return {}

    def keep(self, readings: Mapping[int, Reading]) -> None:
        """Keep readings of this moment, the newest of each machine and of the newest machines."""
        with contextlib.suppress(NoSharedFolder), self._file.lock() as content:
            kept = {name: list(_read(rows)) for name, rows in content.values.items()}
            for contract, reading in readings.items():
                mine = kept.pop(str(contract), [])
                if not mine or reading.at - mine[-1].at >= APART or reading.at < mine[-1].at:
                    mine.append(reading)
                kept[str(contract)] = mine[-KEPT:]
            newest = list(kept.items())[-MOST_MACHINES:]
            content.values = {
                name: [one.model_dump(mode="json") for one in rows] for name, rows in newest
            }
            content.save_for_others()


def _read(rows: Any) -> tuple[Reading, ...]:
    found = []
    for row in rows if isinstance(rows, list) else []:
        with contextlib.suppress(ValidationError):
            found.append(Reading.model_validate(row))
    return tuple(found)
