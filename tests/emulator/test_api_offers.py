from __future__ import annotations

from typing import Any

import pytest

from tests.helpers.emulator_world import H200, IMAGE, KEY, World, make_world

RECIPE = {
    "verified": {"eq": True},
    "external": {"eq": False},
    "rentable": {"eq": True},
    "gpu_name": {"eq": "H200"},
    "num_gpus": {"eq": "2"},
    "direct_port_count": {"gte": "1"},
    "disk_space": {"gte": "500"},
    "cuda_max_good": {"gte": "12.2"},
    "order": [["dph_total", "asc"]],
    "type": "on-demand",
    "limit": 20,
    "allocated_storage": 500.0,
}


def test_the_recipes_search(world: World) -> None:
    answer = world.call("POST", "/api/v0/bundles/", RECIPE)
    assert answer.headers["content-type"] == "application/json"
    offers = answer.json()["offers"]
    assert len(offers) >= 3
    prices = [one["dph_total"] for one in offers]
    assert prices == sorted(prices)
    for one in offers:
        assert (one["gpu_name"], one["num_gpus"], one["verification"]) == ("H200", 2, "verified")
        assert one["disk_space"] >= 500
        assert one["dph_total"] == pytest.approx(one["dph_base"] + 500 * one["storage_cost"] / 720)


def test_both_searches_say_the_same(world: World) -> None:
    body = {"select_cols": ["*"], "q": RECIPE}
    old = world.ask("POST", "/api/v0/bundles", RECIPE)
    assert world.ask("PUT", "/api/v0/search/asks/", body) == old
    narrow = world.ask("PUT", "/api/v0/search/asks", {**body, "select_cols": ["id", "dph_total"]})
    assert set(narrow["offers"][0]) == {"id", "dph_total"}


def test_no_more_than_64_and_no_more_than_asked(world: World) -> None:
    assert len(world.ask("POST", "/api/v0/bundles/", {"limit": 1000})["offers"]) == 64
    assert len(world.ask("POST", "/api/v0/bundles/", {"limit": 3})["offers"]) == 3


def test_id_matches_nothing_and_ask_contract_id_does(world: World) -> None:
    number = world.offers()[0]["id"]
    assert world.offers(id={"eq": number}) == []
    assert len(world.offers(ask_contract_id={"eq": str(number)})) == 1


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"num_gpus": {"like": 2}}, "like is not a valid search op"),
        ({"nonsense": {"eq": 1}}, "nonsense"),
        ({"type": "gift"}, "gift"),
        ({"limit": "few"}, "few"),
    ],
)
def test_what_is_no_search(world: World, body: dict[str, Any], named: str) -> None:
    answer = world.call("POST", "/api/v0/bundles/", body)
    assert answer.status_code == 400
    assert answer.json()["error"] == "invalid_request"
    assert named in answer.json()["msg"]


def test_a_search_needs_no_key(world: World) -> None:
    """Section 5 of marketplace-facts.md; a key that is there is looked at."""
    assert world.ask("POST", "/api/v0/bundles/", H200, key=None)["offers"] == world.offers()
    wrong = world.call("POST", "/api/v0/bundles/", H200, key=f"{KEY}0")
    assert (wrong.status_code, wrong.json()["error"]) == (404, "auth_error")
    assert world.call("PUT", "/api/v0/asks/1/", {}, key=None).status_code == 403


def test_the_memory_of_an_offer_is_the_whole_machines(world: World) -> None:
    """Section 6 of marketplace-facts.md: the same on each slice; the cores tell the share."""
    machine = next(one for one in world.offers() if one["gpu_frac"] < 1)["machine_id"]
    every = {"machine_id": {"eq": machine}, "num_gpus": {"gte": 1}}
    slices = world.ask("POST", "/api/v0/bundles/", every)["offers"]
    assert len(slices) > 1
    assert len({one["cpu_ram"] for one in slices}) == 1
    shares = {one["cpu_cores_effective"] / one["cpu_cores"] for one in slices}
    assert shares == {one["gpu_frac"] for one in slices}


def test_rented_includes_and_excludes_nothing(world: World) -> None:
    """Section 13 of marketplace-facts.md."""
    assert world.offers(rented={"eq": True}) == world.offers()
    assert world.offers(rented={"eq": "true"}) == world.offers()
    assert world.offers(rented={"eq": False}) == world.offers()


def test_a_drivers_version_is_no_number(world: World) -> None:
    """Section 13: as it is written, or as the official client sends it."""
    every = world.offers()
    newer = world.offers(driver_version={"gte": "580.95.05"})
    assert 0 < len(newer) < len(every)
    assert all(one["driver_vers"] >= 580095005 for one in newer)
    assert world.offers(driver_version={"gte": 580095005}) == newer
    exact = world.offers(driver_version={"in": ["580.95.05", "570.124.04"]})
    assert {one["driver_version"] for one in exact} <= {"580.95.05", "570.124.04"}
    assert exact


def test_a_search_by_cuda_alone_may_hide_the_big_gpus(world: World) -> None:
    """Section 13, the quirk of 2025, as a fault."""
    cuda = {"cuda_max_good": {"gte": "12.2"}}
    world.ask("POST", "/emulator/faults", {"name": "hopper_hidden", "next": 1})
    assert world.offers(**cuda, compute_cap={"gte": 500})
    assert world.offers(**cuda) == []
    assert world.offers(**cuda)


def test_a_market_lists_other_offers_from_second_to_second() -> None:
    """Section 13: what was found may be gone when it is rented, without any fault."""
    world = make_world(flickers=True)
    seen: list[set[int]] = []
    for _ in range(30):
        seen.append({one["id"] for one in world.offers()})
        world.pass_time(1)
    assert len({frozenset(one) for one in seen}) > 10
    ever = set.union(*seen)
    assert all(0.6 * len(ever) < len(one) <= len(ever) for one in seen)
    gone = sorted(ever - {one["id"] for one in world.offers()})
    assert gone
    answer = world.call("PUT", f"/api/v0/asks/{gone[0]}/", {"image": IMAGE, "disk": 10})
    assert "no_such_ask" in answer.json()["msg"]


def test_renting_consumes_the_offer(world: World) -> None:
    offer = world.offers()[0]
    body = {"image": IMAGE, "disk": 100, "label": "mine"}
    answer = world.ask("PUT", f"/api/v0/asks/{offer['id']}/", body)
    assert answer["success"] is True
    assert answer["instance_api_key"].startswith("emulator-")
    assert len(answer["instance_api_key"]) == 64
    again = world.call("PUT", f"/api/v0/asks/{offer['id']}/", body)
    assert again.status_code == 404
    assert again.json()["error"] == "invalid_args"
    assert "error 404/3603: no_such_ask" in again.json()["msg"]
    left = {one["machine_id"]: one["id"] for one in world.offers()}
    assert left.get(offer["machine_id"]) != offer["id"]


def test_the_gpus_of_a_machine_run_out(world: World) -> None:
    machine = {"machine_id": {"eq": world.offers()[0]["machine_id"]}}
    rented = 0
    while found := world.offers(**machine):
        world.ask("PUT", f"/api/v0/asks/{found[0]['id']}/", {"image": IMAGE, "disk": 10})
        rented += 1
    assert 1 <= rented <= 4
    full = world.ask("POST", "/api/v0/bundles/", {**machine, "rentable": {"eq": False}})["offers"]
    assert [one["rented"] for one in full] == [True]


def test_more_disk_than_offered_is_refused(world: World) -> None:
    offer = world.offers()[0]["id"]
    answer = world.call("PUT", f"/api/v0/asks/{offer}/", {"image": IMAGE, "disk": 1e6})
    assert answer.status_code == 400
    assert "1000000.0 GB" in answer.json()["msg"]


def bid(world: World, factor: float, **more: Any) -> Any:
    """Bid so much of the least that wins for the first 2x H200."""
    offer = world.ask("POST", "/api/v0/bundles/", {**H200, "type": "bid"})["offers"][0]
    body = {"image": IMAGE, "disk": 100, "price": offer["min_bid"] * factor, **more}
    return world.call("PUT", f"/api/v0/asks/{offer['id']}/", body)


@pytest.mark.parametrize("asked", [{}, {"cancel_unavail": False}])
def test_a_bid_that_is_too_low_leaves_a_stopped_contract_that_is_billed(
    world: World, asked: dict[str, Any]
) -> None:
    """Section 3 of marketplace-facts.md: the default of bids."""
    free = len(world.offers())
    answer = bid(world, 0.9, label="mine", **asked).json()
    assert (answer["success"], answer["error"]) == (False, "no_such_ask")
    assert "instance_api_key" not in answer
    number = answer["new_contract"]
    world.pass_time(2)
    row = world.instance(number)
    assert (row["actual_status"], row["intended_status"], row["label"]) == (
        "exited",
        "stopped",
        "mine",
    )
    assert len(world.offers()) == free
    world.pass_time(3600)
    (entry,) = world.ledger()["contracts"]
    assert set(entry["amounts"]) == {"disk"}
    assert entry["amounts"]["disk"] == pytest.approx(row["storage_total_cost"], rel=1e-2)
    world.ask("DELETE", f"/api/v0/instances/{number}/", {})
    world.pass_time(5)
    assert world.instance(number) is None


def test_a_rental_that_is_to_be_cancelled_leaves_nothing(world: World) -> None:
    """Section 3: 410, and nothing is created."""
    refused = bid(world, 0.9, cancel_unavail=True)
    assert (refused.status_code, refused.json()["error"]) == (410, "no_such_ask")
    assert "new_contract" not in refused.json()
    assert world.ask("GET", "/emulator/status")["contracts"] == []


@pytest.mark.parametrize(
    ("body", "params", "made"),
    [
        ({}, {}, False),
        ({"cancel_unavail": False}, {}, True),
        ({"cancel_unavail": True}, {}, False),
        ({"cancel_unavail": True}, {"cancel_ignored": True}, True),
        ({"target_state": "stopped"}, {}, True),
    ],
)
def test_a_machine_that_cannot_start(
    world: World, body: dict[str, Any], params: dict[str, Any], made: bool
) -> None:
    """Section 3: what is rented on demand and to run is cancelled by default, and a bid is not."""
    world.ask("POST", "/emulator/faults", {"name": "start_refused", "params": params})
    offer = world.offers()[0]["id"]
    answer = world.call("PUT", f"/api/v0/asks/{offer}/", {"image": IMAGE, "disk": 10, **body})
    assert (answer.status_code, answer.json()["success"]) == (200 if made else 410, False)
    assert ("new_contract" in answer.json()) is made
    assert len(world.ask("GET", "/emulator/status")["contracts"]) == made


def test_a_parked_contract_runs_when_it_is_started_and_its_bid_wins(world: World) -> None:
    number = bid(world, 0.9).json()["new_contract"]
    world.pass_time(60)
    path = f"/api/v0/instances/{number}/"
    assert world.ask("PUT", path, {"state": "running"})["success"] is False
    world.ask("PUT", f"/api/v0/instances/bid_price/{number}/", {"client_id": "me", "price": None})
    for _ in range(3):
        world.pass_time(300)
    assert world.instance(number)["actual_status"] == "running"


def test_bids(world: World) -> None:
    offer = world.ask("POST", "/api/v0/bundles/", {**H200, "type": "bid"})["offers"][0]
    price = offer["min_bid"] * 1.1
    number = bid(world, 1.1).json()["new_contract"]
    world.pass_time(600)
    row = world.instance(number)
    assert row["is_bid"] is True
    assert row["dph_base"] == pytest.approx(price)


def test_without_credit_nothing_is_rented() -> None:
    world = make_world(credit=0)
    offer = world.offers()[0]["id"]
    answer = world.call("PUT", f"/api/v0/asks/{offer}/", {"image": IMAGE, "disk": 10})
    assert (answer.status_code, answer.json()["error"]) == (400, "insufficient_credit")


def test_bulk_and_launch(world: World) -> None:
    one, other = (offer["id"] for offer in world.offers()[:2])
    body = {"image": IMAGE, "disk": 10, "ids": [one, other, 1]}
    bulk = world.ask("POST", "/api/v0/asks/bulk/", body)
    assert len(bulk["new_contracts"]) == 2
    assert "no_such_ask" in bulk["results"][2]["msg"]
    launched = world.ask("PUT", "/api/v0/launch_instance/", {"image": IMAGE, "disk": 10, "q": H200})
    assert launched["new_contract"] not in bulk["new_contracts"]


def test_lists_without_a_key(world: World) -> None:
    names = world.ask("GET", "/api/v0/gpu_names/unique/", key=None)["gpu_names"]
    assert "H200" in names
    assert world.ask("GET", "/api/v0/gpu_types/", key=None)["gpu_types"] == names


def test_volume_offers(world: World) -> None:
    body = {
        "verified": {"eq": True},
        "external": {"eq": False},
        "disk_space": {"gte": "100"},
        "order": [["score", "desc"]],
        "allocated_storage": 1.0,
    }
    offers = world.ask("POST", "/api/v0/volumes/search/", body)["offers"]
    assert all(one["disk_space"] >= 100 for one in offers)
    assert offers == sorted(offers, key=lambda one: -one["score"])


def test_a_machine_pulls_an_image_once(world: World) -> None:
    machine = {"machine_id": {"eq": world.offers()[0]["machine_id"]}, "num_gpus": {"eq": 1}}
    pulled = []
    for _ in range(2):
        offer = world.offers(**machine)[0]["id"]
        body = {"image": "mistralllm/vllm-ms4:latest", "disk": 10}
        world.ask("PUT", f"/api/v0/asks/{offer}/", body)
        world.pass_time(600)
        pulled.append(world.ledger()["contracts"][-1]["quantities"].get("bwd", 0))
    assert pulled == pytest.approx([12e9, 0])


def test_a_host_that_cannot_prepare_says_so_in_the_status(world: World) -> None:
    world.host.full = OSError("No space left on device")
    row_of = world.rent()
    world.pass_time(600)
    row = world.instance(row_of)
    assert row["actual_status"] == "created"
    assert "No space left on device" in row["status_msg"]
    world.ask("DELETE", f"/api/v0/instances/{row_of}/", {})
    world.pass_time(5)
    assert world.instance(row_of) is None
