"""What a run took: seconds by tier, the ten slowest tests, and the memory at its highest."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterable

import psutil
import pytest
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.tiers import TIER_NAMES, tier_of

SLOWEST = 10
EVERY = 0.5
"""Seconds between two looks at the memory."""
GB = 1e9


class PeakMemory:
    """The most that this computer had in use beyond what it had at the start.

    Counted for the whole computer: what tests start are processes of nobody's, and of many of them
    the same pages are the same memory.
    """

    def __init__(self) -> None:
        self._before = _in_use()
        self.peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(EVERY):
            self.peak = max(self.peak, _in_use() - self._before)


def _in_use() -> int:
    memory = psutil.virtual_memory()
    return int(memory.total - memory.available)


class Summary:
    """Collects while a run lasts, and is printed at its end."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._memory = PeakMemory()

    def print(self, reports: Iterable[pytest.TestReport]) -> None:
        """Print the table of what was played, and the ten slowest."""
        self._memory.stop()
        took: dict[str, float] = defaultdict(float)
        for report in reports:
            took[report.nodeid] += report.duration
        console = Console(width=110)
        console.print(by_tier(took))
        console.print(slowest(took))
        minutes, seconds = divmod(round(time.monotonic() - self._began), 60)
        console.print(
            f"{minutes} min {seconds} s in all; memory at most {self._memory.peak / GB:.1f} GB "
            "beyond what was in use before",
            highlight=False,
        )


def by_tier(took: dict[str, float]) -> Table:
    """Tests and seconds of each tier that was played."""
    table = Table("tier", "tests", "seconds, one after the other")
    for tier in TIER_NAMES:
        mine = [seconds for test, seconds in took.items() if tier_of(test) == tier]
        if mine:
            table.add_row(tier, str(len(mine)), f"{sum(mine):.0f}")
    return table


def slowest(took: dict[str, float]) -> Table:
    """The tests that took longest, what they were prepared with included."""
    table = Table("the slowest", "tier", "seconds")
    for test in sorted(took, key=lambda test: -took[test])[:SLOWEST]:
        table.add_row(escape(test.removeprefix("tests/")), tier_of(test), f"{took[test]:.1f}")
    return table
