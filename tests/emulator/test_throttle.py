from __future__ import annotations

import pytest

from emulator.throttle import BUDGET, CREATE, READ_LIST, READ_ONE, SEARCH, Throttle
from tests.helpers.fakes import VirtualClock


def test_an_interval_for_each_endpoint_and_caller() -> None:
    time = VirtualClock()
    throttle = Throttle(time.monotonic)
    assert throttle.admit(CREATE, "account")
    assert not throttle.admit(CREATE, "account")
    assert throttle.admit(CREATE, "key 1")
    assert throttle.admit(READ_ONE, "account")
    time.sleep(4.4)
    assert not throttle.admit(CREATE, "account")
    time.sleep(0.1)
    assert throttle.admit(CREATE, "account")


def test_search_allows_ten_in_a_minute() -> None:
    time = VirtualClock()
    throttle = Throttle(time.monotonic, budget=False)
    admitted = []
    for _ in range(12):
        admitted.append(throttle.admit(SEARCH, "account"))
        time.sleep(1)
    assert admitted == [True] * 10 + [False] * 2
    time.sleep(49)
    assert throttle.admit(SEARCH, "account")


@pytest.mark.parametrize("pace", [1.0, 0.1])
def test_the_endpoints_of_a_key_share_a_budget(pace: float) -> None:
    """Section 8 of marketplace-facts.md: five calls in ten seconds."""
    time = VirtualClock()
    throttle = Throttle(time.monotonic, pace=pace)
    for limit in (CREATE, READ_ONE, READ_LIST, SEARCH, None):
        assert throttle.seconds_to_wait("account") == 0
        assert throttle.admit(limit, "account")
        time.sleep(pace)
    assert throttle.seconds_to_wait("account") == pytest.approx(5 * pace)
    assert throttle.seconds_to_wait("key 1") == 0
    time.sleep(5 * pace)
    assert throttle.seconds_to_wait("account") == 0
    assert throttle.admit(CREATE, "account")
    assert throttle.seconds_to_wait("account") == pytest.approx(pace)


def test_a_call_that_is_refused_uses_nothing_up() -> None:
    throttle = Throttle(VirtualClock().monotonic)
    admitted = [throttle.admit(CREATE, "account") for _ in range(2 * BUDGET.calls)]
    assert admitted == [True] + [False] * (2 * BUDGET.calls - 1)
    assert throttle.seconds_to_wait("account") == 0


def test_the_budget_can_be_switched_off() -> None:
    throttle = Throttle(VirtualClock().monotonic, budget=False)
    assert all(throttle.admit(None, "account") for _ in range(9))
    assert throttle.seconds_to_wait("account") == 0


def test_off_means_off() -> None:
    throttle = Throttle(VirtualClock().monotonic, enabled=False)
    assert all(throttle.admit(CREATE, "account") for _ in range(5))


def test_endpoints_without_a_published_limit_have_none() -> None:
    throttle = Throttle(VirtualClock().monotonic)
    assert all(throttle.admit(None, "account") for _ in range(5))


def test_a_pace_asks_for_a_share_of_the_interval() -> None:
    time = VirtualClock()
    throttle = Throttle(time.monotonic, pace=0.1)
    assert throttle.admit(CREATE, "account")
    time.sleep(0.44)
    assert not throttle.admit(CREATE, "account")
    time.sleep(0.02)
    assert throttle.admit(CREATE, "account")
