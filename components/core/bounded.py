"""Bounds that are ours on what a stranger takes: how long in all, and how much it sends.

A timeout for each read stops a slow host. It does not stop a bad host, which sends a byte before
each timeout ends. So one exchange has one budget, measured by our own clock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from components.core.clock import Clock

LOOK_EVERY = 3.0
"""Seconds between two looks at what takes its time in a thread of its own."""

T = TypeVar("T")


class OutOfTime(Exception):
    """The seconds of a budget are used up."""


class TooMuch(Exception):
    """More was sent than a budget allows."""


class Allowance:
    """How many bytes may come in all."""

    def __init__(self, most_bytes: int) -> None:
        """Begin with all of them."""
        self._left = most_bytes

    def take(self, count: int) -> None:
        """Count bytes that came.

        Raises:
            TooMuch: if they are more than there may be.
        """
        self._left -= count
        if self._left < 0:
            raise TooMuch("it sends more than it may")


class Budget:
    """What one exchange may take in all. Raises as soon as it is used up."""

    def __init__(self, clock: Clock, seconds: float, most_bytes: int) -> None:
        """Begin now, by the clock's `monotonic`."""
        self._clock = clock
        self._until = clock.monotonic() + seconds
        self._allowance = Allowance(most_bytes)

    def seconds(self, wanted: float | None = None) -> float:
        """Give the seconds that are left, and not more than `wanted`.

        Raises:
            OutOfTime: if there are none.
        """
        left = self._until - self._clock.monotonic()
        if left <= 0:
            raise OutOfTime("its time is used up")
        return left if wanted is None else min(left, wanted)

    def take(self, count: int) -> None:
        """Count bytes that came.

        Raises:
            TooMuch: if they are more than there may be.
            OutOfTime: if they came too late.
        """
        self._allowance.take(count)
        self.seconds()


def apart(
    call: Callable[[], T],
    *,
    seconds: float,
    clock: Clock,
    waiting: Callable[[], Any],
    look_every: float = LOOK_EVERY,
) -> T:
    """Make a call in a thread of its own and give its result, or raise what it raised.

    `waiting` is called at each look while it lasts. A call that outlasts `seconds` is left to
    itself: its thread ends with the process at the latest, and keeps nobody from going on.

    Raises:
        OutOfTime: if it has not ended after `seconds`.
    """
    results: list[T] = []
    errors: list[BaseException] = []
    ended = threading.Event()

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001  (raised again below, where it is waited for)
            errors.append(error)
        finally:
            ended.set()

    started = clock.monotonic()
    threading.Thread(target=run, daemon=True).start()
    left = seconds
    while not ended.wait(min(look_every, left)):
        left = seconds - (clock.monotonic() - started)
        if left <= 0:
            raise OutOfTime("its time is used up")
        waiting()
    if errors:
        raise errors[0]
    return results[0]
