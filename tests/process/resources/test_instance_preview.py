"""What a preview says of a machine that is going to be rented or adopted."""

from __future__ import annotations

import pytest
from pulumi.output import Unknown

from components.resources.instance import InstanceProvider
from components.vast.labels import order_digest, owner_of
from tests.helpers.adapters import ASKED, reasons, vast, vast_label
from tests.helpers.offers import row
from tests.helpers.states import PREFIX, ordered, rented, search

__all__ = ["vast"]  # fixtures


def test_a_machine_that_is_going_to_be_rented_shows_the_market(vast, capsys):
    assert InstanceProvider().check({}, ordered()).failures == []
    assert vast.writes() == []
    assert "1 offers, best: 2x H200" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("olds", "news"),
    [
        (ordered(), ordered()),
        ({}, ordered(search=Unknown())),
        ({}, ordered(public_key=Unknown())),
    ],
)
def test_a_machine_that_stands_or_is_not_known_yet_asks_nobody(vast, olds, news):
    assert InstanceProvider().check(olds, news).failures == []
    assert vast.calls == []


@pytest.mark.parametrize(
    ("offers", "credit", "said"),
    [([], 100.0, "no offer on the market matches"), ([row()], 1.0, "$1.00 of credit")],
)
def test_a_machine_that_cannot_be_rented_is_refused_before_the_old_one_goes(
    vast, offers, credit, said
):
    vast.offers, vast.credit = offers, credit
    assert said in reasons(InstanceProvider().check({}, ordered()))
    assert vast.writes() == []


def test_a_contract_of_an_interrupted_up_is_gone_on_with_whatever_the_market_has(vast, capsys):
    vast.offers, vast.credit = [], 0.0
    label = vast_label()
    vast.has(9001, label=label)
    assert InstanceProvider().check({}, ordered()).failures == []
    said = capsys.readouterr().out
    assert "instance 9001 was rented for this resource before and costs $6.00/h" in said
    assert "if instance 9001 is being replaced, it ends and none comes in its place: no off" in said
    assert vast.calls.count("POST /bundles/") == 1
    vast.has(9001, label=label, actual_status="offline")
    assert "no offer" in reasons(InstanceProvider().check({}, ordered()))


def test_a_contract_above_the_cap_is_not_promised_to_be_gone_on_with(vast, capsys):
    vast.has(9001, label=vast_label(), dph_total=9.0)
    capped = ordered(search=search(max_dollars_per_hour=8.0))
    assert InstanceProvider().check({}, capped).failures == []
    said = capsys.readouterr().out
    assert "costs $9.00/h, above the cap of $8.00/h: `pulumi up` ends it and rents another" in said
    assert "goes on with it" not in said


@pytest.mark.parametrize("drifted", [{"end_date": 1.0}, {"end_date": 1e11, "asked": True}])
@pytest.mark.parametrize(("when", "refused"), [("replace", True), ("warn", False)])
def test_a_machine_that_the_rule_replaces_goes_only_if_another_can_be_rented(
    vast, drifted, when, refused
):
    vast.offers = []
    vast.prices_asked = [{**ASKED, "new_gpu_costpersec": 1.0}] if "asked" in drifted else []
    vast.has(9001, label=vast_label(), end_date=drifted["end_date"])
    result = InstanceProvider().check({}, ordered(term={"warn_days": 3.0, "when": when}))
    assert ("no offer on the market" in reasons(result)) is refused
    assert vast.writes() == []


def test_a_machine_that_the_rule_keeps_for_now_is_gone_on_with(vast):
    vast.offers = []
    vast.has(9001, label=vast_label(), end_date=1e11)
    rule = {"warn_days": 3.0, "when": "replace"}
    assert InstanceProvider().check({}, ordered(term=rule)).failures == []


def test_a_machine_beside_another_one_says_what_both_cost(vast, capsys):
    prefix = str(ordered()["label_prefix"])
    stack = "/".join(prefix.split("/")[:2])
    vast.has(9001, label=f"{stack}/endpoint-0a1b2c3d-instance/nonce")
    vast.has(9002, label=f"{stack}-2/endpoint-instance/nonce")
    # Of another endpoint of the stack, which goes on whatever becomes of this one.
    vast.has(9003, label=f"{stack}/assistant-instance/nonce")
    vast.has(9004, label=f"{stack}/assistant-instance/{order_digest(owner_of('another'), 'x')}")
    assert InstanceProvider().check({}, ordered()).failures == []
    said = capsys.readouterr().out
    assert "comes up beside instance 9001: what serves goes on" in said
    assert "$6.00/h and about $" in said
    assert not any(other in said for other in ("9002", "9003", "9004"))


def test_a_machine_alone_says_nothing_of_a_second_bill(vast, capsys):
    assert InstanceProvider().check({}, ordered()).failures == []
    assert "beside" not in capsys.readouterr().out
    assert vast.writes() == []


@pytest.mark.parametrize(
    ("drifted", "contract", "said"),
    [
        (
            {"carried_label": f"{PREFIX}unfit-load_late-abc"},
            {"label": f"{PREFIX}unfit-load_late-abc"},
            "it was marked unfit (load late): take `adopt` out",
        ),
        ({"contract_ends_at": 1.0}, {"end_date": 1.0}, "(whenContractEnds) and `adopt` names it"),
        ({"status": "offline"}, {"actual_status": "offline"}, "it is offline, not running"),
    ],
)
def test_a_lost_machine_that_adopt_names_can_be_refreshed_and_is_kept_by_preview(
    vast, drifted, contract, said
):
    props = ordered(adopt=9001.0, term={"warn_days": 3.0, "when": "replace"})
    assert InstanceProvider().diff("9001", {**rented(), **props, **drifted}, props).replaces
    vast.has(9001, **{"label": f"{PREFIX}abc", "disk_space": 500.0, **contract})
    assert said in reasons(InstanceProvider().check({}, props))
    assert vast.writes() == []


def test_a_machine_that_is_replaced_by_name_is_not_promised_its_own_adoption(vast, capsys):
    vast.has(9001, label=f"{PREFIX}abc", disk_space=500.0)
    assert InstanceProvider().check({}, ordered(adopt=9001.0)).failures == []
    said = capsys.readouterr().out
    assert "fits and carries this resource's label already" in said
    assert "ends it and then fails: then take `adopt` out" in said
