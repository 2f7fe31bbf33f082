"""The pace that Vast's API asks for: by endpoint, and for all endpoints of a key together.

Vast counts calls by key, not by connection or process. So the next free moment of each endpoint
stands in a file that all processes of this computer share.

An emulated market may ask for less. Its pace is a share of Vast's own, told by `VAST_PACE`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Final

from components.core.clock import Clock
from components.machine.addresses import is_loopback
from components.vast.api.locked_file import LockedJsonFile
from components.vast.api.market_url import host_of
from components.vast.errors import NoSharedFolder, PaceRefused

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
    "jobs": 1.0,
}
"""Least seconds between two calls (vast-api reference, 1.6; search is 10 a minute; of `jobs` none
is published)."""

SHARED_CALLS: Final = 5
SHARED_SECONDS: Final = 10.0
"""A key has so many calls within so many seconds, whatever their endpoints (marketplace-facts, 8).
"""

MARGIN = 0.8
"""Seconds on top: Vast measures when calls arrive, and a second one can be quicker on its way. With
0.3 a call of a computer with much else to do came too soon, one in some hundred."""

SHARED_MARGIN = 1.0
"""Seconds on top of the time for the shared calls: five of them have five ways to be late, and one
that is refused holds all endpoints up."""

LEAST_MARGIN = 0.1
"""Of a market with shorter intervals: what a call needs on its way does not shrink with them."""

REAL_PACE = 1.0
"""The market's own."""

VARIABLE = "VAST_PACE"

TURNS, HELD_UNTIL = "turns of all", "held until"
"""Names in the file beside those of endpoints: the last turns, and when the key is let in again."""

ROUNDING = 1e-6
"""Seconds by which moments since 1970 differ from their sums."""

LONGEST_QUEUE = 900.0
"""Seconds ahead that a turn can be; one further away was written before the clock was set back."""


class Throttle:
    """Lets calls through one after the other, each endpoint at its own interval."""

    def __init__(self, clock: Clock, file: LockedJsonFile, pace: float = REAL_PACE) -> None:
        """Wait by `clock`; keep the turns in `file`; `pace` times the intervals are asked for."""
        self._clock = clock
        self._file = file
        self._pace = pace
        self._margin = max(LEAST_MARGIN, MARGIN * pace)
        self._window = SHARED_SECONDS * pace + max(LEAST_MARGIN, SHARED_MARGIN * pace)
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
        # Half a margin after its turn, a call is too near to the one behind it.
        if self._clock.epoch() - due > self._margin / 2:
            self._clock.sleep(self._take_turn(endpoint))

    def hold(self, seconds: float) -> None:
        """Let no call of any endpoint through for so long: the key's calls are used up."""
        until = self._clock.epoch() + seconds
        self._known[HELD_UNTIL] = until
        with contextlib.suppress(NoSharedFolder), self._file.lock() as content:
            content.values[HELD_UNTIL] = until
            content.save()

    def _take_turn(self, endpoint: str) -> float:
        try:
            with self._file.lock() as content:
                seconds = self._until_free(endpoint, content.values)
                content.save()
        except NoSharedFolder:
            if not self._known:
                raise
            return self._until_free(endpoint, self._known)
        self._known = dict(content.values)
        return seconds

    def _until_free(self, endpoint: str, turns: dict[str, Any]) -> float:
        """The seconds until this call's own turn; the next one's is written into `turns`."""
        now = self._clock.epoch()
        free = [float(turns.get(name) or 0.0) for name in (endpoint, HELD_UNTIL)]
        own = max([now, *(moment for moment in free if moment - now < LONGEST_QUEUE)])
        recent = [
            float(moment)
            for moment in turns.get(TURNS) or []
            if now - self._window < float(moment) < now + LONGEST_QUEUE
        ]
        turn = _earliest(own, recent, self._window)
        turns[TURNS] = sorted([*recent, turn])
        turns[endpoint] = turn + INTERVALS[endpoint] * self._pace + self._margin
        return turn - now


def _earliest(own: float, others: list[float], window: float) -> float:
    """Return the first moment from `own` on with which no `window` has too many calls."""
    ends = sorted(moment + window for moment in others if moment + window > own)
    return next(moment for moment in (own, *ends) if _has_room(sorted([*others, moment]), window))


def _has_room(turns: list[float], window: float) -> bool:
    pairs = zip(turns, turns[SHARED_CALLS:], strict=False)
    return all(last - first >= window - ROUNDING for first, last in pairs)


def read_pace(environ: Mapping[str, str], url: str) -> float:
    """Give the pace of the market at `url` as a share of Vast's own, which is 1.

    Raises:
        PaceRefused: if `VAST_PACE` is no share, or is one of a market that is not on this computer.
    """
    text = environ.get(VARIABLE) or str(REAL_PACE)
    try:
        pace = float(text)
    except ValueError:
        pace = -1.0
    if not 0 < pace <= REAL_PACE:
        raise PaceRefused(
            f"{VARIABLE} is {text!r} and has to be a number above 0 and at most 1; take it out of "
            "the environment unless an emulator runs with another pace"
        )
    if pace != REAL_PACE and not is_loopback(host_of(url)):
        raise PaceRefused(
            f"{VARIABLE}={text} is an emulator's pace, and the market at {url} is none on this "
            "computer: faster calls would be refused; take it out of the environment"
        )
    return pace
