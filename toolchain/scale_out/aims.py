"""What is promised of the router, what was measured, and what follows. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from toolchain.scale_out.spread import Spread, Verdict

WITHIN = 0.10
"""A router costs at most this share of requests a second, and of p50."""

ADDED_P50 = 0.5
"""Milliseconds at most."""


@dataclasses.dataclass(frozen=True)
class Aim:
    """A promise, and what was measured."""

    what: str
    measured: str
    verdict: Verdict


def adds_little(what: str, added: Spread) -> Aim:
    """At most so many milliseconds more at the median."""
    measured = f"{added.median:+.2f} ms ({added.low:+.2f} to {added.high:+.2f})"
    promise = f"{what}: at most {ADDED_P50} ms more at the median"
    return Aim(promise, measured, added.at_most(ADDED_P50))


def is_within(what: str, rate: Spread, p50: Spread) -> list[Aim]:
    """Two shares of what the other target has: requests a second, and the median of answers."""
    least, most = 1 - WITHIN, 1 + WITHIN
    return [
        Aim(f"{what}: at least {least:.2f} of its requests/s", _share(rate), rate.at_least(least)),
        Aim(f"{what}: at most {most:.2f} of its median", _share(p50), p50.at_most(most)),
    ]


def is_none(what: str, count: int) -> Aim:
    """Something that is counted does not occur."""
    return Aim(what, str(count), "MISSED" if count else "met")


def status(aims: Sequence[Aim]) -> int:
    """The command's: 1 if an aim is missed, 2 if one is undecided."""
    verdicts = {aim.verdict for aim in aims}
    return 1 if "MISSED" in verdicts else 2 if "undecided" in verdicts else 0


def markdown(aims: Sequence[Aim]) -> str:
    """The aims as a table of a document."""
    lines = ["| aim | measured | outcome |", "| --- | --- | --- |"]
    lines += [f"| {aim.what} | {aim.measured} | {aim.verdict.lower()} |" for aim in aims]
    return "\n".join(lines) + "\n"


def _share(one: Spread) -> str:
    return f"{one.median:.2f} ({one.low:.2f} to {one.high:.2f})"
