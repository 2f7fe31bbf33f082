"""The figures of a load test: its points, their noise, the knee, dollars per million. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from pydantic import Field

from toolchain.day_two.answer import Model

MILLION = 1e6
BATCHES = 10
"""Slices of a load's time whose means give the noise of tokens a second."""

LEAST_SECONDS = 0.001
"""A load that was shorter is no measurement."""

T_95 = 2.262
"""Student's t for 95 % and `BATCHES - 1` degrees of freedom."""

FEWEST_POINTS = 3
"""A line through two points has no knee."""


class Times(Model):
    """Milliseconds over the requests of a load."""

    p50: float = Field(ge=0)
    p99: float = Field(ge=0)
    mean: float = Field(ge=0)
    noise: float | None = Field(ge=0)
    """Half the width of the mean's interval of 95 %; None if there are too few requests."""


class Point(Model):
    """One load, and how it was answered."""

    load: float = Field(gt=0)
    """Clients, or requests a second."""
    seconds: float = Field(gt=0)
    """That were measured, after the warm-up."""
    answered: int = Field(gt=0)
    """Requests within them."""
    failed: int = Field(ge=0)
    """Requests of the whole load that got an error."""
    prompt_tokens: float = Field(ge=0)
    """Mean, as the server counts them."""
    answer_tokens: float = Field(ge=0)
    requests_per_second: float = Field(ge=0)
    tokens_per_second: float = Field(gt=0)
    """Written, over all requests."""
    tokens_noise: float = Field(ge=0)
    """Half the width of the interval of 95 % of tokens a second."""
    first_token: Times
    token: Times
    """For each token after the first one."""
    request: Times
    """From the request to the last token."""
    ran_out: bool
    """Whether the load ended with its last prompt, before its time."""
    late_generator: bool
    """Whether guidellm itself was so slow that it may have held up the load."""

    def dollars_per_million(self, dollars_per_hour: float) -> float:
        """$ for a million written tokens at this load, if the machines wrote all the time."""
        return dollars_per_hour / 3600 / self.tokens_per_second * MILLION


class Span(Model):
    """The time in which one request got its tokens; seconds since 1970."""

    first: float
    last: float
    tokens: int = Field(ge=0)


def power(point: Point) -> float:
    """Kleinrock's power of a load: tokens a second over the seconds of a request.

    L. Kleinrock, "Power and deterministic rules of thumb for probabilistic problems in computer
    communications" (ICC 1979).
    """
    return point.tokens_per_second / max(point.request.p50, 1e-6)


def knee(points: Sequence[Point]) -> Point | None:
    """The load of the highest power, which more load makes slower by more than it makes it faster.

    Up to it, tokens a second grow by a greater factor than the time of a request; beyond it, by a
    smaller one. Of equal loads it is the lowest. None if the highest load has the highest power,
    since the knee then lies beyond; and with fewer than `FEWEST_POINTS`.
    """
    if len(points) < FEWEST_POINTS:
        return None
    ordered = sorted(points, key=lambda point: point.load)
    best = max(ordered, key=power)
    return None if best is ordered[-1] else best


def noise(spans: Sequence[Span], begin: float, end: float) -> float:
    """Half the width of the interval of 95 % of tokens a second, by the method of batch means.

    The time from `begin` to `end` is cut into `BATCHES` slices. A request's tokens count evenly
    over its span. It is the noise within one run; two runs may differ by more. Less than
    `LEAST_SECONDS` has none.
    """
    if end - begin < LEAST_SECONDS:
        return 0.0
    each = (end - begin) / BATCHES
    counted = [0.0] * BATCHES
    for span in spans:
        length = span.last - span.first
        if length <= 0:
            at = math.floor((span.first - begin) / each)
            if 0 <= at < BATCHES:
                counted[at] += span.tokens
            continue
        for number in range(BATCHES):
            low = begin + number * each
            shared = min(span.last, low + each) - max(span.first, low)
            counted[number] += span.tokens * max(0.0, shared) / length
    return T_95 * statistics.stdev(counted) / each / math.sqrt(BATCHES)
