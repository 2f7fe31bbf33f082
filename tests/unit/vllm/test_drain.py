from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from components.core.interruption import Interrupted
from components.core.progress import Progress
from components.vllm.client_types import Refused, Traffic, Unreachable
from components.vllm.drain import HANGS, QUIET, QUIET_BEHIND_ROUTER, until_quiet
from tests.helpers.fakes import VirtualClock


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


Look = Traffic | Refused | Unreachable

TIMED_OUT = Unreachable("timed_out")
BUSY = [TIMED_OUT, Unreachable("closed"), Refused(429, "queue full"), Refused(503, "queue full")]


def drained(clock: VirtualClock, look: Callable[[], Look], longest: float, quiet: float = QUIET):
    said: list[str] = []
    is_quiet = until_quiet(
        look, longest, clock, Progress("server", clock, said.append), quiet=quiet
    )
    return is_quiet, said


def test_nobody_asks_so_it_ends_after_the_quiet(clock):
    quiet, said = drained(clock, lambda: Traffic(0, 17), 600)
    assert quiet
    assert clock.monotonic() == pytest.approx(QUIET, abs=2)
    assert "its clients have left" in said[-1]


def test_behind_a_router_less_quiet_is_enough_and_silence_counts_as_before(clock):
    quiet, _ = drained(clock, lambda: Traffic(0, 17), 600, quiet=QUIET_BEHIND_ROUTER)
    assert quiet
    assert clock.monotonic() == pytest.approx(QUIET_BEHIND_ROUTER, abs=2)
    quiet, _ = drained(clock, lambda: TIMED_OUT, 600, quiet=QUIET_BEHIND_ROUTER)
    assert quiet
    assert clock.monotonic() == pytest.approx(QUIET_BEHIND_ROUTER + QUIET, abs=3)


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


def test_a_server_that_hangs_is_not_waited_for(clock):
    quiet, said = drained(clock, lambda: Traffic(2, 17, tokens=4711), 900)
    assert quiet
    assert clock.monotonic() == pytest.approx(HANGS, abs=2)
    assert "not one token for 5 min" in said[-1]


def test_one_that_reads_or_writes_slowly_is_waited_for(clock):
    quiet, _ = drained(clock, lambda: Traffic(2, 17, tokens=int(clock.monotonic() // 200)), 900)
    assert not quiet
    assert clock.monotonic() == pytest.approx(900, abs=2)


def test_a_limit_below_the_quiet_is_kept(clock):
    quiet, _ = drained(clock, lambda: Traffic(0, 17), 6)
    assert quiet
    assert clock.monotonic() <= 8


def test_a_dead_endpoint_is_not_waited_for(clock):
    quiet, said = drained(clock, lambda: Unreachable("refused"), 600)
    assert quiet
    assert clock.monotonic() == 0
    assert "nobody to wait for" in said[-1]


@pytest.mark.parametrize("unanswered", BUSY)
def test_a_look_without_an_answer_is_no_end_while_clients_are_served(clock, unanswered):
    def look() -> Look:
        if clock.monotonic() >= 100:
            return Traffic(0, 17)
        return unanswered if clock.monotonic() % 20 else Traffic(5, 17)

    quiet, said = drained(clock, look, 600)
    assert quiet
    assert clock.monotonic() >= 98 + QUIET
    assert "its clients have left" in said[-1]


def test_a_quiet_that_a_busy_look_falls_into_begins_anew(clock):
    quiet, _ = drained(
        clock,
        lambda: Refused(503, "queue full") if clock.monotonic() == 16 else Traffic(0, 17),
        600,
    )
    assert quiet
    assert clock.monotonic() >= 16 + QUIET


@pytest.mark.parametrize("unanswered", BUSY)
def test_an_endpoint_that_never_answers_is_waited_for_as_long_as_a_quiet_one(clock, unanswered):
    quiet, said = drained(clock, lambda: unanswered, 600)
    assert quiet
    assert clock.monotonic() == pytest.approx(QUIET, abs=2)
    assert f"it may be busy: {unanswered}" in said[0]
    assert "nobody is waited for" in said[-1]


def test_busy_looks_do_not_outlast_the_limit(clock):
    looks: Iterator[Look] = itertools.cycle([TIMED_OUT, Traffic(2, 17)])
    quiet, said = drained(clock, lambda: next(looks), 120)
    assert not quiet
    assert clock.monotonic() == pytest.approx(120, abs=2)
    assert "drainMinutes" in said[-1]


def test_a_ctrl_c_ends_the_wait_for_clients(clock):
    progress = Progress("server", clock, print, lambda: clock.monotonic() >= 5)
    with pytest.raises(Interrupted, match="the wait for its clients was ended by Ctrl-C"):
        until_quiet(lambda: Traffic(1, 17), 600, clock, progress)
    assert clock.monotonic() < 10
