"""The pace that Vast's API asks for: so many seconds between two calls of one endpoint.

Vast counts calls by key, not by connection or process. So the next free moment of each endpoint
stands in a file that all processes of this computer share.
"""

from __future__ import annotations

from typing import Any, Final

from components.clock import Clock
from components.vast.errors import NoSharedFolder
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

LATE = MARGIN / 2
"""Seconds after its turn at which a call is too near to the one behind it."""

LONGEST_QUEUE = 900.0
"""Seconds ahead that a turn can be; one further away was written before the clock was set back."""


class Throttle:
    """Lets calls through one after the other, each endpoint at its own interval."""

    def __init__(self, clock: Clock, file: SharedFile) -> None:
        """Wait by `clock`; keep the turns in `file`."""
        self._clock = clock
        self._file = file
        self._known: dict[str, Any] = {}

    def wait(self, endpoint: str) -> None:
        """Return when `endpoint` may be called; the place in the queue is taken at once.

        A disk that fills up later leaves each process its own pace: a machine that was rented
        meanwhile must be given back all the same.

        Raises:
            NoSharedFolder: at the first call, before anything is rented.
        """
        seconds = self._take_turn(endpoint)
        if seconds <= 0:
            return
        due = self._clock.epoch() + seconds
        self._clock.sleep(seconds)
        # A computer that stood still wakes all who wait at once: the late go to the end, one time.
        if self._clock.epoch() - due > LATE:
            self._clock.sleep(self._take_turn(endpoint))

    def _take_turn(self, endpoint: str) -> float:
        try:
            with self._file.held() as sheet:
                seconds = self._until_free(endpoint, sheet.values)
                sheet.save()
        except NoSharedFolder:
            if not self._known:
                raise
            return self._until_free(endpoint, self._known)
        self._known = dict(sheet.values)
        return seconds

    def _until_free(self, endpoint: str, turns: dict[str, Any]) -> float:
        """The seconds until this call's own turn; the next one's is written into `turns`."""
        now = self._clock.epoch()
        free = float(turns.get(endpoint, 0.0))
        turn = max(now, free) if free - now < LONGEST_QUEUE else now
        turns[endpoint] = turn + INTERVALS[endpoint] + MARGIN
        return turn - now
