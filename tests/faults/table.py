"""What came of all cells, for a terminal and for the pages in `docs/`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table

from tests.faults.cell import Row

COLUMNS = ("fault", "what happens", "command", "outcome", "left over", "billed", "seconds")
REQUESTS = "requests failed"
"""One more column, where clients ask all the time."""


def in_order(rows: Iterable[Row]) -> list[Row]:
    """By fault, command and name, whatever the order in which they were played."""
    return sorted(rows, key=lambda row: (row.fault, row.command, row.name))


def as_table(rows: Iterable[Row]) -> Table:
    """For a terminal."""
    rows = in_order(rows)
    columns, texts = _content(rows)
    table = Table(*columns, title=summary(rows))
    for row, text in zip(rows, texts, strict=True):
        table.add_row(*text, style="" if row.kept else "bold red")
    return table


def as_markdown(rows: Iterable[Row]) -> str:
    """For a document."""
    rows = in_order(rows)
    columns, texts = _content(rows)
    lines = [
        f"| {' | '.join(columns)} |",
        f"|{'|'.join([' --- '] * 4 + [' ---: '] * (len(columns) - 4))}|",
        *(f"| {' | '.join(text)} |" for text in texts),
    ]
    return "\n".join(lines)


def summary(rows: Iterable[Row]) -> str:
    """The numbers that matter, in one sentence."""
    rows = list(rows)
    broken = sum(not row.kept for row in rows)
    return (
        f"{len(rows)} cells, {broken} broken; {sum(row.left_over for row in rows)} contracts left "
        f"over, {sum(row.doubles for row in rows)} rented twice, "
        f"{sum(row.throttled for row in rows)} calls faster than Vast allows"
    )


def _content(rows: Sequence[Row]) -> tuple[tuple[str, ...], list[list[str]]]:
    if not any(row.requests for row in rows):
        return COLUMNS, [_texts(row) for row in rows]
    return (*COLUMNS, REQUESTS), [[*_texts(row), row.requests or "-"] for row in rows]


def _texts(row: Row) -> list[str]:
    return [
        row.fault,
        row.name,
        row.command,
        row.outcome.replace("|", "/"),
        str(row.left_over),
        f"${row.dollars:.2f}",
        f"{row.seconds:.0f}",
    ]
