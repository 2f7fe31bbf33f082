"""The pace that Vast's API asks for: by endpoint, and for all endpoints of a key together.

Vast counts calls by key, not by connection or process. So the next free moment of each endpoint
stands in a file that all processes of this computer share.

An emulated market may have shorter intervals. `VAST_PACE` gives its pace, as a share of Vast's own.
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
"""Least seconds between two calls (vast-api reference, 1.6). Searches are limited to 10 a minute;
no limit of `jobs` is published.
"""

SHARED_CALLS: Final = 5
SHARED_SECONDS: Final = 10.0
"""A key may make `SHARED_CALLS` calls in `SHARED_SECONDS` to all endpoints together
(marketplace-facts, 8).
"""

MARGIN = 0.8
"""Seconds added to each interval. Vast counts arrivals, and a second call can be faster on its way.
With 0.3 s, a busy computer's call came too early once in some hundred calls.
"""

SHARED_MARGIN = 1.0
"""Seconds added to `SHARED_SECONDS`: each of five calls can be late, and a refused call delays all
endpoints.
"""

LEAST_MARGIN = 0.1
"""Least margin for a market with shorter intervals, since a call's time on its way does not
shrink.
"""

REAL_PACE = 1.0
"""The pace of Vast's own market."""

VARIABLE = "VAST_PACE"

TURNS, HELD_UNTIL = "turns of all", "held until"
"""Names in the file beside the endpoints': the last turns, and the end of a pause of the whole
key.
"""

ROUNDING = 1e-6
"""Rounding error of moments since 1970, in seconds."""

LONGEST_QUEUE = 900.0
"""Most seconds that a turn can lie ahead; a later turn was written before the clock was set
back.
"""


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

        If the disk fills up later, each process keeps its own pace. A machine that was rented
        meanwhile must still be given back.

        Raises:
            NoSharedFolder: at the first call, before anything is rented.
        """
        seconds = self._take_turn(endpoint)
        if seconds <= 0:
            return
        due = self._clock.epoch() + seconds
        self._clock.sleep(seconds)
        # A computer that slept wakes all waiting calls at once, so a late call goes to the end, one
        # time. Half a margin after its turn, it is too near to the next call.
        if self._clock.epoch() - due > self._margin / 2:
            self._clock.sleep(self._take_turn(endpoint))

    def hold(self, seconds: float) -> None:
        """Hold all endpoints back for `seconds`: the key's shared calls are used up."""
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
        """Return the seconds until this call's turn; write the next call's turn into `turns`."""
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
