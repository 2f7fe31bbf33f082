"""Say where the emulator's answers differ from those of a field report: `compare REPORT`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from components.core.display import shown

if TYPE_CHECKING:
    from rich.table import Table

    from emulator.differences import Difference


def compare_report(options: argparse.Namespace) -> int:
    """Print the differences from `options.report`; return the exit status: 1 if there are any.

    Raises:
        CommandError: it is no report.
    """
    # The other commands of the emulator need none of it.
    from rich.console import Console  # noqa: PLC0415

    from emulator.differences import differences  # noqa: PLC0415
    from emulator.field_report import read_report  # noqa: PLC0415
    from emulator.replay import replayed  # noqa: PLC0415

    console = Console()
    calls, speed = read_report(options.report)
    pairs = replayed(calls, speed=speed)
    found = differences(pairs)
    if options.json:
        print(json.dumps([asdict(one) for one in found], indent=1))  # noqa: T201  (for a program)
        return 1 if found else 0
    if found:
        console.print(_table(found))
    count = "no differences" if not found else f"{len(found)} difference{'s' * (len(found) > 1)}"
    console.print(
        f"{len(pairs)} answers compared, {len(calls) - len(pairs)} questions had none: {count}",
        highlight=False,
    )
    return 1 if found else 0


def _table(found: Sequence[Difference]) -> Table:
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    made = Table()
    for heading in ("call", "question", "what", "where", "market", "emulator"):
        made.add_column(heading, overflow="fold")
    for one in found:
        # As Text, since a report is a stranger's and may hold brackets that mean something to rich.
        row = (str(one.call), one.endpoint, one.kind, one.where, one.market, one.emulator)
        made.add_row(*(Text(shown(cell)) for cell in row))
    return made
