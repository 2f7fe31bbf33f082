"""vLLM's metrics, read into strict types: gauges, counters and the histogram of first tokens. Pure.

A host may write anything there. So only lines of the metrics that are wanted are read, within
bounds, by the field's own parser. A metric that cannot be what it says makes the whole text
unreadable. The names are vLLM's (vllm reference, 2.5).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Self

from prometheus_client.parser import text_string_to_metric_families
from pydantic import model_validator

from components.core.display import shown
from components.vllm.client import ENDED, MOST_COUNTED, READ, RUNNING, WAITING, WRITTEN
from toolchain.day_two.answer import Model

KV_CACHE = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
"""Share of the KV cache in use, 0 to 1; the second is its name in older releases."""

FIRST_TOKEN = "vllm:time_to_first_token_seconds"  # noqa: S105  (a metric's name)

WANTED = (RUNNING, WAITING, ENDED, READ, WRITTEN, FIRST_TOKEN, *KV_CACHE)

MOST_LINES = 20_000
"""Of the wanted metrics; a server of 16 engines has some hundred."""

LONGEST_LINE = 2000
"""Characters."""

MOST_REQUESTS = 100_000
"""Requests that one server can have in work, or in its queue: a port has no more connections."""

MOST_BUCKETS = 100
LONGEST_SECONDS = 1e6
"""Highest bound of a bucket that is believed."""

Samples = dict[str, list[tuple[dict[str, str], float]]]
"""Labels and values by the name of a sample."""


class Histogram(Model):
    """How often a duration was at most each bound."""

    bounds: tuple[float, ...]
    """Seconds, ascending; above the last one there is no other."""
    counts: tuple[float, ...]
    """Durations up to each bound, and last of all."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        ascending = all(low < high for low, high in itertools.pairwise(self.bounds))
        rising = all(low <= high for low, high in itertools.pairwise(self.counts))
        if not (ascending and rising and len(self.counts) == len(self.bounds) + 1):
            raise ValueError("no histogram")
        if not all(0 <= one <= MOST_COUNTED for one in self.counts):
            raise ValueError("no counts")
        return self

    @property
    def total(self) -> float:
        """Of all durations."""
        return self.counts[-1]

    def quantile(self, share: float) -> Quantile | None:
        """The duration that a share (0 to 1) of all does not exceed; None without a duration.

        Within a bucket it is interpolated, as Prometheus does (`histogram_quantile`).
        """
        if not self.total:
            return None
        rank = share * self.total
        at = next(n for n, count in enumerate(self.counts) if count >= rank and count)
        if at == len(self.bounds):
            return Quantile(seconds=self.bounds[-1] if self.bounds else 0.0, is_more=True)
        low, below = (self.bounds[at - 1], self.counts[at - 1]) if at else (0.0, 0.0)
        within = (rank - below) / (self.counts[at] - below)
        return Quantile(seconds=low + (self.bounds[at] - low) * max(0.0, within))

    def since(self, earlier: Histogram) -> Histogram | None:
        """What was added to an earlier histogram; None if that is not of the same server."""
        if self.bounds != earlier.bounds:
            return None
        added = tuple(now - before for now, before in zip(self.counts, earlier.counts, strict=True))
        try:
            return Histogram(bounds=self.bounds, counts=added)
        except ValueError:
            return None


class Quantile(Model):
    """A quantile of durations."""

    seconds: float
    is_more: bool = False
    """Whether it lies above the last bound, which `seconds` is then."""


class Reading(Model):
    """What one server's metrics said at one moment."""

    at: float
    """Seconds since 1970."""
    server: str
    """The start of the server that it is of, which begins its counters anew."""
    running: int
    """Requests in work."""
    waiting: int
    """Requests in the queue."""
    kv_cache: float | None
    """Share of the KV cache in use, 0 to 1."""
    ended: int
    """Requests since the start."""
    read: int
    """Tokens of prompts since the start."""
    written: int
    """Generated tokens since the start."""
    first_token: Histogram | None
    """Time to first token since the start."""


def read_metrics(text: str, at: float, server: str) -> Reading:
    """Read the text of `/metrics`, all engines together.

    Raises:
        ValueError: if it lacks what every server counts, or a value cannot be.
    """
    samples = _samples(text)
    if RUNNING not in samples:
        raise ValueError("it shows no counts of its requests")
    cache = [value for name in KV_CACHE for _, value in samples.get(name, [])]
    return Reading(
        at=at,
        server=server,
        running=_count(samples, RUNNING, MOST_REQUESTS),
        waiting=_count(samples, WAITING, MOST_REQUESTS),
        kv_cache=_share(max(cache)) if cache else None,
        ended=_count(samples, ENDED),
        read=_count(samples, READ),
        written=_count(samples, WRITTEN),
        first_token=_histogram(samples.get(f"{FIRST_TOKEN}_bucket", [])),
    )


def together(histograms: Iterable[Histogram | None]) -> Histogram | None:
    """Add up the histograms of several servers; None if their bounds differ, or there is none."""
    known = [one for one in histograms if one is not None]
    if not known or any(one.bounds != known[0].bounds for one in known):
        return None
    counts = (sum(column) for column in zip(*(one.counts for one in known), strict=True))
    return Histogram(bounds=known[0].bounds, counts=tuple(counts))


def _samples(text: str) -> Samples:
    lines = [line for line in text.split("\n") if _is_wanted(line)]
    if len(lines) > MOST_LINES or any(len(line) > LONGEST_LINE for line in lines):
        raise ValueError("it is longer than any server's")
    found: Samples = {}
    try:
        for family in text_string_to_metric_families("\n".join(lines) + "\n"):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((sample.labels, float(sample.value)))
    except Exception as error:  # noqa: BLE001  (a stranger's text may bring the parser to any)
        raise ValueError(shown(f"it cannot be read ({type(error).__name__})")) from None
    return found


def _is_wanted(line: str) -> bool:
    """Whether a line is of a wanted metric: a sample of it, or its type."""
    return line.removeprefix("# TYPE ").startswith(WANTED)


def _count(samples: Samples, name: str, most: float = MOST_COUNTED) -> int:
    values = [value for _, value in samples.get(name, [])]
    if not all(0 <= value <= most for value in values) or sum(values) > most:
        raise ValueError(f"{name} is no count")
    return int(sum(values))


def _share(value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError("the share of the KV cache is none")
    return value


def _histogram(buckets: Sequence[tuple[dict[str, str], float]]) -> Histogram | None:
    """Add up the buckets of all engines."""
    sums: dict[float, float] = {}
    for labels, count in buckets:
        bound = float(labels.get("le", "nan"))
        if math.isnan(bound) or not (0 <= bound <= LONGEST_SECONDS or bound == math.inf):
            raise ValueError("a bucket has no bound")
        sums[bound] = sums.get(bound, 0.0) + count
    if not sums:
        return None
    bounds = sorted(sums)
    if bounds[-1] != math.inf or len(bounds) > MOST_BUCKETS:
        raise ValueError("its buckets are none")
    return Histogram(bounds=tuple(bounds[:-1]), counts=tuple(sums[bound] for bound in bounds))
