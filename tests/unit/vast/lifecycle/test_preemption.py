"""What becomes of a machine that others took away."""

from __future__ import annotations

from typing import Any

import pytest

from components.core.interruption import Interrupted
from components.core.progress import Progress
from components.vast.api.models import Instance
from components.vast.contract_state import MarketState
from components.vast.errors import StillOutbid
from components.vast.lifecycle.preemption import (
    DAY,
    POLL,
    PreemptionPolicy,
    Preemptions,
    describe_next_step,
    next_step,
    record_preemptions,
    wait_until_back,
)
from tests.helpers.fake_instances import FakeInstances
from tests.helpers.fakes import VirtualClock
from tests.helpers.offers import instance

NOW = 1_800_000_000.0 + 2 * 3600
OLDER = {
    "actual_status": "stopped",
    "cur_state": "stopped",
    "next_state": "running",
    "is_bid": True,
    "dph_base": 1.9,
    "ports": {},
}
"""An interruptible machine whose bid is under the $2.0/h that win, as older clients remember it."""
FIELD = {
    **OLDER,
    "actual_status": "exited",
    "intended_status": "stopped",
    "next_state": "stopped",
}
"""The same, as it was measured (marketplace-facts, 1)."""
TAKEN = FIELD
RUNS = {"intended_status": "running", "cur_state": "running", "next_state": "running"}
CRASHED = {**FIELD, **RUNS}
"""Its container ended, or its host reboots: the contract runs on."""


def one(**changes: Any) -> Instance:
    return Instance.from_json(instance(**changes))


@pytest.mark.parametrize(
    ("changes", "stopped", "stopping"),
    [
        (FIELD, True, False),
        (OLDER, True, False),
        ({**FIELD, "dph_base": 2.4}, True, False),
        ({**FIELD, "is_bid": False}, False, False),
        (CRASHED, False, False),
        ({**RUNS, "is_bid": True, "next_state": "stopped"}, False, True),
        ({**RUNS, "is_bid": True, "intended_status": "stopped"}, False, True),
        ({**RUNS, "is_bid": True}, False, False),
    ],
)
def test_a_stop_is_known_by_the_states_of_the_contract(changes, stopped, stopping):
    live = MarketState.of(one(**changes))
    assert (live.is_stopped, live.is_stopping) == (stopped, stopping)


def losses(count: int, dollars: float = 1.0) -> Preemptions:
    return {str(number): {"at": NOW, "dollars": dollars} for number in range(count)}


@pytest.mark.parametrize(
    ("changes", "lost"),
    [
        (FIELD, True),
        (OLDER, True),
        ({**FIELD, "actual_status": "stopped"}, True),
        # The container's own status lags.
        ({**FIELD, "actual_status": "running"}, True),
        ({**FIELD, "actual_status": ""}, True),
        # Started, and waiting for its GPUs.
        ({**OLDER, "actual_status": "exited"}, True),
        # A crash, a reboot.
        (CRASHED, False),
        ({**CRASHED, "cur_state": "stopped", "next_state": "stopped"}, False),
        ({**FIELD, "next_state": "running"}, False),
        ({**FIELD, "is_bid": False}, False),
        ({**OLDER, "is_bid": False}, False),
        ({**OLDER, "actual_status": "running"}, False),
        ({**OLDER, "actual_status": "offline"}, False),
        ({**FIELD, "actual_status": "offline"}, False),
        # Stopped, by the market or by hand: the bid wins.
        ({**FIELD, "dph_base": 2.0}, False),
        ({**FIELD, "dph_base": 2.4}, False),
        ({**OLDER, "dph_base": 2.4}, False),
        # What the bid is, is not said.
        ({**FIELD, "dph_base": None}, True),
    ],
)
def test_an_eviction_is_noted_and_nothing_else(changes, lost):
    """Section 1: in either form of states; neither a crash nor a stop of a bid that wins."""
    found = record_preemptions({}, [one(**changes)], NOW)
    assert found == ({"9001": {"at": NOW, "dollars": 12.0}} if lost else {})


def test_a_loss_is_noted_once_and_forgotten_after_a_day():
    first = record_preemptions({}, [one(**TAKEN)], NOW)
    again = record_preemptions(first, [one(**TAKEN), one(**TAKEN, id=9002)], NOW + 60)
    assert again["9001"] == first["9001"]
    assert set(again) == {"9001", "9002"}
    assert record_preemptions(first, [], NOW + DAY - 1) == first
    assert record_preemptions(first, [], NOW + DAY) == {}


def test_a_contract_that_never_started_has_cost_nothing():
    assert record_preemptions({}, [one(**TAKEN, start_date=None)], NOW)["9001"]["dollars"] == 0.0


def test_a_clock_behind_the_markets_costs_nothing():
    assert (
        record_preemptions({}, [one(**TAKEN, start_date=NOW + 99)], NOW)["9001"]["dollars"] == 0.0
    )


@pytest.mark.parametrize(
    ("policy", "lost", "step"),
    [
        (PreemptionPolicy("rerent", 3, 10.0), losses(1), "rerent"),
        (PreemptionPolicy("rerent", 3, 10.0), losses(3), "rerent"),
        (PreemptionPolicy("rerent", 3, 10.0), losses(4), "stuck"),
        (PreemptionPolicy("rerent", 3, 10.0), losses(2, 5.01), "stuck"),
        (PreemptionPolicy("rerent", 3, 10.0), losses(2, 5.0), "rerent"),
        (PreemptionPolicy("rerent", 0, 10.0), losses(1), "stuck"),
        (PreemptionPolicy("wait", 0, 0.0), losses(9), "wait"),
        (PreemptionPolicy("rebid", 0, 0.0), losses(9), "rebid"),
    ],
)
def test_renting_anew_is_limited_in_tries_and_money(policy, lost, step):
    assert next_step(policy, lost) == step


@pytest.mark.parametrize(
    ("policy", "lost", "bid", "said"),
    [
        (
            PreemptionPolicy("rerent", 3),
            losses(1),
            2.4,
            "rents another machine (whenOutbid is rerent; after",
        ),
        (PreemptionPolicy("rerent", 3), losses(1), 2.4, "2 more within a day"),
        (
            PreemptionPolicy("rerent", 1),
            losses(2),
            2.4,
            "2 machines were lost within a day and rerentTries",
        ),
        (
            PreemptionPolicy("rerent", 9, 1.0),
            losses(2),
            2.4,
            "cost up to $2.00 and rerentDollars is 1.00",
        ),
        (PreemptionPolicy("rebid"), losses(1), 2.4, "raises the bid to $2.400/h for its GPUs"),
        (
            PreemptionPolicy("rebid"),
            losses(1),
            None,
            "takes $2.000/h for its GPUs to win it back, which max",
        ),
        (
            PreemptionPolicy("wait"),
            losses(1),
            2.4,
            "keeps it and waits for its GPUs (whenOutbid is wait)",
        ),
    ],
)
def test_the_next_up_is_told_in_words(policy, lost, bid, said):
    assert said in describe_next_step(policy, lost, bid, 2.0)


class Waiting(FakeInstances):
    """A machine that gets its GPUs back after some virtual seconds."""

    def __init__(
        self,
        clock: VirtualClock,
        back_after: float,
        gone_after: float = 1e9,
        taken: dict[str, Any] = TAKEN,
    ) -> None:
        super().__init__()
        self._clock, self._back, self._gone = clock, back_after, gone_after
        self._taken = taken

    def instances(self, max_age: float = 0.0) -> list[Instance]:
        assert max_age == POLL
        if self._clock.passed >= self._gone:
            return []
        back = {"is_bid": True, "actual_status": "running"}
        return [one(**(back if self._clock.passed >= self._back else self._taken))]


def wait(waiting: Waiting, clock: VirtualClock, said: list[str]) -> Instance:
    progress = Progress("instance", clock, said.append)
    ports = ("22/tcp", "8000/tcp")
    return wait_until_back(waiting, clock, progress, 9001, ports=ports, seconds=600.0)


def test_a_machine_is_waited_for_until_it_runs_with_its_ports():
    clock, said = VirtualClock(), list[str]()
    back = wait(Waiting(clock, 90.0), clock, said)
    assert back.actual_status == "running"
    assert 90.0 <= clock.passed < 90.0 + 2 * POLL
    assert any("waits for its GPUs; its disk is billed on at $0.100/h" in line for line in said)
    assert "has its GPUs back" in said[-1]


def test_a_container_that_is_said_to_run_on_is_not_back():
    """Section 1: the intended state is ahead of the container's."""
    lags = {**FIELD, "actual_status": "running", "ports": instance()["ports"]}
    clock = VirtualClock()
    wait(Waiting(clock, 90.0, taken=lags), clock, [])
    assert clock.passed >= 90.0


@pytest.mark.parametrize(
    ("waiting", "said", "least"),
    [
        ({"back_after": 1e9}, "within 10 min; its disk is billed on at $0.100/h; run", 600.0),
        ({"back_after": 1e9, "gone_after": 30.0}, "it is not listed any more", 30.0),
    ],
)
def test_a_wait_ends_with_what_it_costs(waiting, said, least):
    clock = VirtualClock()
    with pytest.raises(StillOutbid) as failed:
        wait(Waiting(clock, **waiting), clock, [])
    assert said in str(failed.value)
    assert least <= clock.passed <= least + 2 * POLL


def test_a_ctrl_c_ends_the_wait_with_what_it_costs():
    clock = VirtualClock()
    progress = Progress("instance", clock, print, lambda: clock.passed >= 30)
    waiting = Waiting(clock, 1e9)
    with pytest.raises(Interrupted, match=r"instance 9001 was ended by Ctrl-C; its disk is billed"):
        wait_until_back(waiting, clock, progress, 9001, ports=("22/tcp",), seconds=600.0)
    assert clock.passed < 30 + 2 * POLL
