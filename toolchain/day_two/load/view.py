"""How a load test looks to a person, in 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from components.core.display import shown
from toolchain.day_two.command import facts
from toolchain.day_two.load.answer import LoadAnswer
from toolchain.day_two.load.curve import Point
from toolchain.day_two.load.kept import Conditions, LoadTest
from toolchain.day_two.load.plan import described_loads

NUMBERS = ("load", "tok/s", "+-", "req/s", "first ms", "p99", "token ms", "p99", "$/M", "failed")
"""Columns: clients or requests a second; tokens written a second and half their interval of 95 %;
answered requests a second; milliseconds to the first token and for each further one, the median and
the 99th percentile; dollars for a million written tokens; failed requests."""

KNEE = "< knee"


def show(answer: LoadAnswer) -> Sequence[RenderableType]:
    """Lay out the answer without what is wrong, which every command shows alike."""
    test = answer.test
    if test is None:
        return [Text(f"no load of the stack {answer.stack} was measured", style="bold")]
    return [
        Text(headline(test.conditions), style="bold"),
        Text(""),
        table(test),
        Text(""),
        facts([("knee", described_knee(test)), ("file", answer.file), ("plots", answer.picture)]),
    ]


def headline(conditions: Conditions) -> str:
    """Say what was measured."""
    what = conditions.release or "its own settings"
    gpus = " + ".join(sorted(set(conditions.gpus)))
    machines = f"{conditions.replicas} x ({gpus})" if conditions.replicas > 1 else gpus
    return shown(
        f"stack {conditions.stack} runs {what} on {machines}, vLLM {conditions.vllm}: "
        f"{conditions.shape.describe()}, {conditions.seconds:g} s for each load"
    )


def table(test: LoadTest) -> Table:
    """A row for each load."""
    # No lines and little room between columns, so that a row fits into 80 of them.
    made = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in NUMBERS:
        heading = test.conditions.axis if name == "load" else name
        made.add_column(heading, justify="right", no_wrap=True)
    made.add_column("", no_wrap=True)
    best = test.knee
    for point in test.points:
        mark = KNEE if best is not None and point.load == best.load else ""
        made.add_row(*(Text(cell) for cell in row(point, test.conditions)), Text(mark))
    return made


def row(point: Point, conditions: Conditions) -> tuple[str, ...]:
    """The cells of a load."""
    return (
        f"{point.load:g}",
        figure(point.tokens_per_second),
        figure(point.tokens_noise),
        figure(point.requests_per_second),
        figure(point.first_token.p50),
        figure(point.first_token.p99),
        figure(point.token.p50),
        figure(point.token.p99),
        figure(point.dollars_per_million(conditions.dollars_per_hour)),
        str(point.failed) if point.failed else "-",
    )


def described_knee(test: LoadTest) -> str:
    """Say where the knee lies, and what the figures are there."""
    found = test.knee
    axis = test.conditions.axis
    if found is None:
        highest = test.points[-1].load
        if len(test.points) < 3:  # noqa: PLR2004  (`FEWEST_POINTS`, in words)
            return "none is looked for with fewer than three loads"
        return f"beyond {described_loads(axis, [highest])}, the highest load that was made"
    dollars = found.dollars_per_million(test.conditions.dollars_per_hour)
    return (
        f"{described_loads(axis, [found.load])}: {figure(found.tokens_per_second)} tokens/s, "
        f"first token after {figure(found.first_token.p50)} ms, "
        f"${figure(dollars)} for a million tokens written"
    )


def figure(value: float) -> str:
    """Write a number with two or three digits that count, in at most five characters."""
    units = (("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9))
    unit, factor = next((one for one in units if value < 9999.5 * one[1]), units[-1])
    scaled = value / factor
    if scaled >= 99.95:  # noqa: PLR2004  (three digits)
        return f"{scaled:.0f}{unit}"
    return f"{scaled:.1f}{unit}" if scaled >= 9.995 else f"{scaled:.2f}{unit}"  # noqa: PLR2004
