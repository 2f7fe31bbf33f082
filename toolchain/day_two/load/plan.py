"""What a load test asks for, and the most that it costs. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from components.core.errors import ConfigurationError
from components.core.progress import duration
from toolchain.day_two.answer import Model

CLIENTS: tuple[float, ...] = (1, 4, 16, 64)
"""Requests at the same time, where the command line names neither clients nor rates."""

AROUND_SECONDS = 60.0
"""The most that guidellm takes around a load: its start, its workers, its report."""

MOST_LOADS = 20
MOST_CLIENTS = 2048
MOST_RATE = 1000.0

BUDGET = "2"
"""$, where the command line names none."""

_PICTURE = re.compile(r"([1-9][0-9]{1,3})x([1-9][0-9]{1,3})")

Axis = Literal["clients", "requests/s"]
"""What makes the load: so many clients, each of which asks again as soon as it has its answer; or
so many requests a second, whether the server keeps up or not."""


class BadLoad(ConfigurationError):
    """What the command line asks for is no load, or none that the server takes.

    Cost: nothing; nothing was asked.
    Remedy: write the loads as the message says.
    """


class OverBudget(ConfigurationError):
    """A load test may cost more than `BUDGET`.

    Cost: nothing; the load test has not begun.
    Remedy: raise `BUDGET`, name fewer loads, or shorten each with `EACH`.
    """


class Shape(Model):
    """Of each request."""

    prompt_tokens: int = Field(gt=0)
    """Of the text, the shared part included; a picture's come on top."""
    answer_tokens: int = Field(gt=0)
    """Every answer reaches this length."""
    shared_tokens: int = Field(ge=0)
    """With which every prompt of the test begins; 0 for none."""
    picture: str = Field(pattern=r"^([1-9][0-9]{1,3}x[1-9][0-9]{1,3})?$")
    """Pixels, as `512x512`: one picture a request, each another; empty for none."""

    def describe(self) -> str:
        """The shape in few words."""
        shared = f", {self.shared_tokens} of them shared" if self.shared_tokens else ""
        picture = f", a picture of {self.picture}" if self.picture else ""
        return f"{self.prompt_tokens} tokens in{shared}{picture}, {self.answer_tokens} out"


class Plan(Model):
    """All loads of a test, in the order in which they are played."""

    shape: Shape
    axis: Axis
    values: tuple[float, ...] = Field(min_length=1, max_length=MOST_LOADS)
    """Ascending: clients, or requests a second."""
    seconds: float = Field(gt=0)
    """Of each load."""

    @property
    def most_seconds(self) -> float:
        """The most that the whole test takes."""
        return len(self.values) * (self.seconds + AROUND_SECONDS)


class Cost(Model):
    """What the stack's machines cost while the test runs."""

    dollars_per_hour: float
    """Of all machines of the stack that are billed now."""
    most_seconds: float
    budget: float
    """$."""

    @property
    def most_dollars(self) -> float:
        """The most that they cost in that time."""
        return self.dollars_per_hour * self.most_seconds / 3600


def plan_of(
    shape: Shape, clients: str, rates: str, seconds: float, max_model_len: int | None
) -> Plan:
    """Read the loads of a command line: numbers with commas, of clients or of requests a second.

    `max_model_len` are the tokens that the server takes; None if nobody knows.

    Raises:
        BadLoad: one sentence.
    """
    if clients and rates:
        raise BadLoad("CLIENTS and RATES make two tests: name one of them; nothing was asked")
    axis: Axis = "requests/s" if rates else "clients"
    values = _numbers(rates or clients) if rates or clients else CLIENTS
    most = MOST_RATE if rates else MOST_CLIENTS
    if not values or len(values) > MOST_LOADS or not all(0 < one <= most for one in values):
        raise BadLoad(
            f"{rates or clients!r} are no loads: at most {MOST_LOADS} numbers with commas between "
            f"them, each above 0 and at most {most:g}; nothing was asked"
        )
    if axis == "clients" and any(one != int(one) for one in values):
        raise BadLoad(f"{clients!r} are no clients: whole numbers; nothing was asked")
    if not 1 <= seconds <= 3600:  # noqa: PLR2004  (an hour)
        raise BadLoad(f"EACH={seconds:g} is no time: 1 to 3600 seconds; nothing was asked")
    _check_shape(shape, max_model_len)
    return Plan(shape=shape, axis=axis, values=tuple(sorted(set(values))), seconds=seconds)


def shape_of(prompt: int, answer: int, shared: int, picture: str) -> Shape:
    """Read the shape of a command line.

    Raises:
        BadLoad: one sentence.
    """
    if picture and not _PICTURE.fullmatch(picture):
        raise BadLoad(f"PICTURE={picture} is no size: PICTURE=512x512; nothing was asked")
    if prompt < 1 or answer < 1 or not 0 <= shared < prompt:
        raise BadLoad(
            f"PROMPT={prompt}, ANSWER={answer}, SHARED={shared} make no request: each has at least "
            "a token of its own; nothing was asked"
        )
    return Shape(prompt_tokens=prompt, answer_tokens=answer, shared_tokens=shared, picture=picture)


def budget_of(text: str) -> float:
    """Read a budget of a command line, in $.

    Raises:
        BadLoad: one sentence.
    """
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,2})?", text):
        raise BadLoad(
            f"BUDGET={text} is no budget of a load test: BUDGET=2.50 is $2.50 for all of "
            "it; nothing was asked"
        )
    return float(text)


def within(cost: Cost) -> Cost:
    """Give a cost back that its budget covers.

    Raises:
        OverBudget: otherwise.
    """
    if cost.most_dollars > cost.budget:
        needed = math.ceil(cost.most_dollars * 100) / 100
        raise OverBudget(
            f"the load test takes up to {duration(cost.most_seconds)}, and "
            f"${cost.dollars_per_hour:.2f}/h make ${needed:.2f} of that, above the budget of "
            f"${cost.budget:.2f}: allow BUDGET={needed:.2f}, name fewer loads, or shorten each "
            "with EACH; nothing was asked"
        )
    return cost


def describe(plan: Plan, cost: Cost, stack: str) -> str:
    """Say what will be asked and what it will cost, before it is."""
    return (
        f"{stack}: {described_loads(plan.axis, plan.values)}, {plan.shape.describe()}, "
        f"{plan.seconds:g} s each; at most {duration(cost.most_seconds)}, in which the machines "
        f"cost ${cost.most_dollars:.2f} at ${cost.dollars_per_hour:.2f}/h, with or without a load; "
        "other clients are slowed down"
    )


def described_loads(axis: Axis, values: Sequence[float]) -> str:
    """Such as `1, 4 and 16 clients`."""
    names = [f"{one:g}" for one in values]
    listed = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    return f"{listed} {axis}" if names != ["1"] or axis != "clients" else "1 client"


def _check_shape(shape: Shape, max_model_len: int | None) -> None:
    needed = shape.prompt_tokens + shape.answer_tokens
    if max_model_len is not None and needed > max_model_len:
        raise BadLoad(
            f"a request of {needed} tokens does not fit into the {max_model_len} that the server "
            "takes: shorten PROMPT or ANSWER; nothing was asked"
        )


def _numbers(text: str) -> tuple[float, ...]:
    """Read numbers with commas between them; empty for anything else."""
    parts = text.split(",")
    if not all(re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", part) for part in parts):
        return ()
    return tuple(float(part) for part in parts)
