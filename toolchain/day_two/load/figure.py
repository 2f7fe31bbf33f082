"""The measured figure of a release: what it carries of a load test, and how two of them compare.

Pure. A release keeps it beside its other proofs, outside of its digest. A release of an older
version of this project has none, and goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, ValidationError

from toolchain.day_two.answer import Model
from toolchain.day_two.load.curve import Point, knee
from toolchain.day_two.load.kept import Conditions, LoadTest, differences
from toolchain.day_two.load.plan import described_loads

KEY = "load"
"""The name of the figure among a release's proofs."""

DIGITS = 4
"""Of a figure that are kept."""


class FigureAtLoad(Model):
    """One load; times are medians in milliseconds."""

    load: float = Field(gt=0)
    tokens_per_second: float = Field(gt=0)
    first_token: float = Field(ge=0)
    token: float = Field(ge=0)
    dollars_per_million: float = Field(ge=0)


class LoadFigure(Model):
    """A load test as a release carries it."""

    conditions: Conditions
    knee: float | None
    """The load at the knee; None without one."""
    loads: tuple[FigureAtLoad, ...] = Field(min_length=1)


class NoFigure(Exception):
    """A release's figure cannot be read."""


def figure_of(test: LoadTest) -> dict[str, Any]:
    """Write a test's figure as it stands in a release's file."""
    rate = test.conditions.dollars_per_hour
    found = knee(test.points)
    figure = LoadFigure(
        conditions=test.conditions,
        knee=found.load if found else None,
        loads=tuple(_at_load(point, rate) for point in test.points),
    )
    return figure.model_dump(mode="json")


def newest_for(tests: Sequence[LoadTest], digest: str, gpus: Sequence[str]) -> LoadTest | None:
    """The newest whole test of what has this digest, on so many machines with these GPUs."""
    wanted = sorted(gpus)
    return next(
        (
            test
            for test in reversed(tests)
            if digest
            and test.is_whole
            and test.conditions.digest == digest
            and sorted(test.conditions.gpus) == wanted
        ),
        None,
    )


def figure_in(proven: Mapping[str, Any]) -> LoadFigure | None:
    """Read the figure out of a release's proofs; None without one.

    Raises:
        NoFigure: if it is none.
    """
    if KEY not in proven:
        return None
    try:
        return LoadFigure.model_validate(proven[KEY])
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise NoFigure(".".join(map(str, first["loc"])) or "the whole") from None


def compared(
    name: str, proven: Mapping[str, Any], before: str, proven_before: Mapping[str, Any]
) -> list[str]:
    """Say how a release's figures differ from those of the release before it."""
    try:
        new, old = figure_in(proven), figure_in(proven_before)
    except NoFigure as error:
        return [f"a load figure of {before} or {name} cannot be read, at {error}"]
    if new is None or old is None:
        without = " and ".join(
            one for one, figure in ((before, old), (name, new)) if figure is None
        )
        return [f"no figures to compare: no load was measured for {without}"]
    apart = differences(new.conditions, old.conditions)
    if apart:
        said = f"the load figures of {before} and {name} cannot be compared, since they differ in "
        return [said + ", ".join(apart)]
    known = {one.load: one for one in old.loads}
    lines = [_compared(new, one, known[one.load]) for one in new.loads if one.load in known]
    return lines or [f"{before} and {name} were measured at no load in common"]


def _compared(figure: LoadFigure, new: FigureAtLoad, old: FigureAtLoad) -> str:
    mark = ", the knee" if new.load == figure.knee else ""
    return (
        f"{described_loads(figure.conditions.axis, [new.load])}{mark}: "
        f"{new.tokens_per_second:.4g} tokens/s "
        f"({_change(new.tokens_per_second, old.tokens_per_second)}), first token after "
        f"{new.first_token:.4g} ms ({_change(new.first_token, old.first_token)}), "
        f"${new.dollars_per_million:.2f} for a million tokens "
        f"({_change(new.dollars_per_million, old.dollars_per_million)})"
    )


def _change(new: float, old: float) -> str:
    return f"{new / old - 1:+.0%}" if old > 0 else "was 0"


def _at_load(point: Point, dollars_per_hour: float) -> FigureAtLoad:
    return FigureAtLoad(
        load=point.load,
        tokens_per_second=_rounded(point.tokens_per_second),
        first_token=_rounded(point.first_token.p50),
        token=_rounded(point.token.p50),
        dollars_per_million=_rounded(point.dollars_per_million(dollars_per_hour)),
    )


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
