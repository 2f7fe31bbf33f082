"""Machines of one endpoint: what a preview says of them, and one that was lost."""

from __future__ import annotations

from typing import Any

import pytest

from components.core.property_bag import Properties
from components.resources.context import current
from components.resources.instance import InstanceProvider
from components.resources.offer import OfferProvider
from components.vast.fleet import Fleet, fleet_property
from components.vast.lifecycle.order import order_for
from tests.helpers.adapters import ASKED, client_key, machine, outputs, reasons, vast
from tests.helpers.offers import row
from tests.helpers.states import inputs, ordered, rented, search

__all__ = ["client_key", "machine", "vast"]  # fixtures


def wanted(replicas: int, spread: str = "machine") -> Properties:
    return search(**fleet_property(Fleet(replicas, "host" if spread == "host" else "machine")))


def replica(number: int, client_key=None, replicas: int = 3) -> Properties:
    prefix = f"p/s/endpoint-r{number}-instance/" if number else "p/s/endpoint-instance/"
    fleet = fleet_property(Fleet(replicas))
    return ordered(client_key, label_prefix=prefix, **fleet)


def label_of(number: int) -> str:
    return order_for(inputs(**replica(number)), "http://vast.test").label


def offers(*machines: int, **changes) -> list[dict[str, Any]]:
    return [row(id=one, machine_id=one, host_id=900 + one // 2, **changes) for one in machines]


def test_a_preview_shows_price_and_machines_for_all_once(vast, capsys):
    vast.offers = [*offers(2, 3, 4, 5), row(id=9, machine_id=2, host_id=901, dph_total=6.2)]
    assert OfferProvider().check({}, wanted(3)).failures == []
    said = capsys.readouterr().out
    assert "market: 5 offers of 4 machines of 2 hosts come into question; the best 3 cost" in said
    assert "about $18.00/h together ($432 a day, $12,960 a month)" in said
    assert "on the best 3" in said
    for number in range(3):
        assert InstanceProvider().check({}, replica(number)).failures == []
    assert capsys.readouterr().out == ""
    assert vast.calls.count("POST /bundles/") == 1
    assert vast.writes() == []


@pytest.mark.parametrize(
    ("fleet", "said"),
    [
        (wanted(5), "5 replicas need 5 different machines, and the market has 4 within the cap"),
        (wanted(3, "host"), "3 replicas need 3 different hosts, and the market has 2 within"),
    ],
)
def test_fewer_machines_than_replicas_are_refused_before_money(vast, fleet, said):
    vast.offers = offers(2, 3, 4, 5)
    result = OfferProvider().check({}, fleet)
    assert said in reasons(result)
    assert len(result.failures) == 1
    assert vast.writes() == []


def test_credit_for_one_machine_is_too_little_for_three(vast):
    vast.offers, vast.credit = offers(2, 3, 4), 15.0
    assert OfferProvider().check({}, search()).failures == []
    assert "3 machines need at least $20.10" in reasons(OfferProvider().check({}, wanted(3)))


@pytest.mark.parametrize(
    ("olds", "news", "refused"),
    [
        (wanted(4), wanted(6), False),
        (wanted(4), wanted(7), True),
        (search(), wanted(3), False),
        (search(), wanted(4), True),
        (wanted(4), wanted(4, "host"), False),
        (wanted(4), wanted(2), False),
        (wanted(4), search(), False),
    ],
)
def test_scaling_out_needs_as_many_more_machines(vast, olds, news, refused):
    vast.offers = offers(2, 3)
    assert bool(OfferProvider().check(olds, news).failures) is refused
    assert OfferProvider().diff("offer", olds, news).changes is True


def test_scaling_in_asks_nobody(vast):
    assert OfferProvider().check(wanted(4), wanted(2)).failures == []
    assert OfferProvider().check(wanted(4), search()).failures == []
    assert vast.calls == []


def test_the_offers_state_keeps_how_many_machines_it_was_for(vast):
    vast.offers = offers(2, 3, 4)
    made = outputs(OfferProvider().create(wanted(3)))
    assert made["fleet"] == {"replicas": 3, "spread": "machine"}
    assert OfferProvider().diff("offer", made, wanted(3)).changes is False
    assert "fleet" not in outputs(OfferProvider().update("offer", made, search()))


@pytest.mark.usefixtures("machine")
def test_a_lost_replica_is_rented_anew_and_its_siblings_stay_as_they_are(vast, client_key, capsys):
    vast.offers = offers(2, 3, 4, 5)
    orders = {number: replica(number, client_key) for number in range(3)}
    made = {number: InstanceProvider().create(order) for number, order in orders.items()}
    states = {number: outputs(one) for number, one in made.items()}
    assert len({state["machine_id"] for state in states.values()}) == 3
    assert {len(state["fleet"]) for state in states.values()} == {2}
    lost = made[1].id
    del vast.contracts[int(lost)]
    current().clock.sleep(60)
    capsys.readouterr()

    read = {n: InstanceProvider().read(one.id, states[n]) for n, one in made.items()}
    assert read[1].id == ""
    assert f"replica 1: instance {lost} is gone" in capsys.readouterr().out
    for number in (0, 2):
        assert read[number].outs == states[number]
        diff = InstanceProvider().diff(made[number].id, states[number], orders[number])
        assert diff.changes is False

    assert InstanceProvider().check({}, orders[1]).failures == []
    assert (
        "replica 1: 2 machines come into question beside those of the other replicas, best: "
        in capsys.readouterr().out
    )
    again = outputs(InstanceProvider().create(orders[1]))
    assert again["machine_id"] not in {states[0]["machine_id"], states[2]["machine_id"]}
    assert "replica 1: instance: renting 2x H200" in capsys.readouterr().out
    assert len(vast.contracts) == 3


def test_a_lost_replica_without_a_machine_left_is_refused_in_words(vast):
    vast.offers = offers(2)
    vast.has(9001, machine_id=2, label=label_of(0))
    said = reasons(InstanceProvider().check({}, replica(1)))
    assert "nothing but machines that other replicas have" in said


def test_replicas_that_are_previewed_share_one_list(vast):
    vast.offers = offers(2, 3, 4)
    for number in range(3):
        InstanceProvider().check({}, replica(number))
    assert vast.calls.count("GET /api/v1/instances/") == 1


def test_replicas_that_are_refreshed_share_what_the_market_says_of_all(vast):
    for number, id_ in enumerate((9001, 9002, 9003)):
        vast.has(id_, machine_id=20 + number, label=label_of(number))
    vast.prices_asked = [{**ASKED, "contract_id": 9002}]
    for number, id_ in enumerate((9001, 9002, 9003)):
        state = {**rented(instance_id=id_, label=label_of(number)), **replica(number)}
        found = outputs(InstanceProvider().read(str(id_), state))
        assert (found.get("price_asked") is not None) is (id_ == 9002)
    assert vast.calls.count("GET /api/v1/instances/") == 1
    assert vast.calls.count("GET /instances/pending-price-increases/") == 1


def test_machines_of_different_endpoints_are_each_asked_for(vast):
    for id_ in (9001, 9002):
        vast.has(id_, label=label_of(0))
        InstanceProvider().read(str(id_), {**rented(instance_id=id_), **ordered()})
    assert vast.calls.count("GET /instances/pending-price-increases/") == 2


def test_a_replica_that_is_replaced_create_first_counts_its_own_old_machine_alone(vast, capsys):
    vast.offers = offers(2, 3)
    for number, id_ in ((0, 9001), (1, 9002)):
        vast.has(id_, machine_id=20 + number, label=label_of(number))
    new = replica(1) | {"label_prefix": "p/s/endpoint-r1-0a1b2c3d-instance/"}
    assert InstanceProvider().check({}, new).failures == []
    said = capsys.readouterr().out
    assert "replica 1: the new machine comes up beside instance 9002:" in said
    assert "9001" not in said


def test_a_state_of_several_machines_becomes_one_of_one_machine_without_a_change():
    state = {**rented(), **replica(0)}
    assert InstanceProvider().diff("9001", state, ordered()).changes is False
    assert InstanceProvider().diff("9001", {**rented(), **ordered()}, replica(0)).changes is False
