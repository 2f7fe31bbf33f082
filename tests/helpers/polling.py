"""Waiting for what a real process does, by looking at it until a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE = 20.0
LOOK_EVERY = 0.02


def eventually(
    look: Callable[[], T | None], within: float = DEADLINE, every: float = LOOK_EVERY
) -> T:
    """Give the first true value that `look` returns; fail with the last one after `within` s."""
    ends = time.monotonic() + within
    while True:
        seen = look()
        if seen:
            return seen
        assert time.monotonic() < ends, f"still {seen!r} after {within:.0f} s"
        threading.Event().wait(every)
