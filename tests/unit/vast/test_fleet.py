"""Machines that serve one endpoint together."""

from __future__ import annotations

import pytest

from components.vast.api.models import Instance
from components.vast.fleet import Fleet, fleet_property, siblings_of
from components.vast.instance_state import InstanceInputs, InstanceState
from components.vast.labels import order_digest, owner_of
from components.vast.lifecycle.diff import decide
from components.vast.lifecycle.order import limits_for
from components.vast.rental.boot import POLL, SHARED_MAX_AGE
from tests.helpers.offers import instance
from tests.helpers.states import ordered, rented

OWNER = owner_of("ssh-ed25519 AAAA p/s")


@pytest.mark.parametrize("fleet", [Fleet(4), Fleet(2, "host")])
def test_a_fleet_comes_back_out_of_its_property(fleet):
    assert Fleet.from_bag(fleet_property(fleet)) == fleet
    assert Fleet.from_bag({"fleet": {"replicas": float(fleet.replicas), "spread": fleet.spread}})


def test_an_endpoint_with_one_machine_has_no_property():
    assert fleet_property(None) == {}
    assert Fleet.from_bag(ordered()) is None
    assert "fleet" not in InstanceInputs.from_bag(ordered()).to_bag()


def test_a_running_machine_is_left_alone_when_the_fleet_grows_shrinks_or_comes():
    one, four = ordered(), ordered(**fleet_property(Fleet(4, "host")))
    for olds, news in ((one, four), (four, one), (four, ordered(**fleet_property(Fleet(2))))):
        old = InstanceState.from_bag({**rented(), **olds})
        new = InstanceInputs.from_bag({**olds, **news})
        assert not decide("9001", old, new, 0.0)


@pytest.mark.parametrize(
    ("resource", "is_sibling"),
    [
        ("endpoint", False),
        ("endpoint-r1", True),
        ("endpoint-r12", True),
        ("endpoint-0a1b2c3d", False),
        ("endpoint-r1-0a1b2c3d", False),
        ("assistant-r1", False),
    ],
)
def test_siblings_are_the_other_replicas_of_this_generation(resource, is_sibling):
    label = f"p/s/{resource}-instance/{order_digest(OWNER, 'order')}"
    found = Instance.from_json(instance(label=label))
    assert bool(siblings_of([found], "p/s/endpoint-instance/", OWNER)) is is_sibling
    other = Instance.from_json(instance(label=label.replace(OWNER, "ffffff")))
    assert siblings_of([other], "p/s/endpoint-instance/", OWNER) == ()


def test_what_no_endpoint_calls_its_machine_has_no_siblings():
    found = Instance.from_json(instance(label=f"p/s/x/{order_digest(OWNER, 'order')}"))
    assert siblings_of([found], "p/s/machine/", OWNER) == ()


def test_one_of_several_machines_asks_for_lists_less_often():
    several = InstanceInputs.from_bag(ordered(**fleet_property(Fleet(2))))
    assert limits_for(several).list_max_age == SHARED_MAX_AGE
    assert limits_for(InstanceInputs.from_bag(ordered())).list_max_age == POLL
