"""What one turn of the loop leaves to the next one, also where the next one is another process."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from toolchain.scale.situation import HOUR, Reading

KEPT_SECONDS = 2 * HOUR
"""How long readings are kept: the longest rule looks an hour back."""

MOST_BYTES = 1_000_000


class Memory(BaseModel):
    """Readings of the load, and what became of the last steps."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    readings: tuple[Reading, ...] = ()
    """Oldest first."""
    changed_at: float = 0.0
    failed_at: float = 0.0
    failures: int = 0

    def with_reading(self, reading: Reading, now: float) -> Self:
        """Add a reading, and forget old ones and those of a future that has not come."""
        kept = [one for one in self.readings if now - KEPT_SECONDS <= one.at < reading.at]
        return self.model_copy(update={"readings": (*kept, reading)})

    def changed(self, now: float, *, rented: bool) -> Self:
        """Note that the number has changed. A machine that was rented ends a run of failures."""
        past = {"failed_at": 0.0, "failures": 0} if rented else {}
        return self.model_copy(update={"changed_at": now, **past})

    def failed(self, now: float) -> Self:
        """Note that a step up has failed. What it has changed is not known."""
        return self.model_copy(
            update={"changed_at": now, "failed_at": now, "failures": min(self.failures + 1, 10)}
        )


def load(path: Path) -> Memory:
    """Read it; begin anew where there is none, or none that can be read.

    Without memory, a loop waits until it has seen enough. So nothing is lost but time.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            return Memory()
        return Memory.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return Memory()


def save(path: Path, memory: Memory) -> None:
    """Write it in place of the previous one; a disk that is full costs the history alone."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f"{path.name}.new")
        beside.write_text(memory.model_dump_json(), encoding="utf-8")
        os.replace(beside, path)  # noqa: PTH105  (atomic, and named so)
