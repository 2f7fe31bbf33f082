"""Statuses that may be a moment's, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from components.progress import Progress
from components.vast.reach import Reach
from components.vast.second_look import PATIENCE, second_look
from components.vast.wire import Instance
from tests.fakes import VirtualClock
from tests.vast.offers import instance


class Contracts:
    """A contract whose status is another one at each look; the last one stays."""

    def __init__(self, *statuses: str | None) -> None:
        self.statuses = list(statuses)
        self.looks = 0

    def instance(self, instance_id: int) -> Instance | None:
        self.looks += 1
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return None if status is None else seen(status, id=instance_id)


def seen(status: str, **changes: Any) -> Instance:
    return Instance.from_json(instance(actual_status=status, **changes))


def look(
    found: Instance, contracts: Contracts, reach: Reach = "refused"
) -> tuple[Instance | None, float, list[str]]:
    """What it comes to, the seconds that took, and what was said."""
    clock, said = VirtualClock(), list[str]()
    progress = Progress("instance", clock, said.append)
    began = clock.monotonic()
    result = second_look(contracts, clock, progress, found, lambda: reach)
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
    assert f"is said to be {status}" in said[0]


@pytest.mark.parametrize("status", ["exited", "offline", "unknown"])
def test_a_moment_passes(status):
    result, took, said = look(seen(status), Contracts(status, status, "running"))
    assert result is not None
    assert result.actual_status == "running"
    assert 0 < took < PATIENCE
    assert "looking again" in said[0]


@pytest.mark.parametrize("status", ["exited", "offline", "unknown"])
def test_what_lasts_is_a_verdict(status):
    result, took, _ = look(seen(status), Contracts(status))
    assert result is not None
    assert (result.actual_status, took) == (status, PATIENCE)


def test_an_interruptible_machine_was_taken_away_at_once():
    found = seen("exited", is_bid=True)
    assert look(found, Contracts("exited"))[:2] == (found, 0.0)


def test_one_that_goes_meanwhile_is_gone():
    assert look(seen("unknown"), Contracts(None))[0] is None
