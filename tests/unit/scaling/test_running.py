"""Which replicas a program declares, out of settings, the state's record and a loop's order."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.property_bag import StateUnreadable
from components.scaling import running as scaling
from components.scaling.running import (
    LEASE_HOURS,
    Extras,
    Lease,
    OrderRefused,
    contracts_in,
    described,
    fixed,
    new_lease,
    ordered,
    recorded,
    running,
)

NOW = 1_800_000_000.0
URN = "urn:pulumi:dev::vast-vllm::vast-vllm:index:ModelEndpoint$pulumi-python:dynamic/"

LEASES = st.builds(
    Lease,
    since=st.floats(NOW - 1e6, NOW),
    hours=st.floats(0.5, 400),
    contract=st.integers(0, 2**40),
)
EXTRAS = st.builds(
    Extras, endpoint=st.just("endpoint"), leases=st.dictionaries(st.integers(1, 31), LEASES)
)


def extras(**leases: Lease) -> Extras:
    return Extras(
        endpoint="endpoint",
        leases={int(name.removeprefix("r")): one for name, one in leases.items()},
    )


def declared(known: Extras, *, floor: int = 1, ceiling: int = 4, **contracts: int):
    ids = {int(name.removeprefix("r")): one for name, one in contracts.items()}
    return running(known, floor=floor, ceiling=ceiling, contracts=ids, now=NOW)


@given(EXTRAS, st.integers(1, 32), st.integers(0, 32))
def test_it_never_declares_less_than_the_floor_or_more_than_the_ceiling(known, floor, more):
    found = running(known, floor=floor, ceiling=floor + more, contracts={}, now=NOW)
    assert found.indices[:floor] == tuple(range(floor))
    assert set(found.indices) <= set(range(floor + more))
    assert list(found.indices) == sorted(set(found.indices))
    assert set(found.hours) == set(found.indices[floor:])


@given(EXTRAS)
def test_the_state_gives_back_what_it_was_given_as_pulumi_hands_it_over(known):
    """All numbers are floats there, and keys are texts."""
    bag = json.loads(json.dumps(known.to_bag()), parse_int=float)
    assert Extras.from_bag({**bag, "__provider": "x"}) == known


@given(EXTRAS)
def test_an_order_is_read_as_it_was_written(known):
    assert ordered(known.model_dump_json(), "endpoint") == known
    assert ordered(known.model_dump_json(), "other") is None


def test_without_an_order_there_is_none():
    assert ordered("", "endpoint") is None


@pytest.mark.parametrize(
    "text",
    [
        "3",
        "{",
        '{"endpoint": "endpoint"}',
        '{"endpoint": "endpoint", "leases": {"0": {"since": 1, "hours": 1}}}',
        '{"endpoint": "endpoint", "leases": {"32": {"since": 1, "hours": 1}}}',
        '{"endpoint": "endpoint", "leases": {"1": {"since": 1, "hours": 0}}}',
        '{"endpoint": "endpoint", "leases": {"1": {"since": 1, "hours": 1e9}}}',
        '{"endpoint": "endpoint", "leases": {"1": {"since": NaN, "hours": 1}}}',
        '{"endpoint": "endpoint", "leases": {}, "more": 1}',
    ],
)
def test_an_order_that_is_none_is_refused_in_one_sentence(text):
    with pytest.raises(OrderRefused) as refused:
        ordered(text, "endpoint")
    assert scaling.VARIABLE in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_lease_that_is_over_declares_nothing_and_leaves_a_gap():
    over = Lease(since=NOW - 3 * 3600, hours=3)
    known = extras(r1=over, r2=new_lease(NOW))
    assert declared(known).indices == (0, 2)
    assert declared(known).hours == {2: LEASE_HOURS}


def test_what_the_settings_do_not_allow_any_longer_is_left_out():
    known = extras(r1=new_lease(NOW), r2=new_lease(NOW), r3=new_lease(NOW))
    assert declared(known, floor=2, ceiling=3).indices == (0, 1, 2)
    assert declared(known, floor=2, ceiling=3).hours == {2: LEASE_HOURS}


def test_a_lease_that_was_extended_is_for_its_own_machine_alone():
    """Another machine's time would begin anew, and be as long as the whole life of the first."""
    extended = Lease(since=NOW - 40 * 3600, hours=43, contract=7)
    assert declared(extras(r1=extended), r1=7).hours == {1: 43}
    assert declared(extras(r1=extended), r1=8).hours == {1: LEASE_HOURS}
    assert declared(extras(r1=extended)).hours == {1: 43}


def test_an_extended_lease_ends_three_hours_from_now():
    lease = new_lease(NOW - 10_000).extended(NOW, 7)
    assert (lease.since, lease.contract) == (NOW - 10_000, 7)
    assert lease.until == pytest.approx(NOW + LEASE_HOURS * 3600, abs=18)


def test_a_preview_says_what_runs_and_whose_lease_is_over():
    def said(known: Extras) -> list[str]:
        return described(known, declared(known), ceiling=4, now=NOW)

    assert said(extras()) == []
    (runs,) = said(extras(r1=new_lease(NOW)))
    assert runs.startswith("2 of at most 4 replicas run (replicasMax)")
    over = Lease(since=NOW - 3 * 3600, hours=3)
    runs, ends = said(extras(r1=over, r2=new_lease(NOW)))
    assert runs.startswith("2 of at most 4 replicas run")
    assert ends.startswith("the lease of replica 1 is over")


@pytest.mark.parametrize(
    ("own", "setting", "hours"), [(0, 0, 0), (0, 12, 12), (3, 0, 3), (3, 12, 3), (15, 12, 12)]
)
def test_the_shorter_time_to_live_counts(own, setting, hours):
    known = fixed(2).model_copy(update={"hours": {1: float(own)} if own else {}})
    assert known.time_to_live_hours(1, setting) == hours
    assert known.time_to_live_hours(0, setting) == setting


def test_the_record_and_the_contracts_are_found_by_their_names():
    record = extras(r1=new_lease(NOW)).to_bag()
    outputs: dict[str, dict[str, Any]] = {
        URN + "scaling:Scale::endpoint-scale": record,
        URN + "scaling:Scale::other-scale": {"endpoint": "other", "extras": {}},
        URN + "vast:Instance::endpoint-instance": {"instance_id": 1.0},
        URN + "vast:Instance::endpoint-r1-instance": {"instance_id": 2.0},
        URN + "vast:Instance::endpoint-r12-ab12-instance": {"instance_id": 3.0},
        URN + "vast:Instance::endpoint-r3-instance": {},
        URN + "vast:Instance::another-r4-instance": {"instance_id": 5.0},
        URN + "vast:Offer::endpoint-r5-instance": {"instance_id": 6.0},
    }
    assert recorded(outputs, "endpoint") == extras(r1=new_lease(NOW))
    assert contracts_in(outputs, "endpoint") == {1: 2, 12: 3, 3: 0}
    assert recorded({}, "endpoint") == extras()


@pytest.mark.parametrize(
    "bag",
    [
        {},
        {"endpoint": "endpoint"},
        {"endpoint": "endpoint", "extras": 3},
        {"endpoint": "endpoint", "extras": {"1": {"since": "soon", "hours": 3}}},
    ],
)
def test_a_record_that_is_none_is_refused_and_never_taken_for_the_floor(bag):
    with pytest.raises(StateUnreadable):
        recorded({URN + "scaling:Scale::endpoint-scale": bag}, "endpoint")
