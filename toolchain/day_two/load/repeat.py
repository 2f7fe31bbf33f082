"""Two tests of the same loads: how far they are apart, and whether that is within their noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

from toolchain.day_two.answer import Model
from toolchain.day_two.load.curve import Point
from toolchain.day_two.load.kept import LoadTest, alike


class Apart(Model):
    """One load of two tests."""

    load: float
    tokens_per_second: float
    """Share by which the later test wrote more tokens a second; negative for fewer."""
    first_token: float
    """Share by which its mean time to first token was longer."""
    is_within_noise: bool
    """Whether the intervals of 95 % of both figures explain the distance."""


def earlier(test: LoadTest, others: Sequence[LoadTest]) -> LoadTest | None:
    """The newest other test of the same that ran under the same conditions; None without one."""
    return next(
        (
            one
            for one in reversed(others)
            if one.conditions.at < test.conditions.at
            and one.conditions.digest == test.conditions.digest
            and alike(one.conditions, test.conditions)
        ),
        None,
    )


def compared(later: LoadTest, before: LoadTest) -> list[Apart]:
    """Compare the loads that both tests have."""
    known = {point.load: point for point in before.points}
    return [_apart(point, known[point.load]) for point in later.points if point.load in known]


def describe(apart: Sequence[Apart], before: LoadTest) -> str:
    """One sentence about all loads; empty without any."""
    if not apart:
        return ""
    most = max(apart, key=lambda one: abs(one.tokens_per_second))
    within = sum(one.is_within_noise for one in apart)
    return (
        f"against the test of {before.conditions.at[:16].replace('T', ' ')} UTC, tokens/s differ "
        f"by at most {abs(most.tokens_per_second):.1%}, at a load of {most.load:g}; {within} of "
        f"{len(apart)} loads are within the noise of both"
    )


def _apart(later: Point, before: Point) -> Apart:
    tokens = _is_within(
        later.tokens_per_second - before.tokens_per_second,
        later.tokens_noise,
        before.tokens_noise,
    )
    first = _is_within(
        later.first_token.mean - before.first_token.mean,
        later.first_token.noise or 0.0,
        before.first_token.noise or 0.0,
    )
    return Apart(
        load=later.load,
        tokens_per_second=later.tokens_per_second / before.tokens_per_second - 1,
        first_token=later.first_token.mean / max(before.first_token.mean, 1e-9) - 1,
        is_within_noise=tokens and first,
    )


def _is_within(distance: float, one: float, other: float) -> bool:
    """Two independent errors add up as the sides of a right angle."""
    return abs(distance) <= math.hypot(one, other)
