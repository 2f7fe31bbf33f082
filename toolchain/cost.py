"""Compare stacks' costs with the expected costs: `python -m toolchain.cost --stack dev`.

Reads Vast's own ledger, so it works for stacks that are destroyed as well. The expected cost is
known for machines that were rented from this computer; for others it is "unknown".
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.console import RenderableType
from rich.text import Text

from components.core.commands import DEFAULT_STACK
from components.core.tables import table
from components.vast.charges import DAY, KINDS, OTHER, Line, compare, total
from components.vast.estimates import ESTIMATES, Estimates
from toolchain.configuration import project_name
from toolchain.day_two.answer import Answer, Model, in_utc
from toolchain.day_two.command import Asked, parser, run
from toolchain.on_emulator import BELONGINGS, ROOT
from toolchain.options import whole_number

DAYS = 30

MOST_DAYS = 3650
"""More than the ledger has of anybody."""

WIDEST = 60.0
"""Inches of a plot; a picture of more pixels than matplotlib takes is none."""

NAMES = {"gpu": "GPU", "disk": "disk", "bwd": "traffic down", "bwu": "traffic up", OTHER: OTHER}

HEADINGS = ("day", "machine", "hours", "GPU", "disk", "traffic", "other", "charged", "expected")
"""They fit into 80 columns."""


class Day(Model):
    """One resource on one UTC day; money in $."""

    stack: str
    resource: str
    day: str
    contracts: tuple[str, ...]
    """Such as `instance-123`: a resource can have had several."""
    hours: float
    """For which a contract existed, all contracts together."""
    charged: dict[str, float]
    """By kind."""
    expected: float | None
    """None where a contract was rented from another computer, or never came up."""


class Cost(Answer):
    """What was charged, a line for each machine and day."""

    format: Literal["vast-vllm/cost/1"] = "vast-vllm/cost/1"
    since: str
    days: tuple[Day, ...]
    charged: float
    expected: float | None
    """None if it is unknown for one of the lines."""
    words: str
    """The sums, and where the expected one comes from."""
    plot: str = ""
    """Where it was drawn; empty if nothing was charged, or it could not be drawn."""


def main() -> int:
    """Print the table and write the plot; return 2 with a sentence if the ledger cannot be read."""
    options = parser("cost", __doc__)
    options.set_defaults(stack="")
    days = whole_number(1, MOST_DAYS)
    options.add_argument("--days", type=days, default=DAYS, help=f"how far back; {DAYS}")
    options.add_argument("--plot", type=Path, help="where the plot goes; .png, .svg or .pdf")
    given = options.parse_args()
    here = Asked(given.stack or DEFAULT_STACK, given.account, given.json)
    return run(here, lambda: cost(here, given.stack, given.days, given.plot), show)


def cost(here: Asked, stack: str, days: int, plot_at: Path | None) -> Cost:
    """Ask the ledger, compare and draw; an empty `stack` means all of them.

    Raises:
        StackError: the ledger cannot be read.
    """
    context, project = here.context, project_name(ROOT)
    now = context.clock.epoch()
    since = now - days * DAY
    api = context.market()
    charges = api.charges(since, now)
    expected = Estimates(api.shared(ESTIMATES)).known()
    lines = compare(charges, expected, project, stack or None, since)
    whose = stack or "all stacks"
    path = plot_at or BELONGINGS / "cost" / f"{stack or 'all'}.png"
    undrawn = _drawn(lines, whose, path) if lines else ""
    nothing = f"nothing was charged under a label of {project} in {days} days"
    charged, sum_expected = total(lines)
    return Cost(
        asked_at=in_utc(now),
        stack=stack,
        since=in_utc(since),
        days=tuple(map(_day, lines)),
        charged=charged,
        expected=sum_expected if lines else None,
        words=f"{whose}: {summary(lines) if lines else nothing}",
        plot=str(path) if lines and not undrawn else "",
        notes=(undrawn,) if undrawn else (),
    )


def show(answer: Cost) -> Sequence[RenderableType]:
    """Lay out the lines, the sums below them."""
    if not answer.days:
        return [Text(answer.words)]
    made = table(
        HEADINGS, [_row(one, answer.stack) for one in answer.days], numbers={*HEADINGS[2:]}
    )
    # Lines between the columns would take it beyond 80.
    made.box, made.padding = None, (0, 1, 0, 0)
    made.columns[1].overflow = "fold"
    drawn = [Text(f"plot: {answer.plot}")] if answer.plot else []
    return [made, Text(""), Text(answer.words), *drawn]


def _drawn(lines: Sequence[Line], whose: str, path: Path) -> str:
    """Draw, and say why that is not possible; empty if it is. The figures are the answer."""
    try:
        plot(lines, whose, path)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        return f"{path} cannot be drawn: {' '.join(str(why or error).split())}"
    return ""


def _day(line: Line) -> Day:
    return Day(
        stack=line.stack,
        resource=line.resource,
        day=line.day.isoformat(),
        contracts=line.contracts,
        hours=line.hours,
        charged=dict(line.charged),
        expected=line.estimated,
    )


def _row(line: Day, stack: str) -> tuple[str, ...]:
    """Write a line as text; money in $. With one stack alone its name is left out."""
    resource = line.resource if stack else f"{line.stack}/{line.resource}"
    contracts = (name.removeprefix("instance-") for name in line.contracts)
    by_kind = {kind: line.charged.get(kind, 0.0) for kind in NAMES}
    return (
        line.day[5:],
        " ".join((resource, *contracts)),
        f"{line.hours:.2f}",
        f"{by_kind['gpu']:.2f}",
        f"{by_kind['disk']:.2f}",
        f"{by_kind['bwd'] + by_kind['bwu']:.2f}",
        f"{by_kind[OTHER]:.2f}",
        f"{sum(line.charged.values()):.2f}",
        "unknown" if line.expected is None else f"{line.expected:.2f}",
    )


def summary(lines: Sequence[Line]) -> str:
    """The total, and the source of the expected figure."""
    charged, expected = total(lines)
    if expected is None:
        unknown = sorted({name for one in lines if one.estimated is None for name in one.contracts})
        return (
            f"${charged:.4f} charged; the expected cost is unknown for {', '.join(unknown)}, "
            "which never came up or was rented from another computer"
        )
    share = f" ({(charged - expected) / expected:+.0%})" if expected else ""
    return (
        f"${charged:.4f} charged, ${expected:.4f} expected{share}: $/h with the disk, for each "
        "hour that the contract existed, and the traffic of image and weights of what was rented "
        "in that time; Vast bills the GPU only while the container runs, and for up to five "
        "minutes after a machine was destroyed; its ledger shows tenths of a cent"
    )


def plot(lines: Sequence[Line], whose: str, path: Path) -> None:
    """Draw the charges by day and kind as bars, and the expected cost as a mark."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (a third of a second, for a picture alone)

    days = sorted({line.day for line in lines})
    names = [day.isoformat() for day in days]
    figure = Figure(figsize=(min(WIDEST, max(6.0, 0.6 * len(days) + 3)), 4.5), layout="constrained")
    axes = figure.subplots()
    bottom = [0.0] * len(days)
    for kind in (*KINDS, OTHER):
        heights = [
            sum(line.charged.get(kind, 0.0) for line in lines if line.day == day) for day in days
        ]
        if any(heights):
            axes.bar(names, heights, bottom=bottom, width=0.6, label=NAMES[kind])
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    known = [
        (name, expected)
        for name, day in zip(names, days, strict=True)
        if (expected := total(line for line in lines if line.day == day)[1]) is not None
    ]
    if known:
        marked, dollars = zip(*known, strict=True)
        axes.scatter(marked, dollars, marker="_", s=900, color="black", label="expected")
    axes.set_ylabel("$ a day")
    axes.set_title(f"What was charged: {whose}")
    axes.tick_params(axis="x", rotation=45 if len(days) > 4 else 0)  # noqa: PLR2004  (that fit)
    axes.margins(y=0.1)
    axes.set_xlim(-1, len(days))
    figure.legend(loc="outside right upper")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


if __name__ == "__main__":
    sys.exit(main())
