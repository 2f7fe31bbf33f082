"""Time, passed in: policy that waits is given a clock, and tests give it one of their own."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What policy may know of time. All values are seconds."""

    def monotonic(self) -> float:
        """Seconds from some fixed moment; never goes back. For deadlines and durations."""

    def epoch(self) -> float:
        """Seconds since 1970. For moments that are written down or compared with Vast's."""

    def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""


class SystemClock:
    """The machine's own clock."""

    def monotonic(self) -> float:
        """See `Clock`."""
        return time.monotonic()

    def epoch(self) -> float:
        """See `Clock`."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        time.sleep(seconds)
