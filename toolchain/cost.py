"""Compare stacks' costs with the expected costs: `python -m toolchain.cost --stack dev`.

Reads Vast's own ledger, so it works for stacks that are destroyed as well. The expected cost is
known for machines that were rented from this computer; for others it is "unknown".
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from components.core.errors import StackError
from components.core.tables import table, terminal
from components.resources.context import Context
from components.vast.charges import KINDS, OTHER, Line, compare, total
from components.vast.estimates import ESTIMATES, Estimates
from toolchain.configuration import project_name
from toolchain.on_emulator import BELONGINGS, ROOT, emulator_environment
from toolchain.options import whole_number

DAYS = 30

NAMES = {"gpu": "GPU", "disk": "disk", "bwd": "traffic down", "bwu": "traffic up", OTHER: OTHER}

HEADINGS = ("stack", "resource", "day", "contracts", "hours", *NAMES.values())
MONEY = ("charged", "expected", "difference")


def main() -> int:
    """Print the table, write the plot; return 1 with a sentence if the ledger cannot be read."""
    parser = argparse.ArgumentParser(prog="cost", description=__doc__)
    parser.add_argument("--stack", help="one stack, also a destroyed one; otherwise all")
    parser.add_argument("--days", type=whole_number(1), default=DAYS, help=f"how far back; {DAYS}")
    parser.add_argument("--plot", type=Path, help="where the plot goes; .png, .svg or .pdf")
    parser.add_argument(
        "--account", action="store_true", help="the Vast.ai account's ledger, not the emulator's"
    )
    given = parser.parse_args()
    environment = dict(os.environ) if given.account else emulator_environment()
    project = project_name(ROOT)
    now = dt.datetime.now(dt.UTC).timestamp()
    since = now - given.days * 86400
    try:
        api = Context(environment=environment).market()
        charges = api.charges(since, now)
    except StackError as error:
        print(error, file=sys.stderr)  # noqa: T201  (a command's own output)
        return 1
    expected = Estimates(api.shared(ESTIMATES)).known()
    lines = compare(charges, expected, project, given.stack, since)
    whose = given.stack or "all stacks"
    console = terminal()
    if not lines:
        console.print(
            f"{whose}: nothing was charged under a label of {project} in {given.days} days"
        )
        return 0
    console.print(table((*HEADINGS, *MONEY), rows(lines), numbers=set(HEADINGS[4:] + MONEY)))
    console.print(f"{whose}: {summary(lines)}", highlight=False)
    path = given.plot or BELONGINGS / "cost" / f"{given.stack or 'all'}.png"
    plot(lines, whose, path)
    console.print(f"plot: {path}", soft_wrap=True, highlight=False)
    return 0


def rows(lines: Sequence[Line]) -> list[tuple[str, ...]]:
    """A row for each line, as text; money in $."""
    return [
        (
            line.stack,
            line.resource,
            line.day.isoformat(),
            " ".join(name.removeprefix("instance-") for name in line.contracts),
            f"{line.hours:.2f}",
            *(f"{line.charged.get(kind, 0.0):.4f}" for kind in NAMES),
            f"{line.total:.4f}",
            "unknown" if line.estimated is None else f"{line.estimated:.4f}",
            "" if line.estimated is None else f"{line.total - line.estimated:+.4f}",
        )
        for line in lines
    ]


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
    figure = Figure(figsize=(max(6.0, 0.6 * len(days) + 3), 4.5), layout="constrained")
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
