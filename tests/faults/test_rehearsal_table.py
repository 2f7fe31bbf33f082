"""What the page about rehearsals says, and what makes its command fail."""

from __future__ import annotations

import pytest

from tests.faults.rehearsal_table import CASES, GOOD, Measured, Pair, complaints, document
from tests.helpers.stack_world import Done


def measured(told: float, *, status: int) -> Measured:
    return Measured(Done(status, "why"), to_weights=200.0, told=told, dollars=1.25)


def pairs(*, told: float = 200.0, good: float = 1200.0) -> list[Pair]:
    late = measured(1500.0, status=255)
    bad = [Pair(case, late, measured(told, status=255)) for case in CASES]
    return [*bad, Pair(GOOD, measured(1200.0, status=0), measured(good, status=0))]


def test_what_is_told_in_time_and_costs_nothing_is_no_complaint():
    assert complaints(pairs(told=240.0, good=1228.0)) == []


@pytest.mark.parametrize(
    ("found", "count", "said"),
    [
        (pairs(told=241.0), len(CASES), "told after 241 s"),
        (pairs(good=1229.0), 1, "took 1429 s with a rehearsal and 1400 s without"),
    ],
)
def test_a_late_word_and_a_slower_start_are_complaints(found: list[Pair], count: int, said: str):
    text = complaints(found)
    assert len(text) == count
    assert all(said in one for one in text)


def test_an_up_that_ends_otherwise_than_it_must_is_a_complaint():
    wrong = Pair(GOOD, measured(1200.0, status=1), measured(1200.0, status=0))
    (text,) = complaints([*pairs()[:-1], wrong])
    assert text.startswith("nothing, without a rehearsal: exit 1")


def test_the_page_has_a_row_for_each_fault_and_the_good_start():
    text = document(pairs(), 1800)
    for case in CASES:
        assert f"| {case.what} | {case.whose} | 1500 | $1.25 | 200 | $1.25 |" in text
    assert "first answer 1400 s after the rent call without a rehearsal, and 1400 s with" in text
