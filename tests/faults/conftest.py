"""`pytest tests/faults` plays the short suite; it prints the table.

`FAULTS=whole` plays the whole one, `FAULTS=more` and `FAULTS=several` what is in neither.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from tests.faults.cell import Cell
from tests.faults.suite import Suite
from tests.faults.table import as_table

PLAYED = {"whole": {"short", "whole"}, "more": {"more"}, "several": {"several"}}.get(
    os.environ.get("FAULTS", ""), {"short"}
)
"""Parts of the table."""
ROWS = os.environ.get("FAULTS_ROWS", "")
"""A file that each row is also added to, as a line of JSON."""

_suite: list[Suite] = []


def pytest_configure() -> None:
    """End as on Ctrl-C when asked to end: what was started is ended, too."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the cells out that were not asked for."""
    left_out = [item for item in items if not _is_played(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def suite(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Suite]:
    """All chosen cells, at play."""
    cells = [cell for item in request.session.items if (cell := _cell_of(item)) is not None]
    one = Suite(cells, tmp_path_factory.mktemp("faults"), Path(ROWS) if ROWS else None)
    _suite.append(one)
    try:
        yield one
    finally:
        one.close()


def pytest_terminal_summary() -> None:
    """Print the table."""
    rows = [row for one in _suite for row in one.rows]
    if rows:
        Console(width=150).print(as_table(rows))


def _cell_of(item: pytest.Item) -> Cell | None:
    if not isinstance(item, pytest.Function) or not hasattr(item, "callspec"):
        return None
    cell = item.callspec.params.get("cell")
    return cell if isinstance(cell, Cell) else None


def _is_played(item: pytest.Item) -> bool:
    cell = _cell_of(item)
    return cell is None or cell.part in PLAYED
