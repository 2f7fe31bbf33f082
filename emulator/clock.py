"""Emulated time: it runs at a chosen speed, stands still while nothing serves, and is kept."""

from __future__ import annotations

from collections.abc import Callable


class EmulatedClock:
    """Seconds since 1970 in the emulated world.

    now = the moment it was set to + the real seconds since then x speed. While the emulator is
    down nobody asks, and the next `up` sets it to the last moment that the store knows.
    """

    def __init__(self, *, start: float, speed: float, monotonic: Callable[[], float]) -> None:
        """Begin at `start` (epoch seconds); `speed` emulated seconds pass in one real second."""
        self.speed = speed
        self._monotonic = monotonic
        self._set_to = start
        self._set_at = monotonic()

    def now(self) -> float:
        """Emulated epoch seconds; never goes back."""
        return self._set_to + (self._monotonic() - self._set_at) * self.speed

    def advance(self, seconds: float) -> float:
        """Jump forward by emulated `seconds` (not negative) and return the new moment."""
        if seconds < 0:
            raise ValueError(f"the clock cannot go back by {-seconds} s; give a positive number")
        self._set_to = self.now() + seconds
        self._set_at = self._monotonic()
        return self._set_to
