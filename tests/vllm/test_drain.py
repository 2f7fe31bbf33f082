from __future__ import annotations

from collections.abc import Callable

import pytest

from components.progress import Progress
from components.vllm.drain import QUIET, until_quiet
from components.vllm.endpoint import Traffic, Unreachable
from tests.fakes import VirtualClock


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


def drained(clock: VirtualClock, look: Callable[[], Traffic | Unreachable], longest: float):
    said: list[str] = []
    quiet = until_quiet(look, longest, clock, Progress("server", clock, said.append))
    return quiet, said


def test_nobody_asks_so_it_ends_after_the_quiet(clock):
    quiet, said = drained(clock, lambda: Traffic(0, 17), 600)
    assert quiet
    assert clock.monotonic() == pytest.approx(QUIET, abs=2)
    assert "its clients have left" in said[-1]


def test_requests_under_way_are_waited_for(clock):
    quiet, _ = drained(clock, lambda: Traffic(int(clock.monotonic() < 100), 17), 600)
    assert quiet
    assert clock.monotonic() >= 98 + QUIET


def test_short_requests_between_two_looks_are_seen_by_the_counter(clock):
    quiet, _ = drained(clock, lambda: Traffic(0, int(min(clock.monotonic(), 60))), 600)
    assert quiet
    assert clock.monotonic() >= 60 + QUIET


def test_clients_that_never_leave_are_cut_off_at_the_limit(clock):
    quiet, said = drained(clock, lambda: Traffic(2, 17), 120)
    assert not quiet
    assert clock.monotonic() == pytest.approx(120, abs=2)
    assert "2 requests under way" in said[-1]
    assert "drainMinutes" in said[-1]


def test_a_limit_below_the_quiet_is_kept(clock):
    quiet, _ = drained(clock, lambda: Traffic(0, 17), 6)
    assert quiet
    assert clock.monotonic() <= 8


def test_a_dead_endpoint_is_not_waited_for(clock):
    quiet, said = drained(clock, lambda: Unreachable("refused"), 600)
    assert quiet
    assert clock.monotonic() == 0
    assert "nobody to wait for" in said[-1]
