"""What the market has for several machines at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.vast.errors import NoCredit, NoOffer
from components.vast.fleet import Fleet
from components.vast.market import several
from components.vast.market.ranking import SHORTLIST, shortlist
from tests.helpers.offers import need, offer

MACHINES = Fleet(4)
HOSTS = Fleet(4, "host")


def places(offers, fleet=MACHINES, needed=4, **needs):
    return several.refuse_too_few(offers, {}, need(**needs), fleet, needed)


def market(*rows: tuple[int, int, float]):
    """Offers of machines of hosts at a price."""
    return [
        offer(id=number, machine_id=machine, host_id=host, dph_total=price)
        for number, (machine, host, price) in enumerate(rows, 1)
    ]


SLICES = market((1, 901, 6.0), (1, 901, 6.1), (2, 901, 6.2), (3, 902, 6.3), (4, 903, 6.4))


def test_each_machine_counts_once_with_its_best_offer():
    found = places(SLICES)
    assert [(one.offer.machine_id, one.offer.id) for one in found] == [
        (1, 1), (2, 3), (3, 4), (4, 5),
    ]  # fmt: skip
    assert several.dollars_per_hour(found, 4) == pytest.approx(24.9)


def test_by_host_each_host_counts_once():
    found = places(SLICES, HOSTS, needed=3)
    assert [one.offer.host_id for one in found] == [901, 902, 903]


@pytest.mark.parametrize(
    ("fleet", "needed", "said"),
    [
        (
            Fleet(5),
            5,
            (
                "5 replicas need 5 different machines, and the market has 4 within the cap of "
                "$8.00/h: lower `replicas` to 4 or ask for less in offerQuery; nothing was rented"
            ),
        ),
        (
            HOSTS,
            4,
            (
                "4 replicas need 4 different hosts, and the market has 3 within the cap of "
                "$8.00/h: lower `replicas` to 3, set `spread` to machine or ask for less in "
                "offerQuery; nothing was rented"
            ),
        ),
    ],
)
def test_fewer_places_than_replicas_are_refused_in_one_sentence(fleet, needed, said):
    with pytest.raises(NoOffer) as refused:
        places(SLICES, fleet, needed)
    assert str(refused.value) == said


def test_scaling_out_is_refused_by_what_is_missing():
    with pytest.raises(NoOffer) as refused:
        places(SLICES, Fleet(11), needed=6)
    assert "6 more replicas need 6 different machines, and the market has 4" in str(refused.value)
    assert "lower `replicas` to 9 or" in str(refused.value)


@pytest.mark.parametrize(
    ("caps", "said"),
    [
        (
            {"max_dollars_per_hour": 6.25},
            (
                "the market has 2 within the cap of $6.25/h, and 2 more above it: lower "
                "`replicas` to 2, raise maxDollarsPerHour to at least 6.40 or"
            ),
        ),
        (
            {"max_dollars_per_month": 4500.0},
            (
                "the market has 2 within the cap of $6.25/h, and 2 more above it: lower "
                "`replicas` to 2, raise maxDollarsPerMonth to at least 4608.00 or"
            ),
        ),
    ],
)
def test_where_a_higher_cap_would_help_its_least_value_is_named(caps, said):
    with pytest.raises(NoOffer) as refused:
        places(SLICES, **caps)
    assert said in str(refused.value)
    name, value = ("max_dollars_per_hour", 6.4) if "Hour" in said else (
        "max_dollars_per_month", 4608.0
    )  # fmt: skip
    assert len(places(SLICES, **{name: value})) == 4


def test_the_summary_has_price_machines_and_hosts():
    found = places(SLICES)
    assert several.summarize(found, 5, MACHINES, 4) == (
        "5 offers of 4 machines of 3 hosts come into question; the best 4 cost about $24.90/h "
        "together ($598 a day, $17,928 a month), about $2.86 and 4 min of download until all are "
        "ready"
    )
    by_host = several.summarize(places(SLICES, HOSTS, 3), 5, HOSTS, 3)
    assert "3 machines of 3 hosts come into question, each of another host; the best 3" in by_host


def test_credit_has_to_cover_all_of_them():
    found = places(SLICES)
    several.check_credit(27.77, found, 4)
    with pytest.raises(NoCredit, match=r"has \$27.75 of credit and 4 machines need at least"):
        several.check_credit(27.75, found, 4)
    assert several.runway(100.0, found, 4).startswith("credit $100.00, which is 4.0 h of running")


def test_what_siblings_hold_is_no_place():
    ranked = shortlist(SLICES, {}, need(), 64)
    left = several.one_a_place(ranked, MACHINES, {1, 3})
    assert [one.offer.machine_id for one in left] == [2, 4]


PLACES = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 4)), min_size=1, max_size=40)


@given(PLACES, st.sampled_from([MACHINES, HOSTS]))
def test_no_two_places_are_one_and_none_is_missed(drawn, fleet):
    offers = market(*((machine, host, 6.0) for machine, host in drawn))
    ranked = shortlist(offers, {}, need(), len(offers))
    found = several.one_a_place(ranked, fleet)
    keys = [fleet.place_of(one.offer) for one in found]
    assert len(set(keys)) == len(keys)
    assert set(keys) == {fleet.place_of(one) for one in offers} - {0}


def test_more_machines_than_a_shortlist_has_are_counted():
    offers = market(*((number, number, 6.0) for number in range(1, 33)))
    assert len(places(offers, needed=32)) == 32 > SHORTLIST
