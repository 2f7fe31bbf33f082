from __future__ import annotations

import dataclasses

import pytest

from components.vast.api.models import Instance
from components.vast.instance_state import InstanceState
from components.vast.lifecycle.drift import drift, gone, is_lost
from tests.helpers.offers import instance
from tests.helpers.states import first_rented, search, state

RECORDED = state(label="p/s/r/n")


def ports(ssh: str, served: str) -> dict[str, list[dict[str, str]]]:
    return {
        "22/tcp": [{"HostIp": "0.0.0.0", "HostPort": ssh}],
        "8000/tcp": [{"HostIp": "0.0.0.0", "HostPort": served}],
    }


NOW = 1_800_000_000.0


STOPPED = {
    "actual_status": "exited",
    "intended_status": "stopped",
    "cur_state": "stopped",
    "next_state": "stopped",
    "is_bid": True,
    "ports": {},
}
"""What a stopped interruptible machine reads like (marketplace-facts, 1)."""


def told(recorded: InstanceState = RECORDED, **live) -> list[str]:
    return drift(recorded, Instance.from_json(instance(**live)), [], NOW + 700)


def test_a_machine_that_is_as_it_was_says_nothing():
    assert told() == []


@pytest.mark.parametrize(
    ("live", "said", "does"),
    [
        (
            {"actual_status": "stopped", "intended_status": "stopped", "ports": {}},
            "does not run (stopped, to be stopped) and its disk is billed on at $0.100/h",
            "ends it and rents another",
        ),
        (
            {"actual_status": "exited", "ports": {}},
            "does not run (exited, to be running)",
            "ends it and rents another",
        ),
        (
            {"actual_status": "stopped", "is_bid": True, "ports": {}},
            "was outbid (stopped): an interruptible contract waits for its GPUs",
            "ends it and rents another",
        ),
        (
            {**STOPPED, "dph_base": 1.9},
            "was outbid (exited): an interruptible contract waits for its GPUs",
            "ends it and rents another",
        ),
        (
            {**STOPPED, "dph_base": 2.4},
            "is stopped (exited), by the market or by hand: its bid of $2.400/h still reaches the",
            "keeps it, starts it and waits for it",
        ),
        (
            {"actual_status": "exited", "is_bid": True, "ports": {}},
            "does not run (exited, to be running)",
            "ends it and rents another",
        ),
        (
            {"actual_status": "offline", "ports": {}},
            "has lost its host (offline): nobody can reach it, its contract of $6.00/h stands",
            "ends it and rents another",
        ),
        (
            {"actual_status": "rebooting", "ports": {}},
            "is rebooting and comes back by itself",
            "keeps it and waits until its server answers",
        ),
        (
            {"ports": ports("40022", "40999")},
            "moved from 203.0.113.9 (SSH 40022, server 40123) to 203.0.113.9 (SSH 40022, server 4",
            "keeps it, and the endpoint's URL changes",
        ),
        (
            {"public_ipaddr": "198.51.100.4"},
            "to 198.51.100.4 (SSH 40022, server 40123)",
            "keeps it",
        ),
        ({"dph_total": 7.0}, "costs $7.00/h instead of $6.00/h; ", "keeps it"),
        (
            {"dph_total": 9.0},
            "costs $9.00/h instead of $6.00/h, which is above the cap of $8.00/h",
            "keeps it",
        ),
        (
            {"label": "mine"},
            "carries the label 'mine' instead of 'p/s/r/n'",
            "puts the label back",
        ),
        (
            {"label": "p/s/r/unfit-download_slow-n"},
            "was marked unfit (download slow) when its server did not come up and costs $6.00/h",
            "ends it and rents another",
        ),
    ],
)
def test_what_drifted_is_said_with_what_the_next_up_does(live, said, does):
    (sentence,) = told(**live)
    assert sentence.startswith("instance 9001 ")
    assert said in sentence
    assert "the next `pulumi up`" in sentence
    assert does in sentence


def test_a_machine_that_came_back_is_said_to_run_again():
    assert told(state(label="p/s/r/n", status="offline")) == ["instance 9001 runs again"]


def test_the_first_release_knew_a_cap_per_hour_alone():
    wanted = search()
    del wanted["max_dollars_per_month"]
    old = InstanceState.from_bag(first_rented(search=wanted, label="p/s/r/n"))
    assert "above the cap of $8.00/h" in told(old, dph_total=8.1)[0]
    assert "cap" not in told(old, dph_total=7.9)[0]


def test_another_contract_of_the_same_resource_is_named_with_its_price():
    stray = Instance.from_json(instance(id=7, dph_total=2.5))
    (sentence,) = drift(RECORDED, Instance.from_json(instance()), [stray], NOW)
    assert "instance 7 carries a label of the same resource and costs $2.50/h" in sentence
    assert "ends it and keeps 9001" in sentence


def test_several_differences_are_several_sentences():
    assert len(told(label="x", dph_total=6.5, ports=ports("1", "2"))) == 3


def test_what_is_gone_says_that_its_bill_ended():
    sentence = gone(state(hourly_cost=6.0), NOW)
    assert sentence.startswith("instance 9001 is gone")
    assert "its $6.00/h are not billed any more" in sentence
    assert "rents another machine" in sentence


@pytest.mark.parametrize(
    ("status", "intended", "lost"),
    [
        ("running", "running", False),
        ("loading", "running", False),
        ("rebooting", "running", False),
        ("recycling", "running", False),
        ("", "running", False),
        ("running", "stopped", True),
        ("stopped", "running", True),
        ("exited", "running", True),
        ("offline", "running", True),
        ("unknown", "running", True),
        ("frozen", "running", True),
    ],
)
def test_what_comes_back_by_itself_is_not_replaced(status, intended, lost):
    assert is_lost(status, intended) is lost


def test_a_machine_that_outlived_its_time_is_told_with_what_it_costs():
    recorded = dataclasses.replace(RECORDED, ends_itself_at=NOW)
    (sentence,) = told(recorded)
    assert "ought to have ended itself at 2027-01-15 08:00 UTC (timeToLiveHours)" in sentence
    assert "costs $6.00/h" in sentence
    stopped = told(recorded, actual_status="stopped", is_bid=True, ports={})
    assert "which a machine that does not run cannot do: its disk is billed on" in stopped[-1]
