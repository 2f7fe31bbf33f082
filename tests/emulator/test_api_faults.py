from __future__ import annotations

from typing import Any

import pytest

from tests.helpers.emulator_world import H200, IMAGE, World


def arm(world: World, name: str, **body: Any) -> None:
    world.ask("POST", "/emulator/faults", {"name": name, **body})


def try_to_rent(world: World) -> Any:
    offer = world.offers()[0]["id"]
    return world.call(
        "PUT", f"/api/v0/asks/{offer}/", {"image": IMAGE, "disk": 10, "label": "mine"}
    )


@pytest.mark.parametrize(
    ("http", "error"), [("404", "invalid_args"), ("410", "no_such_ask"), ("400", "no_such_ask")]
)
def test_offer_taken(world: World, http: str, error: str) -> None:
    taken = world.offers()[0]["id"]
    arm(world, "offer_taken", params={"http": http})
    answer = try_to_rent(world)
    assert (answer.status_code, answer.json()["error"]) == (int(http), error)
    assert "no_such_ask" in answer.json()["msg"]
    assert taken not in [one["id"] for one in world.offers()]
    assert try_to_rent(world).status_code == 200


def test_lost_reply_rents_all_the_same(world: World) -> None:
    arm(world, "lost_reply")
    assert try_to_rent(world).status_code == 503
    world.pass_time(2)
    query = {"select_filters": '{"label": {"eq": "mine"}}'}
    assert world.ask("GET", "/api/v1/instances/", params=query)["instances_found"] == 1
    note = world.ask("GET", "/emulator/requests")["requests"]
    assert [one["note"] for one in note if one["path"].startswith("/api/v0/asks")] == ["lost_reply"]


def test_lost_reply_of_a_destroy(world: World) -> None:
    number = world.rent_running()
    arm(world, "lost_reply", params={"on": "destroy", "how": "timeout", "seconds": "0"})
    assert world.call("DELETE", f"/api/v0/instances/{number}/", {}).status_code == 503
    world.pass_time(5)
    assert world.instance(number) is None


@pytest.mark.parametrize(
    ("params", "body", "header"),
    [
        ({}, "API requests too frequent", None),
        ({"shape": "detail"}, '"detail"', None),
        ({"shape": "rate_limit", "retry_after": "2"}, "rate_limit_exceeded", "Retry-After"),
        ({"shape": "quota"}, "search_quota_exceeded", "X-RateLimit-Reset"),
        ({"shape": "budget"}, "HTTPTooManyRequests", "X-RateLimit-Reset"),
        ({"shape": "budget"}, '"retry_after":10,"limit":5.0,"remaining":0', "Retry-After"),
    ],
)
def test_rate_limited(world: World, params: dict[str, str], body: str, header: str | None) -> None:
    arm(world, "rate_limited", params=params)
    answer = world.call("POST", "/api/v0/bundles/", H200)
    assert answer.status_code == 429
    assert body in answer.text
    assert header is None or int(answer.headers[header]) > 0
    assert world.call("POST", "/api/v0/bundles/", H200).status_code == 200


def test_failures_before_the_act(world: World) -> None:
    arm(world, "api_5xx", params={"code": "502", "route": "/asks/"})
    assert try_to_rent(world).status_code == 502
    world.pass_time(2)
    assert world.ask("GET", "/api/v1/instances/")["total_instances"] == 0
    arm(world, "api_timeout", params={"seconds": "0"})
    assert world.call("GET", "/api/v1/instances/").status_code == 504
    arm(world, "api_410")
    assert world.call("GET", "/api/v0/users/current").status_code == 200
    gone = world.call("GET", "/api/v1/instances/")
    assert (gone.status_code, gone.json()["error"]) == (410, "deprecated_endpoint")


def test_a_good_key_is_called_unknown(world: World) -> None:
    number = world.rent_running()
    arm(world, "key_unknown_404", params={"method": "GET"})
    answer = world.call("GET", f"/api/v0/instances/{number}/")
    assert (answer.status_code, answer.json()["error"]) == (404, "auth_error")
    assert world.instance(number)["id"] == number


def test_null_once(world: World) -> None:
    number = world.rent_running()
    arm(world, "instance_null_once")
    assert world.instance(number) is None
    assert world.instance(number)["id"] == number


def test_the_single_get_has_ports_in_three_forms(world: World) -> None:
    """Section 12 of marketplace-facts.md: a conflict; the list has Docker's form alone."""
    number = world.rent_running()
    docker = world.instance(number)["ports"]
    numbers = sorted(int(docker[name][0]["HostPort"]) for name in ("22/tcp", "8000/tcp"))
    arm(world, "ports_of_one")
    assert world.instance(number)["ports"] == numbers
    arm(world, "ports_of_one", params={"form": "none"})
    assert world.instance(number)["ports"] is None
    arm(world, "ports_of_one")
    assert world.ask("GET", "/api/v1/instances/")["instances"][0]["ports"] == docker


def test_destroy_lies(world: World) -> None:
    number = world.rent_running()
    arm(world, "destroy_lies")
    assert world.ask("DELETE", f"/api/v0/instances/{number}/", {})["success"] is True
    world.pass_time(60)
    assert world.instance(number)["actual_status"] == "running"
    world.ask("DELETE", f"/api/v0/instances/{number}/", {})
    world.pass_time(60)
    assert world.instance(number) is None


def test_no_credit(world: World) -> None:
    arm(world, "no_credit")
    answer = try_to_rent(world)
    assert (answer.status_code, answer.json()["error"]) == (400, "insufficient_credit")
    assert world.ask("GET", "/api/v0/users/current")["credit"] == 100


@pytest.mark.parametrize(
    ("name", "params", "status", "text"),
    [
        ("stuck_loading", {}, "loading", "Pulling"),
        ("fatal_status", {}, "created", "CDI"),
        ("fatal_status", {"status": "exited", "msg": "no space left on device"}, "exited", "space"),
        ("image_denied", {}, "created", "pull access denied"),
    ],
)
def test_boots_that_fail(
    world: World, name: str, params: dict[str, str], status: str, text: str
) -> None:
    arm(world, name, params=params)
    number = world.rent()
    world.pass_time(3600)
    row = world.instance(number)
    assert row["actual_status"] == status
    assert text in row["status_msg"]
    assert row["ports"] == {}


@pytest.mark.parametrize(("params", "seconds"), [({}, 600), ({"seconds": "60"}, 60)])
def test_a_pull_takes_as_long_as_is_said(
    world: World, params: dict[str, str], seconds: int
) -> None:
    arm(world, "pull_takes", params=params)
    number = world.rent()
    world.pass_time(seconds - 5)
    assert world.instance(number)["actual_status"] == "loading"
    world.pass_time(60)
    assert world.instance(number)["actual_status"] == "running"


def test_ports_missing(world: World) -> None:
    arm(world, "ports_missing")
    row = world.instance(world.rent_running())
    assert (row["actual_status"], row["ports"]) == ("running", {})


def test_host_faults_are_the_next_instances(world: World) -> None:
    arm(world, "driver_old", params={"version": "535.1.2"}, next=2)
    arm(world, "download_slow", machine=world.market.machines()[-1].id)
    world.rent()
    world.rent()
    world.rent_running()
    faults = [one["faults"] for one in world.ask("GET", "/emulator/status")["contracts"]]
    assert faults == [{"driver_old": {"version": "535.1.2"}}] * 2 + [{}]


def states(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in STATES)


STATES = ("actual_status", "intended_status", "cur_state", "next_state")


def test_outbid_and_winning_again(world: World) -> None:
    """Section 1: states and message as measured; it runs again when its bid wins again."""
    offer = world.ask("POST", "/api/v0/bundles/", {**H200, "type": "bid"})["offers"][0]
    price = offer["min_bid"] * 1.2
    body = {"image": IMAGE, "disk": 10, "price": price}
    number = world.ask("PUT", f"/api/v0/asks/{offer['id']}/", body)["new_contract"]
    demand = world.rent_running()
    said = world.instance(number)["status_msg"]
    arm(world, "outbid")
    world.pass_time(1)
    world.pass_time(3)
    row = world.instance(number)
    assert states(row) == ("exited", "stopped", "stopped", "stopped")
    assert (row["status_msg"], row["dph_base"]) == (said, pytest.approx(price))
    assert row["min_bid"] == pytest.approx(price * 1.25)
    assert world.instance(demand)["actual_status"] == "running"
    world.pass_time(60)
    assert world.instance(number)["actual_status"] == "exited"
    path = f"/api/v0/instances/bid_price/{number}/"
    assert world.call("PUT", path, {"price": 1000}).status_code == 400
    world.ask("PUT", path, {"client_id": "me", "price": None})
    world.pass_time(1)
    world.pass_time(60)
    assert world.instance(number)["actual_status"] == "running"
    assert world.call("PUT", f"/api/v0/instances/bid_price/{demand}/", {}).status_code == 400


def test_outbid_in_the_older_states(world: World) -> None:
    """Section 1, the switch."""
    number = bid_running(world)
    arm(world, "outbid", params={"older": True})
    world.pass_time(1)
    assert states(world.instance(number)) == ("stopped", "running", "stopped", "running")


def test_stopped_by_hand_reads_like_outbid_but_for_the_bid_that_wins(world: World) -> None:
    """Sections 1 and 2: what its owner stopped is `exited` and stays so until it is started."""
    number = bid_running(world)
    world.ask("PUT", f"/api/v0/instances/{number}/", {"state": "stopped"})
    world.pass_time(60)
    row = world.instance(number)
    assert states(row) == ("exited", "stopped", "stopped", "stopped")
    assert row["dph_base"] >= row["min_bid"]
    world.pass_time(3600)
    assert world.instance(number)["actual_status"] == "exited"


def test_a_container_that_exits(world: World) -> None:
    """Section 1: neither stopped nor to be stopped, and back after its time."""
    number = world.rent_running()
    arm(world, "container_exits", params={"seconds": "300"})
    world.pass_time(1)
    row = world.instance(number)
    assert (states(row), row["ports"]) == (("exited", "running", "running", "running"), {})
    world.pass_time(301)
    assert world.instance(number)["actual_status"] == "running"


def bid_running(world: World) -> int:
    """Rent the first interruptible 2x H200 and let it run."""
    offer = world.ask("POST", "/api/v0/bundles/", {**H200, "type": "bid"})["offers"][0]
    body = {"image": IMAGE, "disk": 10, "price": offer["min_bid"] * 1.2}
    number: int = world.ask("PUT", f"/api/v0/asks/{offer['id']}/", body)["new_contract"]
    world.pass_time(600)
    return number


def test_host_offline(world: World) -> None:
    number = world.rent_running()
    arm(world, "host_offline", params={"id": str(number), "seconds": "3600"})
    world.pass_time(1)
    assert world.instance(number)["actual_status"] == "offline"
    assert world.ledger()["dollars_per_hour"] == 0
    world.pass_time(3601)
    assert world.instance(number)["actual_status"] == "running"
    assert world.host.did.count(("start", number)) == 2


def test_contract_ends(world: World) -> None:
    number = world.rent_running()
    arm(world, "contract_ends", params={"seconds": "100"})
    world.pass_time(1)
    row = world.instance(number)
    assert row["end_date"] == pytest.approx(world.market.clock.now() + 100)
    world.pass_time(200)
    assert world.instance(number)["actual_status"] == "exited"


def test_price_raised(world: World) -> None:
    number = world.rent_running()
    old = world.instance(number)["dph_base"]
    arm(world, "price_raised", params={"factor": "2"}, next=2)
    world.pass_time(1)
    world.pass_time(1)
    path = "/api/v0/instances/pending-price-increases/"
    pending = world.ask("GET", path)
    assert pending["count"] == 2
    row, other = pending["pending_price_increases"]
    assert row["new_gpu_costpersec"] * 3600 == pytest.approx(2 * old)
    accept = {"pending_price_increase_id": row["pending_price_increase_id"]}
    answer = world.ask("PUT", "/api/v0/instances/accept-price-increase/", accept)
    assert answer["contract_id"] == number
    assert world.instance(number)["dph_base"] == pytest.approx(2 * old)
    again = world.call("PUT", "/api/v0/instances/accept-price-increase/", accept)
    assert (again.status_code, again.json()["error"]) == (404, "no_pending_price_increase")
    reject = {"pending_price_increase_id": other["pending_price_increase_id"]}
    world.ask("PUT", "/api/v0/instances/reject-price-increase/", reject)
    assert world.ask("GET", path)["count"] == 0
    more = {**reject, "host_id": 1}
    assert world.call("PUT", "/api/v0/instances/reject-price-increase/", more).status_code == 400


def test_admin_lists_arms_and_clears(world: World) -> None:
    arm(world, "outbid", next=3)
    shown = world.ask("GET", "/emulator/faults", key=None)
    assert [(one["name"], one["left"]) for one in shown["armed"]] == [("outbid", 3)]
    assert "offer_taken" in [one["name"] for one in shown["known"]]
    assert world.ask("DELETE", "/emulator/faults")["cleared"] == 1
    refused = world.call("POST", "/emulator/faults", {"name": "nonsense"})
    assert refused.status_code == 400
    assert "nonsense" in refused.json()["msg"]


def test_admin_arms_a_scenario_whole_or_not_at_all(world: World) -> None:
    machine = world.offers()[0]["machine_id"]
    scenario = [
        {"name": "offer_taken", "next": 2},
        {"name": "wrong_model", "machine": machine, "params": {"keeps_name": True}},
    ]
    told = world.ask("POST", "/emulator/faults", {"faults": scenario})["armed"]
    assert [(one["name"], one["left"], one["machine"], one["params"]) for one in told] == [
        ("offer_taken", 2, None, {}),
        ("wrong_model", 1, machine, {"keeps_name": "true"}),
    ]
    for wrong, named in (
        ({"name": "nonsense"}, "nonsense"),
        ({"name": "driver_old", "machine": 5}, "machine 5"),
        ({"fault": "driver_old"}, "a fault has name"),
        ("driver_old", "a fault has name"),
    ):
        refused = world.call("POST", "/emulator/faults", {"faults": [scenario[0], wrong]})
        assert refused.status_code == 400
        assert named in refused.json()["msg"]
    assert len(world.ask("GET", "/emulator/faults")["armed"]) == 2


def test_the_ledger_says_from_when_to_when(world: World) -> None:
    number = world.rent_running()
    rented = world.instance(number)["start_date"]
    world.pass_time(100)
    world.ask("DELETE", f"/api/v0/instances/{number}/", {})
    world.pass_time(100)
    (row,) = world.ledger()["contracts"]
    assert row["alive"] is False
    assert row["since"] == pytest.approx(rented, abs=1)
    assert 700 <= row["until"] - row["since"] < 720


def test_admin_reset_begins_anew(world: World) -> None:
    number = world.rent_running()
    world.ask("POST", "/emulator/reset", {"credit": 7})
    status = world.ask("GET", "/emulator/status", key=None)
    assert (status["contracts"], status["credit"], status["spent"]) == ([], 7, 0)
    assert ("remove", number) in world.host.did
    assert world.rent() > number


def test_admin_requests_say_what_wrote(world: World) -> None:
    world.offers()
    world.rent(env={"HF_TOKEN": "sentinel", "-p 8000:8000": "1"})
    rows = world.ask("GET", "/emulator/requests")["requests"]
    seen = [(one["n"], one["method"], one["path"], one["writes"]) for one in rows]
    assert [one[0] for one in seen] == [1, 2, 3]
    assert seen[0][1:] == ("POST", "/api/v0/bundles/", False)
    assert seen[2][1] == "PUT"
    assert seen[2][3] is True
    assert rows[2]["body"]["env"] == {"HF_TOKEN": "********", "-p 8000:8000": "1"}
    after = world.ask("GET", "/emulator/requests?after=2")["requests"]
    assert [one["n"] for one in after] == [3]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("clock/advance", {"seconds": -1}),
        ("clock/advance", {"seconds": "long"}),
        ("credit", {"set": "much"}),
        ("faults", {"name": "outbid", "next": "often"}),
    ],
)
def test_admin_refuses_what_it_cannot_read(world: World, path: str, body: Any) -> None:
    assert world.call("POST", f"/emulator/{path}", body).status_code == 400
