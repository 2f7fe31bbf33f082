"""The pace that Vast's API asks for: so many seconds between two calls of one endpoint.

Vast counts calls by key, not by connection or process. So the next free moment of each endpoint
stands in a file that all processes of this computer share.
"""

from __future__ import annotations

from typing import Final

from components.clock import Clock
from components.vast.shared_file import SharedFile

INTERVALS: Final[dict[str, float]] = {
    "search": 6.0,
    "rent": 4.5,
    "instance": 2.0,
    "instances": 1.0,
    "change": 1.0,
    "destroy": 3.0,
    "bid": 5.5,
    "prices": 1.0,
    "logs": 1.0,
    "user": 1.0,
    "charges": 1.0,
    "ssh": 1.0,
}
"""Least seconds between two calls (vast-api reference, 1.6; search is 10 a minute)."""

MARGIN = 0.3
"""Seconds on top: Vast measures when calls arrive, and a second one can be quicker on its way."""

LONGEST_QUEUE = 900.0
"""Seconds ahead that a turn can be; one further away was written before the clock was set back."""


class Throttle:
    """Lets calls through one after the other, each endpoint at its own interval."""

    def __init__(self, clock: Clock, file: SharedFile) -> None:
        """Wait by `clock`; keep the turns in `file`."""
        self._clock = clock
        self._file = file

    def wait(self, endpoint: str) -> None:
        """Return when `endpoint` may be called; the place in the queue is taken at once."""
        with self._file.held() as sheet:
            now = self._clock.epoch()
            free = float(sheet.values.get(endpoint, 0.0))
            turn = max(now, free) if free - now < LONGEST_QUEUE else now
            sheet.values[endpoint] = turn + INTERVALS[endpoint] + MARGIN
            sheet.save()
        if turn > now:
            self._clock.sleep(turn - now)
