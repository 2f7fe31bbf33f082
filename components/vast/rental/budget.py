"""The tries to rent one machine: what they may take and cost together, and what they came to."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from components.core.clock import Clock
from components.core.progress import Progress, duration
from components.vast.errors import NoCandidateLeft
from components.vast.rental.attempts import Attempt, Outcome, attempt_lines, spent
from components.vast.rental.boot import POLL, Deadlines

MOST_TRIES = 12


@dataclasses.dataclass(frozen=True)
class Limits:
    """What renting may take and cost."""

    deadlines: Deadlines
    max_dollars_per_hour: float
    """Of one machine; read back from its contract."""
    interruptible: bool
    """The kind of contract; read back too."""
    budget_seconds: float
    """For all tries together, and so with the dollars."""
    budget_dollars: float
    proof_needed: str = ""
    """See `Boot`."""
    list_max_age: float = POLL
    """Seconds that the list of contracts may be old while machines boot."""


class Budget:
    """Counts the tries of one rental against its limits."""

    def __init__(self, limits: Limits, clock: Clock, progress: Progress) -> None:
        """Keep to `limits` by `clock`; `progress` hears how each try ended."""
        self.attempts: list[Attempt] = []
        self._limits = limits
        self._clock = clock
        self._progress = progress
        self._began = clock.monotonic()

    def begin(self) -> None:
        """Count the time from now on: a wait for another process is no try."""
        self._began = self._clock.monotonic()

    def open(self, machine_id: int, place: str, dollars_per_hour: float) -> Attempt:
        """Begin a try on a machine; `dollars_per_hour` is what it costs if it is rented."""
        number = len(self.attempts) + 1
        attempt = Attempt(number, machine_id, place, dollars_per_hour)
        self.attempts.append(attempt)
        return attempt

    def close(self, attempt: Attempt, outcome: Outcome, verdict: str) -> None:
        """End a try; `verdict` says in words why it failed."""
        attempt.outcome = outcome
        attempt.verdict = verdict
        self._progress.say(attempt.line())

    def seconds_left(self) -> float:
        """Seconds that time and money for all tries still allow."""
        time = self._limits.budget_seconds - (self._clock.monotonic() - self._began)
        money = self._limits.budget_dollars - spent(self.attempts)
        price = self.attempts[-1].dollars_per_hour if self.attempts else 0.0
        return min(time, money / price * 3600) if price else time

    def is_used_up(self) -> bool:
        """Whether there may be no other try."""
        return len(self.attempts) >= MOST_TRIES or self.seconds_left() <= 0

    def no_candidate_left(
        self, excluded: Collection[int], held: Collection[int] = ()
    ) -> NoCandidateLeft:
        """Say why no machine was rented.

        `excluded` are machines that were found unfit. `held` are machines, or hosts, that other
        replicas have.
        """
        if not self.attempts and self.seconds_left() > 0:
            unfit = f"machines that were found unfit ({_numbers(excluded)})" if excluded else ""
            taken = f"what other replicas have ({_numbers(held)})" if held else ""
            return NoCandidateLeft(
                f"the market has nothing but {' and '.join(filter(None, (unfit, taken)))}; "
                "nothing is rented for this resource and nothing of it is "
                "billed any more; relax offerQuery so that other hosts come into question, or run "
                "`pulumi up` again to try them all the same"
            )
        for line in attempt_lines(self.attempts):
            self._progress.say(line)
        took = self._clock.monotonic() - self._began
        last = f"the last one: {self.attempts[-1].line()}; " if self.attempts else ""
        return NoCandidateLeft(
            f"{len(self.attempts)} tries in {duration(took)} for at most "
            f"${spent(self.attempts):.2f} brought up no machine ({self._why_no_more()}); {last}"
            "all were given back, nothing is billed any more; run `pulumi up` again, or relax "
            "offerQuery so that other hosts come into question"
        )

    def _why_no_more(self) -> str:
        if len(self.attempts) >= MOST_TRIES:
            return f"there are {MOST_TRIES}"
        if self.seconds_left() <= 0 or any(one.outcome == "budget" for one in self.attempts[-1:]):
            return (
                f"rentBudgetMinutes is {self._limits.budget_seconds / 60:g} and "
                f"rentBudgetDollars {self._limits.budget_dollars:.2f}"
            )
        return "no other offer comes into question"


def _numbers(ids: Collection[int]) -> str:
    return ", ".join(map(str, sorted(ids)))
