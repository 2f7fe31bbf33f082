"""What repeated measurements say: a median, and how sure it is. Pure.

A shared computer's speed changes by a factor within minutes, so two single results say nothing of
what was measured. Things are measured in turns instead, and compared within each round. What the
rounds say is their median, with an interval that needs no assumption about their distribution.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Literal

DOUBT = 0.05
"""How often the true median may lie outside of the interval."""

LEAST_ROUNDS = 6
"""With fewer, not even the lowest and the highest value enclose the median that surely."""

Verdict = Literal["met", "MISSED", "undecided"]


@dataclasses.dataclass(frozen=True)
class Spread:
    """A median, and the interval that has the true one."""

    median: float
    low: float
    high: float

    def at_most(self, most: float) -> Verdict:
        """Whether it is at most so much; undecided where the interval has both."""
        if self.high <= most:
            return "met"
        return "MISSED" if self.low > most else "undecided"

    def at_least(self, least: float) -> Verdict:
        """Whether it is at least so much; undecided where the interval has both."""
        return Spread(-self.median, -self.high, -self.low).at_most(-least)


def spread(values: Sequence[float]) -> Spread:
    """Give the median of independent values, and its interval by the sign test.

    Raises:
        ValueError: for fewer than `LEAST_ROUNDS` values.
    """
    ordered = sorted(values)
    outside = _outside(len(ordered))
    return Spread(statistics.median(ordered), ordered[outside], ordered[-1 - outside])


def ratios(first: Sequence[float], second: Sequence[float]) -> Spread:
    """Compare the second with the first, round by round."""
    return spread([b / a for a, b in zip(first, second, strict=True)])


def differences(first: Sequence[float], second: Sequence[float]) -> Spread:
    """Say how much more the second is than the first, round by round."""
    return spread([b - a for a, b in zip(first, second, strict=True)])


def _outside(count: int) -> int:
    """How many values on each side the interval may leave out.

    Each value is as likely below the median as above it, so how many are below is binomial.
    """
    if count < LEAST_ROUNDS:
        raise ValueError(f"{count} rounds are too few: it takes {LEAST_ROUNDS}")
    left_out, chance = 0, 2 / 2**count
    while chance + 2 * math.comb(count, left_out + 1) / 2**count <= DOUBT:
        left_out += 1
        chance += 2 * math.comb(count, left_out) / 2**count
    return left_out
