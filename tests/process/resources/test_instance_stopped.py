"""A machine that the market took away, and what a refresh and an `up` make of it."""

from __future__ import annotations

import pytest

from components.core.property_bag import Properties
from components.resources.instance import InstanceProvider
from components.resources.stack_finalizer import StackFinalizerProvider
from components.vast.errors import (
    StillOutbid,
)
from components.vast.instance_state import InstanceState
from tests.helpers.adapters import STOPPED, TAKEN, lost, outputs, policy, vast
from tests.helpers.states import PREFIX, ordered, rented

__all__ = ["vast"]  # fixtures


@pytest.mark.parametrize("when", ["rerent", "rebid", "wait"])
def test_a_machine_that_is_stopped_though_its_bid_wins_is_kept_and_started(vast, capsys, when):
    """Section 1: stopped, by the market or by hand: told, not counted, nothing destroyed."""
    vast.has(**{**STOPPED, "dph_base": 2.4})
    rules: Properties = {"search": TAKEN["search"], "outbid_policy": policy(when)}
    olds = outputs(InstanceProvider().read("9001", rented(**rules)))
    assert "is stopped (exited), by the market or by hand" in capsys.readouterr().out
    assert InstanceState.from_bag(olds).inputs.losses == {}
    lease = {"label_prefix": "p/s/", "interruptible": True, "losses": {}}
    assert outputs(StackFinalizerProvider().read("p/s/", lease))["losses"] == {}
    news = ordered(**rules, losses={})
    found = InstanceProvider().diff("9001", olds, news)
    assert (found.changes, found.replaces) == (True, [])
    outs = outputs(InstanceProvider().update("9001", olds, news))
    assert vast.writes() == ["PUT /instances/9001/"]
    assert outs["status"] == "running"
    assert InstanceProvider().diff("9001", outs, news).changes is False


def test_a_machine_whose_gpus_a_tenant_on_demand_has_is_kept(vast):
    """Section 1: no bid beats that tenant; what is destroyed is a person's decision."""
    vast.taken_on_demand = True
    vast.has(**{**STOPPED, "dph_base": 2.4})
    rules: Properties = {"search": TAKEN["search"], "outbid_policy": policy("rerent")}
    olds = outputs(InstanceProvider().read("9001", rented(**rules)))
    with pytest.raises(StillOutbid, match="a tenant on demand has its GPUs"):
        InstanceProvider().update("9001", olds, ordered(**rules, losses={}))
    assert list(vast.contracts) == [9001]
    again = outputs(InstanceProvider().read("9001", olds))
    assert (again["status"], again["intended_status"]) == ("exited", "running")
    assert InstanceProvider().diff("9001", again, ordered(**rules, losses={})).replaces == []


def test_a_container_that_crashed_is_replaced_and_not_counted(vast):
    """Section 1: it is `exited` like one that was outbid; its contract runs on."""
    olds = rented(**{**TAKEN, "status": "exited"}, current_state="running", next_state="running")
    news = ordered(search=TAKEN["search"], outbid_policy=policy("wait"), losses={})
    assert InstanceProvider().diff("9001", olds, news).replaces == ["status"]
    vast.has(is_bid=True, actual_status="exited", next_state="running", label=f"{PREFIX}abc")
    lease = {"label_prefix": "p/s/", "interruptible": True}
    assert outputs(StackFinalizerProvider().read("p/s/", lease))["losses"] == {}


@pytest.mark.parametrize(
    "form", [{}, {"actual_status": "stopped", "intended_status": "running", "next_state": ""}]
)
def test_a_refresh_says_who_has_the_machine_and_what_is_done(vast, capsys, form):
    vast.has(**{**STOPPED, **form})
    props = rented(**TAKEN, outbid_policy=policy("rebid"))
    found = InstanceProvider().read("9001", props)
    said = capsys.readouterr().out
    assert "was outbid (" in said
    assert "raises the bid to $2.400/h for its GPUs" in said
    assert list(outputs(found)["losses"]) == ["9001"]


def test_a_higher_bid_wins_the_machine_back(vast):
    vast.has(is_bid=True, label=f"{PREFIX}abc")
    olds = rented(**TAKEN, outbid_policy=policy("rebid"))
    news = ordered(search=TAKEN["search"], outbid_policy=policy("rebid"), losses=lost(1))
    found = outputs(InstanceProvider().update("9001", olds, news))
    assert vast.writes() == ["PUT /instances/bid_price/9001/"]
    assert vast.contracts[9001]["price"] == pytest.approx(2.4)
    assert (found["status"], found["interruptible"]) == ("running", True)


@pytest.mark.parametrize(
    ("changes", "when", "losses", "said"),
    [
        ({"min_bid": 9.0}, "rebid", lost(1), "it takes $9.000/h for its GPUs to win it back"),
        ({}, "rerent", lost(4), "4 machines were lost within a day and rerentTries is 3"),
    ],
)
def test_what_the_rule_does_not_allow_fails_with_what_to_do(vast, changes, when, losses, said):
    olds = rented(**{**TAKEN, **changes}, outbid_policy=policy(when))
    news = ordered(search=TAKEN["search"], outbid_policy=policy(when), losses=losses)
    with pytest.raises(StillOutbid) as failed:
        InstanceProvider().update("9001", olds, news)
    assert said in str(failed.value)
    assert vast.writes() == []
