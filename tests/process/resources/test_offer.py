"""`VastOffer`'s hooks, as Pulumi calls them, against an HTTP API."""

from __future__ import annotations

import pytest
from pulumi.output import Unknown

from components.resources.instance import InstanceProvider
from components.resources.offer import OfferProvider
from components.vast.market.requirements import INPUTS, NEEDS, need_from_bag
from tests.helpers.adapters import outputs, reasons, vast
from tests.helpers.offers import need, row
from tests.helpers.states import ordered, search

__all__ = ["vast"]  # fixtures


def test_a_need_comes_back_out_of_a_property_bag_as_it_went_in():
    assert need_from_bag(search()) == need()
    assert set(INPUTS) == {"query", *NEEDS}


def test_an_offers_check_shows_the_shortlist_the_link_and_the_runway(vast, capsys):
    vast.offers = [row(id=1, machine_id=7), row(id=2, machine_id=8, dph_total=6.5)]
    result = OfferProvider().check({}, search())
    assert result.failures == []
    said = capsys.readouterr().out
    assert "2 offers, best: 2x H200 in Iceland, IS (datacenter), $6.00/h" in said
    for heading in ("place", "Mbit/s", "reliability", "download", "$ to ready", "$/day", "$/month"):
        assert heading in said
    assert "\x1b" not in said
    assert "credit $100.00, which is 16.6 h of running" in said
    assert vast.writes() == []


def test_a_market_is_asked_and_shown_once_a_process(vast, capsys):
    for _ in range(2):
        assert OfferProvider().check({}, search()).failures == []
    assert OfferProvider().create(search()).id == "offer"
    assert vast.calls.count("POST /bundles/") == 1
    assert capsys.readouterr().out.count("best:") == 1


@pytest.mark.parametrize(
    ("olds", "news"),
    [
        (search(), search()),
        ({}, {**search(), "query": Unknown()}),
    ],
)
def test_an_offer_that_is_unchanged_or_unknown_asks_nobody(vast, olds, news):
    assert OfferProvider().check(olds, news).failures == []
    assert vast.calls == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_dollars_per_hour": 5.0}, "maxDollarsPerHour is 5.00"),
        ({"max_dollars_per_month": 4000.0}, "costs $4320.00 a month ($6.00/h)"),
        ({"query": "gpu_name=B200 num_gpus=2"}, "no offer on the market matches"),
        ({"query": "gpu=H200"}, "names 'gpu'"),
    ],
)
def test_a_new_offer_without_a_market_is_refused_in_preview(vast, changes, said):
    result = OfferProvider().check({}, search(**changes))
    assert said in reasons(result)
    assert all(failure.property == "" for failure in result.failures)
    assert vast.writes() == []


def test_credit_that_does_not_cover_getting_ready_is_refused_with_the_numbers(vast):
    vast.credit = 5.0
    refused = reasons(OfferProvider().check({}, search()))
    assert "has $5.00 of credit and the least of these offers needs $6.70" in refused
    assert "$0.70 until it is ready and $6.00 for 1 h of use" in refused


def test_credit_is_no_matter_where_a_machine_runs_already(vast):
    vast.credit = 0.0
    assert OfferProvider().check(search(), search(ready_minutes=50.0)).failures == []


def test_a_key_that_may_not_see_the_account_can_still_rent(vast, capsys):
    vast.broken = {"GET /users/current/"}
    assert OfferProvider().check({}, search()).failures == []
    assert "the credit is not known: the key lacks the scope user_read" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "refused"),
    [({"ready_minutes": 50.0}, False), ({"disk_gb": 600.0}, True), ({"num_gpus": 4.0}, True)],
)
def test_an_empty_market_refuses_only_what_may_lead_to_another_machine(
    vast, changes, refused, capsys
):
    vast.offers = []
    result = OfferProvider().check(search(), search(**changes))
    assert bool(result.failures) is refused
    assert ("no offer on the market" in capsys.readouterr().out) is not refused


def test_an_update_in_an_empty_market_keeps_the_search_and_no_shortlist(vast):
    vast.offers = []
    news = search(ready_minutes=50.0)
    outs = outputs(OfferProvider().update("offer", search(), news))
    assert outs == {**news, "search": news, "shortlist": []}


def test_an_offer_changes_with_its_inputs_alone():
    provider = OfferProvider()
    assert provider.diff("offer", {**search(), "shortlist": [1]}, search()).changes is False
    assert provider.diff("offer", search(), search(disk_gb=600.0)).changes is True
    assert provider.diff("offer", search(), {**search(), "query": Unknown()}).changes is True


def test_an_offers_outputs_are_the_search_and_a_shortlist_for_people(vast):
    made = OfferProvider().create(search())
    assert outputs(made)["search"] == search()
    (best,) = outputs(made)["shortlist"]
    assert best["machine_id"] == 7
    assert best["dollars_per_hour"] == 6.0
    assert best["dollars_to_ready"] == pytest.approx(0.7)
    assert OfferProvider().read("offer", outputs(made)).outs == made.outs
    assert vast.writes() == []


def test_what_the_offer_has_shown_already_is_not_shown_again(vast, capsys):
    OfferProvider().check({}, search())
    capsys.readouterr()
    assert InstanceProvider().check({}, ordered()).failures == []
    assert "best:" not in capsys.readouterr().out
    assert vast.calls.count("POST /bundles/") == 1


MODEL = "mistralai/Mistral-Small-4-119B-2603"
ONE_GPU = row(id=2, machine_id=8, num_gpus=1, dph_total=3.0)


def test_a_cheaper_way_to_serve_the_model_is_one_line_and_one_search(vast, capsys):
    vast.offers = [row(), ONE_GPU]
    for _ in range(2):
        assert OfferProvider().check({}, search(repository=MODEL)).failures == []
    (line,) = [one for one in capsys.readouterr().out.splitlines() if "cheaper" in one]
    assert "mistral-small-4-fp8-1xh200 on 1x H200 costs $3.0" in line
    assert "not $6.0" in line
    assert vast.calls.count("POST /bundles/") == 2


@pytest.mark.parametrize("offers", [[row()], [row(), {**ONE_GPU, "dph_total": 6.5}]])
def test_a_preview_says_nothing_where_no_way_is_cheaper(vast, capsys, offers):
    vast.offers = offers
    assert OfferProvider().check({}, search(repository=MODEL)).failures == []
    assert "cheaper" not in capsys.readouterr().out


def test_no_other_way_is_looked_for_where_no_other_machine_can_come_of_it(vast, capsys):
    vast.offers = [row(), ONE_GPU]
    olds, news = search(repository=MODEL), search(repository=MODEL, ready_minutes=50.0)
    assert OfferProvider().check(olds, news).failures == []
    assert "cheaper" not in capsys.readouterr().out
    assert vast.calls.count("POST /bundles/") == 1
