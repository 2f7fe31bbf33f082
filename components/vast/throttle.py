"""The pace that Vast's API asks for: so many seconds between two calls of one endpoint.

One throttle serves a whole process, because Vast counts calls by key and not by connection.
"""

from __future__ import annotations

import threading
from typing import Final

from components.clock import Clock

INTERVALS: Final[dict[str, float]] = {
    "search": 6.0,
    "rent": 4.5,
    "instance": 2.0,
    "instances": 1.0,
    "change": 1.0,
    "destroy": 3.0,
    "logs": 1.0,
    "user": 1.0,
}
"""Least seconds between two calls (vast-api reference, 1.6; search is 10 a minute)."""


class Throttle:
    """Lets calls through one after the other, each endpoint at its own interval."""

    def __init__(self, clock: Clock) -> None:
        """Wait by `clock`."""
        self._clock = clock
        self._lock = threading.Lock()
        self._next: dict[str, float] = {}

    def wait(self, endpoint: str) -> None:
        """Return when `endpoint` may be called; the place in the queue is taken at once."""
        with self._lock:
            now = self._clock.monotonic()
            turn = max(now, self._next.get(endpoint, now))
            self._next[endpoint] = turn + INTERVALS[endpoint]
        if turn > now:
            self._clock.sleep(turn - now)
