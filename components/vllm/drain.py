"""The wait of an endpoint that another one has taken over from, until its clients have left."""

from __future__ import annotations

from collections.abc import Callable

from components.clock import Clock
from components.progress import Progress, duration
from components.vllm.endpoint import Refused, Traffic, Unreachable

QUIET = 20.0
"""Seconds without a request that are taken to mean that nobody is left."""

POLL = 2.0
"""Seconds between two looks."""


def until_quiet(
    look: Callable[[], Traffic | Refused | Unreachable],
    longest: float,
    clock: Clock,
    progress: Progress,
) -> bool:
    """Return when no request was seen for `QUIET` seconds; False if `longest` passed before.

    An endpoint that does not answer has no clients that could be cut off.
    """
    started = clock.monotonic()
    quiet_since = started
    ended: int | None = None
    while True:
        seen = look()
        if not isinstance(seen, Traffic):
            progress.say(f"nobody to wait for: {seen}")
            return True
        now = clock.monotonic()
        if seen.under_way or (ended is not None and seen.ended != ended):
            quiet_since = now
        ended = seen.ended
        if now - quiet_since >= min(QUIET, longest):
            progress.say(f"no request for {duration(now - quiet_since)}: its clients have left")
            return True
        if now - started >= longest:
            progress.say(
                f"still asked after {duration(longest)} ({seen.under_way} requests under way): it "
                "goes now, as drainMinutes says"
            )
            return False
        progress.waiting(
            f"another endpoint has taken over; waiting for clients to leave this one "
            f"({seen.under_way} requests under way)"
        )
        clock.sleep(POLL)
