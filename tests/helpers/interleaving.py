"""Blocking procedures side by side in virtual time, one at a time, in an order that a test draws.

A procedure runs until it sleeps or comes to `turn`. Then any that can go on goes on. Time passes
when all of them sleep. So a run is the same each time, and each order of their steps can be tried.
"""

from __future__ import annotations

import dataclasses
import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

from tests.helpers.fakes import VirtualClock

STUCK = 20.0
"""Real seconds after which a procedure counts as blocked outside of virtual time."""

PAUSES = (*[0.0] * 20, 50.0)
"""Virtual seconds that a step may take: a process can stand still for longer than a boot takes."""


class Stuck(Exception):
    """A procedure waits for something that virtual time does not know."""


@dataclasses.dataclass
class _Procedure:
    work: Callable[[], Any]
    wakes_at: float = 0.0
    go: threading.Semaphore = dataclasses.field(default_factory=lambda: threading.Semaphore(0))
    is_over: bool = False
    outcome: Any = None
    """What it returned, or the exception that ended it."""


class Interleaving(VirtualClock):
    """The clock of all procedures, and what lets them go on."""

    def __init__(self, seed: int, pauses: Sequence[float] = PAUSES) -> None:
        """Draw each next step, and its pause (virtual seconds), by `seed`."""
        super().__init__()
        self._pauses = pauses
        self._chance = random.Random(seed)  # noqa: S311  (an order, not a secret)
        self._mine = threading.local()
        self._paused = threading.Semaphore(0)

    def run(self, *works: Callable[[], Any]) -> list[Any]:
        """Run all to their end; give what each returned, or the exception that ended it."""
        procedures = [_Procedure(work) for work in works]
        threads = [
            threading.Thread(target=self._carry, args=(one,), daemon=True) for one in procedures
        ]
        for thread in threads:
            thread.start()
        while left := [one for one in procedures if not one.is_over]:
            self.passed = max(self.passed, min(one.wakes_at for one in left))
            awake = [one for one in left if one.wakes_at <= self.passed]
            self._chance.choice(awake).go.release()
            if not self._paused.acquire(timeout=STUCK):
                raise Stuck("it neither sleeps nor ends")
        for thread in threads:
            thread.join()
        return [one.outcome for one in procedures]

    def turn(self) -> None:
        """Let any other go on first, at times for long; outside of `run` there is none."""
        if hasattr(self._mine, "procedure"):
            self.sleep(self._chance.choice(self._pauses))

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        mine = self._mine.procedure
        mine.wakes_at = self.passed + seconds
        self._paused.release()
        mine.go.acquire()

    def _carry(self, mine: _Procedure) -> None:
        self._mine.procedure = mine
        mine.go.acquire()
        try:
            mine.outcome = mine.work()
        except BaseException as error:  # noqa: BLE001  (handed to the test)
            mine.outcome = error
        mine.is_over = True
        self._paused.release()
