"""Every cell of the table, and the numbers that hold over all of them."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from tests.faults import (
    faults_of_hosts,
    faults_of_the_api,
    hostile_hosts,
    kills,
    rehearsals,
    several,
)
from tests.faults.cell import Cell, Row
from tests.faults.suite import Suite
from tests.faults.table import REQUESTS, as_markdown

BOOKS = (
    faults_of_the_api.BOOK,
    faults_of_hosts.BOOK,
    hostile_hosts.BOOK,
    kills.BOOK,
    rehearsals.BOOK,
    several.BOOK,
)
CELLS = [cell for book in BOOKS for cell in book.cells]

COVERED = {*range(1, 9), *range(13, 19), 20, *range(22, 25), *range(26, 29)}
"""Numbers of the faults in `failures.md` that are about renting; 27 is a host that lies, 28 one
that rehearses."""

WHOLE_SUITE = 3600
"""Seconds: a cell may have to wait for all others."""


@pytest.mark.timeout(WHOLE_SUITE)
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.id)
def test_promise(cell: Cell, suite: Suite) -> None:
    row = suite.result(cell)
    assert row.left_over == 0


@pytest.mark.timeout(WHOLE_SUITE)
def test_the_account_is_never_called_faster_than_it_allows(suite: Suite) -> None:
    assert {row.name: row.throttled for row in suite.finished() if row.throttled} == {}


@pytest.mark.timeout(WHOLE_SUITE)
def test_nothing_is_left_over_and_nothing_rented_twice(suite: Suite) -> None:
    rows = suite.finished()
    assert sum(row.left_over for row in rows) == 0
    assert sum(row.doubles for row in rows) == 0


def test_every_fault_about_renting_has_a_cell() -> None:
    assert {int(cell.fault[1:]) for cell in CELLS} == COVERED


def test_no_two_cells_have_the_same_name() -> None:
    assert [name for name, count in Counter(cell.id for cell in CELLS).items() if count > 1] == []


def test_every_moment_is_struck_at_by_every_victim() -> None:
    struck = {(cell.command, cell.name) for cell in kills.BOOK.cells}
    for victim in kills.VICTIMS:
        for course in (*kills.WHOLE, *kills.OTHERS):
            names = {(course.name, f"{victim} dies: {moment}") for moment in course.moments}
            assert names <= struck


def test_every_change_of_several_machines_is_struck_at_by_every_victim() -> None:
    struck = {(cell.command, cell.name) for cell in several.BOOK.cells}
    for course in several.COURSES:
        names = {
            f"{victim} dies: {moment}" for victim in course.victims for moment in course.moments
        }
        assert {(course.name, name) for name in names | {several.NOBODY}} <= struck


def test_the_column_of_requests_stands_where_clients_ask() -> None:
    row = Row("F18", "x", "up", "y", 0, 0, 1.0, 2.0, 0, kept=True)
    asked = dataclasses.replace(row, requests="0 of 7")
    assert REQUESTS not in as_markdown([row])
    assert as_markdown([row, asked]).splitlines()[0].endswith(f"| {REQUESTS} |")
    ends = [line.rsplit("|", 2)[1].strip() for line in as_markdown([row, asked]).splitlines()[2:]]
    assert ends == ["-", "0 of 7"]
