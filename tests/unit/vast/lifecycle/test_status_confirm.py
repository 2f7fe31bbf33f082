"""Statuses that may be a moment's, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from components.core.progress import Progress
from components.machine.tcp_probe import ProbeResult
from components.vast.api.models import Instance
from components.vast.lifecycle.status_confirm import (
    CONFIRM_SECONDS,
    POLL,
    confirm_status,
    confirmed_stopped,
)
from tests.helpers.fake_instances import FakeInstances
from tests.helpers.fakes import VirtualClock
from tests.helpers.offers import instance


class Contracts(FakeInstances):
    """A contract whose status is another one at each look; the last one stays."""

    def __init__(self, *statuses: str | Instance | None) -> None:
        super().__init__()
        self.statuses = list(statuses)
        self.looks = 0

    def instance(self, instance_id: int) -> Instance | None:
        self.looks += 1
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return seen(status, id=instance_id) if isinstance(status, str) else status


def seen(status: str, **changes: Any) -> Instance:
    return Instance.from_json(instance(actual_status=status, **changes))


def look(
    found: Instance, contracts: Contracts, reach: ProbeResult = "refused"
) -> tuple[Instance | None, float, list[str]]:
    """What it comes to, the seconds that took, and what was said."""
    clock, said = VirtualClock(), list[str]()
    progress = Progress("instance", clock, said.append)
    began = clock.monotonic()
    result = confirm_status(contracts, clock, progress, found, lambda: reach)
    return result, clock.monotonic() - began, said


@pytest.mark.parametrize("status", ["running", "loading", "stopped", "frozen", ""])
def test_what_is_beyond_doubt_is_not_looked_at_again(status):
    contracts = Contracts("running")
    found = seen(status)
    assert look(found, contracts)[:2] == (found, 0.0)
    assert contracts.looks == 0


def test_a_machine_that_was_told_to_stop_is_beyond_doubt():
    found = seen("exited", intended_status="stopped")
    assert look(found, Contracts("exited"))[:2] == (found, 0.0)


@pytest.mark.parametrize("status", ["exited", "offline", "unknown"])
def test_what_serves_runs_whatever_is_said_of_it(status):
    result, took, said = look(seen(status), Contracts(status), "open")
    assert result is not None
    assert (result.actual_status, took) == ("running", 0.0)
    assert f"is reported as {status}" in said[0]


@pytest.mark.parametrize("status", ["exited", "offline", "unknown"])
def test_a_moment_passes(status):
    result, took, said = look(seen(status), Contracts(status, status, "running"))
    assert result is not None
    assert result.actual_status == "running"
    assert 0 < took < CONFIRM_SECONDS
    assert "looking again" in said[0]


@pytest.mark.parametrize("status", ["exited", "offline", "unknown"])
def test_what_lasts_is_a_verdict(status):
    result, took, _ = look(seen(status), Contracts(status))
    assert result is not None
    assert (result.actual_status, took) == (status, CONFIRM_SECONDS)


OUTBID = seen(
    "exited", is_bid=True, intended_status="stopped", cur_state="stopped", next_state="stopped"
)
OLDER = seen("stopped", is_bid=True, cur_state="stopped", next_state="running")
AHEAD = seen("running", is_bid=True, intended_status="stopped", next_state="stopped")
RUNS = seen("running", is_bid=True)


@pytest.mark.parametrize("found", [OUTBID, OLDER])
def test_an_interruptible_machine_is_taken_away_if_a_second_look_says_so(found):
    """Section 1, in both forms."""
    contracts = Contracts(found)
    assert look(found, contracts)[:2] == (found, POLL)
    assert contracts.looks == 1


@pytest.mark.parametrize("found", [OUTBID, OLDER, AHEAD])
def test_one_that_runs_at_the_second_look_was_not_taken_away(found):
    assert look(found, Contracts(RUNS))[:2] == (RUNS, POLL)


def test_the_intended_state_is_ahead_by_a_tick():
    """Section 1: what is said to run on is looked at until its container has ended."""
    result, took, said = look(AHEAD, Contracts(AHEAD, AHEAD, OUTBID))
    assert (result, took) == (OUTBID, 3 * POLL)
    assert "is reported as running and to be stopped" in said[0]
    assert look(AHEAD, Contracts(AHEAD))[:2] == (AHEAD, CONFIRM_SECONDS)


def test_an_interruptible_container_that_crashed_or_reboots_has_its_minute():
    """Section 1: it is `exited` like one that was outbid, and is not."""
    crashed = seen("exited", is_bid=True)
    assert look(crashed, Contracts(crashed))[:2] == (crashed, CONFIRM_SECONDS)
    assert look(crashed, Contracts(crashed, RUNS))[:2] == (RUNS, 2 * POLL)


def test_what_is_stopped_for_sure_was_stopped_at_two_looks():
    clock = VirtualClock()
    progress = Progress("lease", clock, lambda _: None)

    def sure(contracts: Contracts, *mine: Instance) -> list[Instance]:
        return confirmed_stopped(contracts, clock, progress, mine)

    assert sure(Contracts(OUTBID), OUTBID) == [OUTBID]
    assert sure(Contracts(OUTBID), AHEAD) == [OUTBID]
    assert sure(Contracts(RUNS), OUTBID) == []
    assert sure(Contracts(None), OUTBID) == []
    calm = Contracts(OUTBID)
    assert sure(calm, RUNS, seen("exited", is_bid=True), seen("exited")) == []
    assert calm.looks == 0


def test_one_that_goes_meanwhile_is_gone():
    assert look(seen("unknown"), Contracts(None))[0] is None
