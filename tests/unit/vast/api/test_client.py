from __future__ import annotations

import dataclasses

import pytest
import requests

from components.vast.api.calls import TRIES
from components.vast.api.client import VastApi
from components.vast.api.rate_limit import INTERVALS, MARGIN
from components.vast.errors import (
    ApiFailed,
    ApiUnreachable,
    ContractParked,
    KeyRefused,
    NoCredit,
    OfferTaken,
    PermissionMissing,
    RateLimited,
    RentRefused,
    ReplyLost,
)
from tests.helpers.fakes import VirtualClock
from tests.helpers.offers import instance, row
from tests.helpers.scripted_api import BAD_KEY, ORDER, SECRET, ScriptedTransport


def test_a_search_gives_offers(door_to):
    api, transport, _ = door_to((200, {"offers": [row()]}))
    assert [offer.id for offer in api.search({"type": "on-demand"})] == [111]
    assert transport.calls == [("POST", "/bundles/", {"type": "on-demand"})]


def test_a_rent_sends_the_official_clients_body_with_label_and_ports_as_a_dict(door_to):
    api, transport, _ = door_to((200, {"success": True, "new_contract": 9001}))
    assert api.rent(111, ORDER) == 9001
    _, path, body = transport.calls[0]
    assert path == "/asks/111/"
    assert body["label"] == "p/s/r/n"
    assert body["env"] == {"-p 8000:8000": "1"}
    assert body["runtype"] == "ssh_direc ssh_proxy"
    assert body["disk"] == 500.0
    assert body["cancel_unavail"] is True


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((404, {"error": "invalid_args", "msg": "error 404/3603: no_such_ask gone"}), OfferTaken),
        ((410, {"error": "no_such_ask", "msg": "no longer available"}), OfferTaken),
        ((400, {"error": "no_such_ask"}), OfferTaken),
        ((400, {"error": "insufficient_credit", "msg": "Your account lacks credit"}), NoCredit),
        ((200, {"success": False, "error": "insufficient_credit"}), NoCredit),
        ((400, {"error": "invalid_args", "msg": "bad image"}), RentRefused),
        (BAD_KEY, KeyRefused),
        ((403, {"msg": "scope"}), KeyRefused),
        ((503, "gateway"), ReplyLost),
        ((200, "not json"), ReplyLost),
        ((200, {"success": True}), ReplyLost),
        ((200, {"success": False, "msg": "no"}), RentRefused),
        (requests.ReadTimeout("late"), ReplyLost),
        (requests.ConnectionError("cut"), ReplyLost),
    ],
)
def test_a_rent_that_fails_says_why_and_is_sent_once(door_to, answer, error):
    api, transport, _ = door_to(answer)
    with pytest.raises(error):
        api.rent(111, ORDER)
    assert len(transport.calls) == 1


@pytest.mark.parametrize(
    ("status", "answer", "refusal"),
    [
        (200, {"error": "no_such_ask"}, OfferTaken),
        (200, {"msg": "Required resources are currently unavailable"}, OfferTaken),
        (400, {"error": "invalid_args", "msg": "error 400/1: no_such_ask"}, OfferTaken),
        (400, {"error": "insufficient_credit"}, NoCredit),
        (403, {"msg": "scope"}, KeyRefused),
        (410, {"error": "no_such_ask"}, OfferTaken),
        (429, {"error": "rate_limit_exceeded"}, OfferTaken),
        (503, {"msg": "gateway"}, OfferTaken),
    ],
)
def test_a_contract_in_a_refusal_is_never_nothing(door_to, status, answer, refusal):
    """Section 3 of marketplace-facts.md: whatever the refusal looks like, its number is kept."""
    api, transport, _ = door_to((status, {"success": False, "new_contract": "9001", **answer}))
    with pytest.raises(ContractParked, match="made contract 9001 all the same") as parked:
        api.rent(111, ORDER)
    assert parked.value.instance_id == 9001
    assert isinstance(parked.value.refusal, refusal)
    assert "nothing was rented" not in str(parked.value)
    assert len(transport.calls) == 1


@pytest.mark.parametrize("number", [None, 0, "", "none", [], {}, float("inf")])
def test_what_is_no_contracts_number_is_a_plain_refusal(door_to, number):
    api, _, _ = door_to((410, {"error": "no_such_ask", "new_contract": number}))
    with pytest.raises(OfferTaken):
        api.rent(111, ORDER)


def test_a_rental_asks_to_be_cancelled_if_it_cannot_start(door_to):
    """Section 3: bids too, whose default it is not."""
    for price in (None, 2.4):
        api, transport, _ = door_to((200, {"success": True, "new_contract": 9001}))
        api.rent(7, dataclasses.replace(ORDER, price=price))
        assert transport.calls[0][2]["cancel_unavail"] is True


def test_a_start_is_taken_or_waits(door_to):
    api, transport, _ = door_to(
        (200, {"success": True}),
        (200, {"success": False, "error": "resources_unavailable", "msg": "queued"}),
    )
    assert [api.start(9001), api.start(9001)] == [True, False]
    assert transport.calls == 2 * [("PUT", "/instances/9001/", {"state": "running"})]


def test_a_rent_that_was_not_let_in_waits_and_knocks_again(door_to):
    api, transport, clock = door_to(
        (429, "API requests too frequent"), (200, {"success": True, "new_contract": 5})
    )
    assert api.rent(111, ORDER) == 5
    assert len(transport.calls) == 2
    assert clock.passed >= INTERVALS["rent"]


@pytest.mark.parametrize(
    "failure",
    [
        (503, "<html>"),
        (500, {"error": "x"}),
        (429, "API requests too frequent"),
        (429, {"detail": "API requests too frequent endpoint threshold=4.5"}),
        (429, {"success": False, "error": "rate_limit_exceeded"}, {"Retry-After": "3"}),
        requests.ConnectionError("cut"),
        (200, "not json"),
    ],
)
def test_reads_survive_what_passes(door_to, failure):
    api, transport, _ = door_to(failure, failure, (200, {"credit": 12.5}))
    assert api.credit() == 12.5
    assert len(transport.calls) == 3


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        ((503, ""), ApiFailed),
        ((429, "too frequent"), RateLimited),
        (requests.ConnectTimeout("late"), ApiUnreachable),
    ],
)
def test_a_read_gives_up_after_its_tries(door_to, failure, error):
    api, transport, _ = door_to(*[failure] * 20)
    with pytest.raises(error):
        api.credit()
    assert len(transport.calls) == TRIES


@pytest.mark.parametrize(
    "failure",
    [
        requests.ConnectionError("connection refused"),
        requests.ConnectionError("Failed to resolve 'vast.test'"),
    ],
)
def test_without_a_network_a_preview_says_so_within_15_seconds(door_to, failure):
    for call in (VastApi.instances, VastApi.credit, lambda api: api.search({})):
        api, _, clock = door_to(*[failure] * 20, patient=False)
        with pytest.raises(ApiUnreachable, match="check the network and VAST_URL"):
            call(api)
        assert clock.passed <= 15


def test_a_network_that_is_gone_for_40_seconds_of_a_paid_wait_is_survived(door_to):
    page = {"success": True, "instances": [instance()]}
    gone = requests.ConnectionError("connection refused")
    api, _, clock = door_to(*[gone] * 5, (200, page))
    assert [one.id for one in api.instances()] == [9001]
    assert clock.passed >= 40


def test_an_api_that_answers_badly_is_asked_as_often_in_a_preview(door_to):
    api, transport, _ = door_to(*[(503, "")] * 20, patient=False)
    with pytest.raises(ApiFailed):
        api.credit()
    assert len(transport.calls) == TRIES


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (BAD_KEY, KeyRefused),
        ((403, {"msg": "This action requires login."}), KeyRefused),
        ((410, {"error": "deprecated_endpoint"}), ApiFailed),
        ((429, {"error": "search_quota_exceeded"}), RateLimited),
        ((200, {"success": False, "msg": "no"}), ApiFailed),
    ],
)
def test_what_does_not_pass_is_not_repeated(door_to, failure, error):
    api, transport, _ = door_to(failure)
    with pytest.raises(error):
        api.credit()
    assert len(transport.calls) == 1


def test_the_servers_own_pause_is_kept(door_to):
    api, _, clock = door_to((429, "x", {"Retry-After": "33"}), (200, {"credit": 1}))
    api.credit()
    assert clock.passed == pytest.approx(33)


USED_UP = {
    "error": "HTTPTooManyRequests",
    "msg": "API requests too frequent",
    "retry_after": 10,
    "limit": 5.0,
    "remaining": 0,
}
"""Verbatim of 2026-07-25 (marketplace-facts, 8)."""


@pytest.mark.parametrize(
    ("headers", "wait"), [({}, 10), ({"retry-after": "7", "x-ratelimit-remaining": "0"}, 7)]
)
def test_a_budget_that_is_used_up_is_waited_for_by_every_endpoint(door_to, headers, wait):
    """Section 8: the pause is the server's, and no other endpoint is asked in it."""
    api, transport, clock = door_to(
        (429, USED_UP, headers), (200, {"credit": 1}), (200, {"success": True})
    )
    api.credit()
    assert clock.passed == pytest.approx(wait)
    assert len(transport.calls) == 2
    api, _, clock = door_to((429, USED_UP, headers), *[(200, {"success": True})] * 2)
    with pytest.raises(RateLimited):
        api._calls._checked("GET /x/", api._calls._transport.get("/x/"), gone_is_empty=False)
    api.destroy(9001)
    assert clock.passed == pytest.approx(wait)


def test_an_unknown_key_is_never_gone(door_to):
    api, _, _ = door_to(BAD_KEY)
    with pytest.raises(KeyRefused, match="does not accept the API key"):
        api.instance(9001)


def test_gone_needs_both_the_single_get_and_the_list(door_to):
    null, page = {"instances": None}, {"success": True, "instances": [instance()]}
    api, _, _ = door_to((200, null), (200, page))
    found = api.instance(9001)
    assert found is not None
    assert found.id == 9001
    api, _, _ = door_to((200, null), (200, {"success": True, "instances": []}))
    assert api.instance(9001) is None
    gone = (404, {"success": False, "error": "no_such_instance"})
    api, _, _ = door_to(gone, (200, {"success": True, "instances": []}))
    assert api.instance(9001) is None


@pytest.mark.parametrize("ports", [None, {}, [40022, 40123]])
def test_ports_are_the_lists_where_the_single_get_has_none(door_to, ports):
    """Section 12 of marketplace-facts.md: three forms, and the list is the one to trust."""
    one, page = {"instances": instance(ports=ports)}, {"success": True, "instances": [instance()]}
    api, _, _ = door_to((200, one), (200, page))
    found = api.instance(9001)
    assert found is not None
    assert found.ports == {"22/tcp": 40022, "8000/tcp": 40123}
    api, _, _ = door_to((200, one), (200, {"success": True, "instances": []}))
    alone = api.instance(9001)
    assert alone is not None
    assert (alone.id, alone.ports) == (9001, {})
    loading = {"instances": instance(ports=ports, actual_status="loading")}
    api, transport, _ = door_to((200, loading))
    assert api.instance(9001) is not None
    assert len(transport.calls) == 1


LACKS = {"success": False, "error": "unauthorized", "msg": "API key lacks the user_read access"}


@pytest.mark.parametrize(
    "answer",
    [
        (401, LACKS),
        (403, LACKS),
        (401, {**LACKS, "error": "auth_error"}),
        (401, {"msg": "Key lacks the api.instance.read route access"}),
        (403, {"error": "not_authorized", "msg": "This key is valid for instance 7 only."}),
    ],
)
def test_a_key_without_a_permission_is_right(door_to, answer):
    """Section 14 of marketplace-facts.md: the key is right; which permission, and never the key."""
    for call in (VastApi.credit, VastApi.instances, lambda api: api.rent(111, ORDER)):
        api, _, _ = door_to(answer)
        with pytest.raises(PermissionMissing, match="the API key is right and lacks") as refused:
            call(api)
        said = str(refused.value)
        assert answer[1]["msg"] in said
        assert "misc, instance_read, instance_write, user_read and billing_read" in said
        assert "check VAST_API_KEY" not in said


@pytest.mark.parametrize(
    "answer", [BAD_KEY, (403, {"error": "auth_error", "msg": "This action requires login."})]
)
def test_a_key_that_vast_does_not_know_is_wrong_in_a_rental_too(door_to, answer):
    api, _, _ = door_to(answer)
    with pytest.raises(KeyRefused, match="does not accept the API key") as refused:
        api.rent(111, ORDER)
    assert not isinstance(refused.value, PermissionMissing)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((483, {"error": "invalid_args", "msg": "bad column"}), "483 invalid_args: bad column"),
        ((200, {"success": False, "error": "busy", "msg": "later"}), "refused busy: later"),
        ((409, {"error": "busy"}), "answered 409: busy"),
    ],
)
def test_an_error_names_endpoint_status_and_vasts_own_code(door_to, answer, words):
    api, _, _ = door_to(answer)
    with pytest.raises(ApiFailed) as failed:
        api.credit()
    assert words in str(failed.value)
    assert "(GET /users/current/)" in str(failed.value)


def test_an_unexplained_404_is_not_gone(door_to):
    api, _, _ = door_to((404, {"success": False, "msg": "what?"}))
    with pytest.raises(ApiFailed, match="404"):
        api.instance(9001)


def test_the_list_is_read_to_its_last_page(door_to):
    first = {"success": True, "instances": [instance(id=1)], "next_token": "t"}
    last = {"success": True, "instances": [instance(id=2)], "next_token": None}
    api, transport, _ = door_to((200, first), (200, last))
    assert [one.id for one in api.instances()] == [1, 2]
    assert transport.calls[1][2]["after_token"] == "t"


def test_a_list_serves_all_who_wait_and_nobody_who_must_know_now(door_to):
    page = {"success": True, "instances": [instance(id=1)]}
    api, transport, clock = door_to((200, page), (200, page), (200, page))
    for _ in range(16):
        assert [one.id for one in api.instances(max_age=3.0)] == [1]
    assert len(transport.calls) == 1
    api.instances()
    assert len(transport.calls) == 2
    clock.sleep(3.0)
    api.instances(max_age=3.0)
    assert len(transport.calls) == 3


def test_a_list_of_before_a_rent_is_no_list_of_what_was_rented(door_to):
    page = {"success": True, "instances": []}
    rented = {"success": True, "new_contract": 9001}
    new = {"success": True, "instances": [instance()]}
    api, _, _ = door_to((200, page), (200, rented), (200, new))
    assert api.instances() == []
    api.rent(111, ORDER)
    assert [one.id for one in api.instances(max_age=60.0)] == [9001]


def test_a_contract_is_told_though_the_shared_list_can_be_used_no_more(tmp_path):
    (tmp_path / "contracts.json").mkdir()
    transport = ScriptedTransport((200, {"success": True, "new_contract": 9001}))
    api = VastApi(transport, "http://vast.test", VirtualClock(), tmp_path, print, key=SECRET)
    assert api.rent(111, ORDER) == 9001


def test_a_label_is_put_on_a_contract(door_to):
    api, transport, _ = door_to((200, {"success": True}))
    api.set_label(9001, "p/s/r/n")
    assert transport.calls == [("PUT", "/instances/9001/", {"label": "p/s/r/n"})]


def test_each_pause_between_two_tries_is_said(door_to, said):
    api, _, _ = door_to((503, ""), (429, "too frequent"), (200, {"credit": 1}))
    api.credit()
    first, second = said
    assert first == (
        "vast: Vast.ai's API at http://vast.test answered 503 (GET /users/current/); "
        "trying again in 2 s"
    )
    assert second == (
        "vast: Vast.ai limits the calls of this key (GET /users/current/: 429); trying again in 4 s"
    )


def test_destroy_is_repeated_and_takes_gone_for_done(door_to):
    api, transport, _ = door_to((503, ""), (429, "x"), (200, {"success": True}))
    api.destroy(9001)
    assert [call[0] for call in transport.calls] == ["DELETE"] * 3
    api, _, _ = door_to((404, {"success": False, "error": "no_such_instance"}))
    api.destroy(9001)


def test_calls_of_one_endpoint_keep_its_interval(door_to):
    api, _, clock = door_to(*[(200, {"success": True})] * 3)
    for _ in range(3):
        api.destroy(1)
    assert clock.passed == pytest.approx(2 * (INTERVALS["destroy"] + MARGIN))


def test_a_bid_is_put_again_until_it_is_taken(door_to):
    api, transport, _ = door_to((503, ""), (200, {"success": True, "price": 2.4}))
    api.set_bid(9001, 2.4)
    body = {"client_id": "me", "price": 2.4}
    assert transport.calls == 2 * [("PUT", "/instances/bid_price/9001/", body)]


def test_the_price_of_an_order_is_the_bid(door_to):
    for price in (None, 2.4):
        api, transport, _ = door_to((200, {"success": True, "new_contract": 9001}))
        api.rent(7, dataclasses.replace(ORDER, price=price))
        assert transport.calls[0][2]["price"] == price


def test_charges_come_by_the_page_with_the_label_of_their_contract(door_to):
    item = {"type": "gpu", "start": 10.0, "end": 20.0, "amount": 1.5}
    result = {
        "start": 10.0,
        "end": 30.0,
        "source": "instance-7",
        "amount": 1.75,
        "metadata": {"label": "p/s/r/n"},
        "items": [item, {**item, "type": "disk", "amount": 0.25}],
    }
    bare = {"start": 40.0, "end": None, "type": "volume", "source": "volume-3", "amount": 0.1}
    api, transport, clock = door_to(
        (200, {"success": True, "next_token": "1", "results": [result]}),
        (200, {"success": True, "next_token": None, "results": [bare]}),
    )
    charges = api.charges(5.5, 99.0)
    assert [(one.source, one.label, one.kind, one.dollars) for one in charges] == [
        ("instance-7", "p/s/r/n", "gpu", 1.5),
        ("instance-7", "p/s/r/n", "disk", 0.25),
        ("volume-3", "", "volume", 0.1),
    ]
    assert (charges[2].since, charges[2].until) == (40.0, 40.0)
    first, second = (query for _, _, query in transport.calls)
    assert first["select_filters"] == {"day": {"gte": 5, "lte": 99}}
    assert (first["limit"], second["after_token"]) == (500, "1")
    assert clock.passed >= INTERVALS["charges"]
