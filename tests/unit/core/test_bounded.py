from __future__ import annotations

import threading

import pytest

from components.core.bounded import Allowance, Budget, OutOfTime, TooMuch, apart
from components.core.clock import SystemClock
from tests.helpers.fakes import VirtualClock


def test_a_budget_gives_what_is_left_and_no_more_than_is_wanted() -> None:
    clock = VirtualClock()
    budget = Budget(clock, 10, 100)
    assert budget.seconds() == 10
    assert budget.seconds(3) == 3
    clock.sleep(8)
    assert budget.seconds(3) == 2
    clock.sleep(2)
    with pytest.raises(OutOfTime):
        budget.seconds(3)


def test_a_budget_counts_what_comes_and_when() -> None:
    clock = VirtualClock()
    budget = Budget(clock, 10, 100)
    budget.take(100)
    with pytest.raises(TooMuch):
        budget.take(1)
    late = Budget(clock, 10, 100)
    clock.sleep(10)
    with pytest.raises(OutOfTime):
        late.take(1)


def test_an_allowance_is_for_all_together() -> None:
    allowance = Allowance(10)
    allowance.take(6)
    allowance.take(4)
    with pytest.raises(TooMuch):
        allowance.take(1)


def test_a_call_apart_gives_its_result_or_its_error() -> None:
    def divide(by: int) -> float:
        return 1 / by

    clock = VirtualClock()
    assert apart(lambda: divide(2), seconds=1, clock=clock, waiting=int) == 0.5
    with pytest.raises(ZeroDivisionError):
        apart(lambda: divide(0), seconds=1, clock=clock, waiting=int)


def test_a_call_that_outlasts_its_seconds_is_left_to_itself() -> None:
    over, looks = threading.Event(), list[int]()
    with pytest.raises(OutOfTime):
        apart(
            over.wait,
            seconds=1.0,
            clock=SystemClock(),
            waiting=lambda: looks.append(1),
            look_every=0.01,
        )
    assert looks
    over.set()
