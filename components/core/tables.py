"""Tables for people, as plain lines: Pulumi shows what a provider prints line by line."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from components.core.display import shown

WIDTH = 140
"""Columns that a table may take before its cells are wrapped."""


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: set[str]) -> Table:
    """Build a table; the columns named in `numbers` are aligned to the right."""
    made = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in headings:
        made.add_column(heading, justify="right" if heading in numbers else "left")
    for row in rows:
        # as Text, since a host's own message may hold brackets that mean something to rich
        made.add_row(*(Text(shown(cell)) for cell in row))
    return made


def terminal() -> Console:
    """Give the console of a command: as wide as its terminal, or as `WIDTH` where there is none."""
    return Console(width=None if sys.stdout.isatty() else WIDTH)


def lines(made: Table) -> list[str]:
    """Give a table as text without colours, for whatever is no terminal."""
    paper = io.StringIO()
    Console(file=paper, width=WIDTH, color_system=None, legacy_windows=False).print(made)
    return [line.rstrip() for line in paper.getvalue().splitlines() if line.strip()]
