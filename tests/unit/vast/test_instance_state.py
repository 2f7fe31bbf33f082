"""States of every release: read into types, written as they came, and what their gaps mean."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pulumi.output import Unknown

from components.core.property_bag import Properties, StateUnreadable
from components.resources.offer import OfferProvider
from components.vast.api.models import Instance, PriceAsked
from components.vast.contract_state import MarketState
from components.vast.instance_additions import INPUT_ADDITIONS, OUTPUT_ADDITIONS
from components.vast.instance_state import INPUTS, OUTPUTS, InstanceInputs, InstanceState
from components.vast.lifecycle import diff
from components.vast.lifecycle.auto_shutdown import AutoShutdown
from components.vast.lifecycle.contract_expiry import ExpiryPolicy
from components.vast.lifecycle.market_end import NONE, MarketJob
from components.vast.lifecycle.preemption import PreemptionPolicy
from components.vast.market import requirements
from tests.helpers.offers import instance
from tests.helpers.places import ROOT
from tests.helpers.states import first_rented, ordered, rented, search

TESTS = ROOT / "tests"
FIRST_RELEASE = json.loads((TESTS / "faults/first_release.json").read_text())
NOW = 1_800_000_000.0

TEXTS = st.text("abc /=:.-é", max_size=8)
NUMBERS = st.integers(0, 10**12).map(float)
AMOUNTS = st.floats(0, 1e6, allow_nan=False)

LATER_NEEDS = {
    "datacenter_only": st.booleans(),
    "files": st.lists(TEXTS, max_size=2),
    "max_dollars_per_month": AMOUNTS,
    "min_driver": TEXTS,
    "ready_minutes": AMOUNTS,
    "rent_budget_dollars": AMOUNTS,
    "rent_budget_minutes": AMOUNTS,
    "repository": TEXTS,
    "revision": TEXTS,
    "weights_gb": AMOUNTS,
    "contract": st.sampled_from(["on-demand", "interruptible"]),
    "least_compute_cap": AMOUNTS,
    "compute_cap_below": AMOUNTS,
}
SEARCHES = st.fixed_dictionaries(
    {
        "query": TEXTS,
        "num_gpus": NUMBERS,
        **dict.fromkeys(
            [
                "gpu_ram_gib",
                "disk_gb",
                "download_gb",
                "expected_hours",
                "max_dollars_per_hour",
                "min_cuda",
                "min_days_left",
                "min_inet_down_mbps",
                "min_reliability",
            ],
            AMOUNTS,
        ),
    },
    optional=LATER_NEEDS,
)
LOSSES = st.dictionaries(TEXTS, st.fixed_dictionaries({"at": NUMBERS, "dollars": AMOUNTS}))
LATER_INPUTS = {
    "losses": LOSSES,
    "outbid_policy": st.fixed_dictionaries(
        {
            "when": st.sampled_from(["wait", "rebid", "rerent"]),
            "tries": NUMBERS,
            "dollars": AMOUNTS,
        }
    ),
    "leash": st.fixed_dictionaries(
        {"time_to_live_hours": AMOUNTS, "idle_minutes": AMOUNTS},
        optional={"market_end": st.booleans()},
    ),
    "term": st.fixed_dictionaries(
        {"warn_days": AMOUNTS, "when": st.sampled_from(["warn", "replace", "accept"])},
        optional={"create_first": st.booleans()},
    ),
    "adopt": NUMBERS,
    "first_contact": st.sampled_from(["trust", "verified"]),
    "token_for": st.lists(TEXTS, max_size=2),
    "fleet": st.fixed_dictionaries(
        {"replicas": NUMBERS, "spread": st.sampled_from(["machine", "host"])}
    ),
}
FIRST_INPUTS = {
    "label_prefix": TEXTS,
    "search": SEARCHES,
    "image": TEXTS,
    "disk_gb": AMOUNTS,
    "port": NUMBERS,
    "public_key": TEXTS,
    "private_key": TEXTS,
    "min_driver": TEXTS,
    "boot_minutes": AMOUNTS,
}
FIRST_OUTPUTS = {
    **dict.fromkeys(["instance_id", "machine_id", "ssh_port", "host_port", "num_gpus"], NUMBERS),
    **dict.fromkeys(
        ["status", "label", "public_ip", "host_key", "gpu", "gpu_name", "location"], TEXTS
    ),
    "hourly_cost": AMOUNTS,
    "datacenter": st.booleans(),
    "adopted": st.booleans(),
    "host_facts": st.dictionaries(TEXTS, TEXTS | AMOUNTS | st.none(), max_size=2),
    "boot_seconds": st.dictionaries(TEXTS, AMOUNTS, max_size=2),
}
LATER_OUTPUTS = {
    "strays": st.lists(NUMBERS, max_size=2),
    **dict.fromkeys(["carried_label", "intended_status", "current_state", "next_state"], TEXTS),
    "interruptible": st.booleans(),
    **dict.fromkeys(["min_bid", "bid", "storage_per_hour"], AMOUNTS),
    **dict.fromkeys(["contract_ends_at", "ends_itself_at", "market_ends_at"], AMOUNTS),
    "price_asked": st.none()
    | st.fixed_dictionaries({"id": NUMBERS, "dollars_per_hour": AMOUNTS, "until": AMOUNTS}),
    "account_id": NUMBERS,
    "host_key_from": TEXTS,
    "market_job": NUMBERS,
}
INPUT_BAGS = st.fixed_dictionaries(FIRST_INPUTS, optional=LATER_INPUTS)
STATES = st.fixed_dictionaries(
    {**FIRST_INPUTS, **FIRST_OUTPUTS}, optional={**LATER_INPUTS, **LATER_OUTPUTS}
)
"""Any release's: an `up` of a later one adds its inputs and keeps the outputs that there are."""


def test_every_property_is_of_the_first_release_or_has_a_meaning_where_it_is_missing():
    first = FIRST_RELEASE["pulumi-python:dynamic/vast:Instance"]
    assert set(first["inputs"]) - {"__provider"} == set(INPUTS) - set(INPUT_ADDITIONS)
    outputs = set(first["outputs"]) - set(first["inputs"])
    assert outputs == set(OUTPUTS) - set(OUTPUT_ADDITIONS)
    offer = FIRST_RELEASE["pulumi-python:dynamic/vast:Offer"]
    assert set(offer["inputs"]) - {"__provider"} == set(requirements.INPUTS) - set(
        requirements.ADDITIONS
    )
    # What a state is made of here is all that there is.
    assert set(FIRST_INPUTS) | set(LATER_INPUTS) == set(INPUTS)
    assert set(FIRST_OUTPUTS) | set(LATER_OUTPUTS) == set(OUTPUTS)


@given(STATES)
def test_a_state_of_any_release_is_written_as_it_was_read(bag: Properties):
    assert InstanceState.from_bag(bag).to_bag() == bag


@given(INPUT_BAGS)
def test_inputs_of_any_release_are_written_as_they_were_read(bag: Properties):
    assert InstanceInputs.from_bag(bag).to_bag() == bag


@given(STATES, INPUT_BAGS)
def test_an_update_writes_the_new_inputs_and_keeps_all_outputs(bag: Properties, news: Properties):
    updated = dataclasses.replace(
        InstanceState.from_bag(bag), inputs=InstanceInputs.from_bag(news)
    ).to_bag()
    outputs = {name: value for name, value in bag.items() if name not in INPUTS}
    assert updated == {**outputs, **news}


@given(STATES)
def test_a_state_that_is_written_in_full_is_the_same_state(bag: Properties):
    """What is filled in can be read again, and is what its absence means."""
    old = InstanceState.from_bag(bag)
    inputs = dataclasses.replace(old.inputs, lacking={})
    full = dataclasses.replace(old, lacking={}, inputs=inputs).to_bag()
    assert InstanceState.from_bag(full) == old
    assert set(full) == {*INPUTS, *OUTPUTS}


@given(STATES)
def test_a_refresh_finds_no_change_of_the_inputs_whatever_release_wrote_them(bag: Properties):
    """Pulumi compares a state with its own recorded inputs then."""
    recorded = {name: bag[name] for name in INPUTS if name in bag}
    old, same = InstanceState.from_bag(bag), InstanceInputs.from_bag(recorded)
    assert diff.changed_inputs(old.inputs, same, INPUTS) == []


@given(SEARCHES)
def test_a_refresh_finds_no_change_of_an_offer_whatever_release_wrote_it(bag: Properties):
    provider = OfferProvider()
    state = {**bag, "search": bag, "shortlist": []}
    assert provider.diff("offer", state, bag).changes is False
    assert provider.read("offer", state).outs == state


def exported(day: str) -> Properties:
    """The machine in the state that a stack exported that day, with its key in clear."""
    state = json.loads((TESTS / f"states/{day}.json").read_text())
    (found,) = (
        resource["outputs"]
        for resource in state["deployment"]["resources"]
        if resource["type"].endswith("vast:Instance")
    )
    return {**found, "private_key": "PRIVATE"}


@pytest.mark.parametrize("day", ["2026-11-24", "2026-11-28"])
def test_an_exported_state_is_written_as_it_was_read(day):
    bag = exported(day)
    written = InstanceState.from_bag(bag).to_bag()
    assert written == {name: value for name, value in bag.items() if name != "__provider"}


@pytest.mark.parametrize(
    "bag", [first_rented(), exported("2026-11-24")], ids=["first release", "2026-11-24"]
)
def test_what_an_older_release_did_not_write_means_what_it_did_then(bag):
    old = InstanceState.from_bag(bag)
    assert old.inputs.outbid_policy == PreemptionPolicy("rerent", 3, 10.0)
    assert old.inputs.term == ExpiryPolicy(3.0, "warn", create_first=False)
    assert not old.inputs.leash
    assert old.inputs.need.contract == "on-demand"
    assert (old.inputs.adopt, old.inputs.first_contact, old.inputs.token_for) == (0, "", ())
    assert old.observed.carried_label == old.label
    assert (old.strays, old.price_asked, old.account_id) == ((), None, 0)
    assert (old.host_key_from, old.market_job, old.ends_itself_at) == (None, NONE, 0.0)
    assert not old.observed.market_state.is_stopped
    news = {**ordered(), **{name: bag[name] for name in FIRST_INPUTS if name != "search"}}
    news["search"] = {**search(), **bag["search"]}
    change = diff.decide(str(old.observed.instance_id), old, InstanceInputs.from_bag(news), NOW)
    assert not change


def test_what_a_release_wrote_is_read():
    bag = rented(
        outbid_policy={"when": "wait", "tries": 2.0, "dollars": 1.5},
        leash={"time_to_live_hours": 2.0, "idle_minutes": 5.0},
        term={"warn_days": 5.0, "when": "accept"},
        price_asked={"id": 501.0, "dollars_per_hour": 7.0, "until": NOW},
        contract_ends_at=NOW,
        storage_per_hour=0.1,
        market_job=3.0,
        market_ends_at=NOW,
    )
    found = InstanceState.from_bag(bag)
    assert found.inputs.outbid_policy == PreemptionPolicy("wait", 2, 1.5)
    assert found.inputs.leash == AutoShutdown(2.0, 5.0)
    assert found.inputs.term == ExpiryPolicy(5.0, "accept")
    assert found.term(8.0).asked == PriceAsked(501, 7.0, NOW)
    assert (found.term(8.0).ends_at, found.term(8.0).storage) == (NOW, 0.1)
    assert found.market_job == MarketJob(3, NOW)


def test_a_state_says_of_a_stop_what_the_market_did():
    stopped: Properties = {
        "is_bid": True,
        "actual_status": "exited",
        "intended_status": "stopped",
        "cur_state": "stopped",
        "next_state": "stopped",
        "dph_base": 1.9,
    }
    live = Instance.from_json(instance(**stopped))
    written = rented(
        interruptible=True,
        status="exited",
        intended_status="stopped",
        current_state="stopped",
        next_state="stopped",
        bid=1.9,
        min_bid=2.0,
    )
    assert InstanceState.from_bag(written).observed.market_state == MarketState.of(live)
    # One of an older release knows neither the contract's states nor the bid.
    old = rented(interruptible=True, status="stopped", min_bid=2.0)
    assert InstanceState.from_bag(old).observed.market_state.is_outbid


def test_what_a_newer_release_wrote_is_kept():
    bag = rented(of_tomorrow={"a": 1.0})
    assert InstanceState.from_bag(bag).to_bag()["of_tomorrow"] == {"a": 1.0}


@pytest.mark.parametrize("name", sorted(FIRST_INPUTS))
def test_what_every_release_wrote_must_be_there(name):
    bag = rented()
    del bag[name]
    with pytest.raises(StateUnreadable, match=f"`{name}` is missing"):
        InstanceState.from_bag(bag)


@pytest.mark.parametrize("name", INPUTS)
def test_what_a_preview_does_not_know_is_named_and_counts_as_changed(name):
    news = InstanceInputs.from_bag({**ordered(), name: Unknown()})
    assert news.unknown == {name}
    old = InstanceState.from_bag(rented())
    assert diff.changed_inputs(old.inputs, news, INPUTS) == [name]
    nested = InstanceInputs.from_bag(ordered(search=search(revision=Unknown())))
    assert nested.unknown == {"search"}


def test_no_error_shows_the_private_key():
    shown = repr(InstanceState.from_bag(rented(private_key="SENTINEL")))
    assert "SENTINEL" not in shown
    assert "p/s/endpoint-instance" in shown
