"""The wait of an endpoint with a successor, until its clients have left."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from components.core.clock import Clock
from components.core.progress import Progress, duration
from components.vllm.client_types import Refused, Traffic, Unreachable

QUIET = 20.0
"""Seconds without a request after which no client is left; also the most seconds without an answer
about requests.
"""

QUIET_BEHIND_ROUTER = 5.0
"""Seconds without a request, once a router sends none: no client has to find out by himself."""

HANGS = 300.0
"""Seconds without a token, read or written, after which running requests count as stuck. The time
is long because vLLM counts a prompt's tokens when its answer begins
(`IterationStats.update_from_output`).
"""

POLL = 2.0
"""Seconds between two looks."""

SUCCEEDED = "another endpoint has taken over; waiting for clients to leave this one"


def until_quiet(
    look: Callable[[], Traffic | Refused | Unreachable],
    longest: float,
    clock: Clock,
    progress: Progress,
    *,
    why: str = SUCCEEDED,
    quiet: float = QUIET,
) -> bool:
    """Return when no request was seen for `quiet` seconds; False if `longest` passed before.

    `why` says what is waited for.

    Where nothing listens, or the server hangs, there are no clients to cut off. Any other look
    without counters may meet a server that is busy with clients.

    Raises:
        Interrupted: somebody asked to end.
    """
    started = clock.monotonic()
    looks = _Looks(quiet_since=started, moved_at=started)
    while True:
        seen = look()
        now = clock.monotonic()
        looks.take(seen, now)
        over = looks.over(now, min(quiet, longest), min(QUIET, longest))
        if over:
            progress.say(over)
            return True
        if now - started >= longest:
            progress.say(
                f"still asked after {duration(longest)} ({looks.state}): it goes now, as "
                "drainMinutes says"
            )
            return False
        progress.go_on("the wait for its clients")
        progress.waiting(f"{why} ({looks.state})")
        clock.sleep(POLL)


@dataclasses.dataclass
class _Looks:
    """The result of the looks so far; moments in seconds of one clock."""

    quiet_since: float
    moved_at: float
    """The last look that saw tokens move on, no request under way, or no counters."""
    unanswered_since: float | None = None
    """Start of the current run of looks without counters; None while looks succeed."""
    last: Traffic | None = None
    state: str = ""
    """The last look, for people."""
    nobody: bool = False
    """Whether nothing listens."""

    def take(self, seen: Traffic | Refused | Unreachable, now: float) -> None:
        if isinstance(seen, Traffic):
            self.unanswered_since = None
            self.state = f"{seen.under_way} requests under way"
            if seen.under_way or (self.last and seen.ended != self.last.ended):
                self.quiet_since = now
            if not (self.last and seen.under_way and self.last.stands_as(seen)):
                self.moved_at = now
            self.last = seen
            return
        self.moved_at = now
        self.nobody = seen == Unreachable("refused")
        self.state = str(seen) if self.nobody else f"it may be busy: {seen}"
        self.quiet_since = now
        if self.unanswered_since is None:
            self.unanswered_since = now

    def over(self, now: float, quiet: float, unanswered: float) -> str:
        """Say why the wait ends; empty while a client may be there.

        Seconds: without a request, and without an answer about requests.
        """
        if self.nobody:
            return f"nobody to wait for: {self.state}"
        if self.unanswered_since is not None and now - self.unanswered_since >= unanswered:
            silent = duration(now - self.unanswered_since)
            return f"no look at its requests for {silent} ({self.state}): nobody is waited for"
        if now - self.moved_at >= HANGS:
            hung = duration(now - self.moved_at)
            return f"not one token for {hung} ({self.state}): it hangs, and nobody is waited for"
        if now - self.quiet_since >= quiet:
            return f"no request for {duration(now - self.quiet_since)}: its clients have left"
        return ""
