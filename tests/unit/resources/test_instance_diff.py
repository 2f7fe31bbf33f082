"""Whether a machine is replaced, updated or left alone: the hook of Pulumi, which asks nobody."""

from __future__ import annotations

import pytest
from pulumi.output import Unknown

from components.resources.instance import InstanceProvider
from components.resources.offer import OfferProvider
from components.vast.errors import (
    CannotAdopt,
)
from components.vast.lifecycle.diff import REPLACE_ON_CHANGE, UPDATE_IN_PLACE
from tests.helpers.adapters import MEASURED, TAKEN, lost, policy
from tests.helpers.states import PREFIX, ordered, rented, search


@pytest.mark.parametrize("key", REPLACE_ON_CHANGE)
def test_what_is_fixed_for_a_contract_replaces_it_and_the_old_one_goes_first(key):
    other = "other" if isinstance(ordered()[key], str) else 7.0
    for value in (other, Unknown()):
        news = {**ordered(), key: value}
        result = InstanceProvider().diff("9001", rented(), news)
        assert result.replaces == [key]
        assert result.changes is True
        assert result.delete_before_replace is True


@pytest.mark.parametrize(
    "changes",
    [{key: "other"} for key in UPDATE_IN_PLACE if isinstance(ordered()[key], str)]
    + [{"boot_minutes": 7.0}]
    + [
        {"search": search(max_dollars_per_hour=1.0)},
        {"search": search(query="gpu_name=H200 inet_down>=9000")},
        {"search": Unknown()},
    ],
)
def test_what_a_running_machine_can_take_over_is_an_update(changes):
    result = InstanceProvider().diff("9001", rented(), ordered(**changes))
    assert result.changes is True
    assert result.replaces == []


@pytest.mark.parametrize(
    "changes",
    [{"query": "gpu_name=H200", "num_gpus": 4.0}, {"query": "gpu_name=B200 num_gpus=2"}],
)
def test_a_search_that_would_not_choose_the_machine_replaces_it(changes):
    result = InstanceProvider().diff("9001", rented(), ordered(search=search(**changes)))
    assert result.replaces == ["search"]


@pytest.mark.parametrize(
    ("drifted", "changes", "replaces"),
    [
        ({}, False, []),
        ({"status": "rebooting"}, False, []),
        ({"hourly_cost": 7.0, "host_port": 1.0}, False, []),
        ({"status": "offline"}, True, ["status"]),
        ({"intended_status": "stopped"}, True, ["status"]),
        ({"carried_label": "mine"}, True, []),
        ({"strays": [7.0]}, True, []),
    ],
)
def test_drift_replaces_mends_or_is_left_alone(drifted, changes, replaces):
    result = InstanceProvider().diff("9001", rented(**drifted), ordered())
    assert result.changes is changes
    assert result.replaces == replaces


def test_a_machine_that_is_marked_unfit_is_replaced():
    olds = rented(carried_label=f"{PREFIX}unfit-download_slow-abc")
    result = InstanceProvider().diff("9001", olds, ordered())
    assert result.changes is True
    assert result.replaces == ["carried_label"]
    assert result.delete_before_replace is True


def test_a_second_machine_is_not_adopted_beside_the_first():
    with pytest.raises(CannotAdopt, match=r"instance 777 cannot .* has instance 9001 already"):
        InstanceProvider().diff("9001", rented(), ordered(adopt=777.0))
    assert InstanceProvider().diff("9001", rented(), ordered(adopt=9001.0)).changes is False


def test_a_state_that_names_another_machine_to_adopt_can_still_be_refreshed():
    recorded = rented(adopt=777.0)
    assert InstanceProvider().diff("9001", recorded, recorded).changes is False
    with pytest.raises(CannotAdopt, match="instance 778 cannot"):
        InstanceProvider().diff("9001", recorded, ordered(adopt=778.0))


@pytest.mark.parametrize(
    "changes",
    [
        {"public_key": "ssh-ed25519 BBBB p/s"},
        {"search": search(contract="interruptible")},
        {"search": search(query="gpu_name=B200")},
    ],
)
def test_a_machine_is_not_replaced_by_its_own_adoption(changes):
    news = ordered(adopt=9001.0, **changes)
    with pytest.raises(CannotAdopt, match=r"9001 is to be replaced .*`pulumi config rm adopt`"):
        InstanceProvider().diff("9001", rented(adopt=9001.0), news)


@pytest.mark.parametrize("form", [{}, MEASURED])
@pytest.mark.parametrize(
    ("when", "losses", "replaced"),
    [
        ("rerent", lost(1), True),
        ("rerent", lost(3), True),
        ("rerent", lost(4), False),
        ("rebid", lost(1), False),
        ("wait", lost(1), False),
    ],
)
def test_a_machine_that_was_taken_away_is_replaced_or_updated_by_the_rule(
    when, losses, replaced, form
):
    """Section 1, in both forms of states."""
    olds = rented(**{**TAKEN, **form}, outbid_policy=policy(when), losses={})
    news = ordered(search=TAKEN["search"], outbid_policy=policy(when), losses=losses)
    found = InstanceProvider().diff("9001", olds, news)
    assert (found.changes, found.replaces) == (True, ["status"] if replaced else [])


def test_the_count_of_losses_is_no_change_of_its_own():
    olds = rented(outbid_policy=policy("rerent"), losses={})
    news = ordered(outbid_policy=policy("rerent"), losses=lost(2))
    assert not InstanceProvider().diff("9001", olds, news).changes


def test_a_state_without_rules_and_contract_is_no_change_and_another_contract_another_machine():
    old = rented()
    old["search"] = {key: value for key, value in old["search"].items() if key != "contract"}
    assert not InstanceProvider().diff("9001", old, ordered()).changes
    bids = ordered(search=search(contract="interruptible"))
    assert "contract" in (InstanceProvider().diff("9001", old, bids).replaces or [])
    offered = {key: value for key, value in search().items() if key != "contract"}
    assert not OfferProvider().diff("offer", offered, search()).changes
    assert OfferProvider().diff("offer", offered, search(contract="interruptible")).changes
