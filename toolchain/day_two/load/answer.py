"""The answer of `make load`."""

from __future__ import annotations

from typing import Literal

from toolchain.day_two.answer import Answer
from toolchain.day_two.load.kept import LoadTest
from toolchain.day_two.load.plan import Cost, Plan
from toolchain.day_two.load.repeat import Apart


class LoadAnswer(Answer):
    """What a load test asked for, what it could cost, and what came of it."""

    format: Literal["vast-vllm/load/1"] = "vast-vllm/load/1"
    plan: Plan
    cost: Cost
    most_dollars: float
    """The most that the test could cost, as it was said before."""
    test: LoadTest | None
    """None if no load was measured."""
    knee: float | None = None
    """The load at the knee; None without one."""
    dollars_per_million: tuple[float, ...] = ()
    """$ for a million written tokens, by load as in the test."""
    apart: tuple[Apart, ...] = ()
    """By load: how far this test is from the one before it under the same conditions."""
    file: str = ""
    """Where the test is kept; empty if it is not."""
    picture: str = ""
    """Where it is drawn; empty if it is not."""
