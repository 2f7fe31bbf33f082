"""Waiting for what a real process does, by looking at it until a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE = 20.0
LOOK_EVERY = 0.02
SOON = 1.0
"""Seconds in which most of what is waited for comes. What takes longer is looked at less often: a
look is often a call to a server that has others to answer."""
LATER_EVERY = 0.1


def eventually(
    look: Callable[[], T | None], within: float = DEADLINE, every: float | None = None
) -> T:
    """Give the first true value that `look` returns; fail with the last one after `within` s.

    `every` is the pause between two looks, in seconds, where a short-lived state is to be seen.
    """
    began = time.monotonic()
    while True:
        seen = look()
        if seen:
            return seen
        passed = time.monotonic() - began
        assert passed < within, f"still {seen!r} after {within:.0f} s"
        threading.Event().wait(every or (LOOK_EVERY if passed < SOON else LATER_EVERY))
