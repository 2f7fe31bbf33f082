"""The load model of the simulation: a day of an office's requests, drawn from one seed. Pure."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Iterator

from toolchain.scale.situation import DAY, HOUR

HUMPS = ((10.5, 1.6, 0.9), (15.0, 2.0, 1.0), (21.0, 1.5, 0.25))
"""Hour of the peak, width in hours, and height as a share of the highest: morning, afternoon, and
the evening of people elsewhere."""

NIGHT = 0.06
"""Of the highest rate, which batch jobs keep up all the time."""


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Requests of a day that begins at midnight UTC."""

    peak_per_second: float
    """Requests a second where the model is highest, on average."""
    seed: int = 0

    def rate(self, at: float) -> float:
        """Requests a second at a moment, on average; `at` is in seconds since midnight."""
        hour = at % DAY / HOUR
        humps = sum(
            height * math.exp(-(((hour - middle) / width) ** 2) / 2)
            for middle, width, height in HUMPS
        )
        return self.peak_per_second * (NIGHT + (1 - NIGHT) * min(1.0, humps))

    def requests(self, seconds: float = DAY) -> Iterator[tuple[float, float]]:
        """Draw requests: the moment of each, and the work of its answer, of which 1 is average.

        Moments are a Poisson process of changing rate (by thinning), and the work is exponential.
        So what comes together comes by chance alone: there is no burst in it.
        """
        chance = random.Random(self.seed)  # noqa: S311  (a simulation)
        at = 0.0
        while True:
            at += chance.expovariate(self.peak_per_second)
            if at >= seconds:
                return
            if chance.random() * self.peak_per_second <= self.rate(at):
                yield at, chance.expovariate(1.0)
