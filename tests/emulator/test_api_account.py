from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from components.machine.ssh_library import asyncssh
from emulator.keys import instance_key
from tests.helpers.emulator_world import BIRTH, KEY, World, make_world

PUBLIC = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()


@pytest.mark.parametrize(
    ("key", "status", "msg"),
    [
        (None, 403, "requires login"),
        ("", 403, "requires login"),
        ("emulator-unknown", 404, "Invalid user key"),
        ("0123456789abcdef" * 4, 404, "do not send a real key"),
    ],
)
def test_who_is_refused(world: World, key: str | None, status: int, msg: str) -> None:
    answer = world.call("GET", "/api/v0/users/current", key=key)
    assert answer.status_code == status
    body = answer.json()
    assert (body["success"], body["error"]) == (False, "auth_error")
    assert msg in body["msg"]


def test_a_real_key_is_neither_answered_nor_kept(world: World) -> None:
    real = "deadbeef" * 8
    answer = world.call("GET", f"/api/v0/users/current?api_key={real}", key=None)
    assert answer.status_code == 404
    assert real not in answer.text
    assert real not in world.call("GET", "/emulator/requests").text


def test_the_key_may_come_in_the_query(world: World) -> None:
    answer = world.call("GET", f"/api/v0/users/current/?api_key={KEY}", key=None)
    assert answer.status_code == 200
    assert KEY not in world.call("GET", "/emulator/requests").text


def test_an_instances_key_is_for_that_instance(world: World) -> None:
    mine, other = world.rent(), world.rent_running()
    key = instance_key(KEY, mine)
    assert world.ask("GET", f"/api/v0/instances/{mine}/", key=key)["instances"]["id"] == mine
    for method in ("GET", "DELETE"):
        refused = world.call(method, f"/api/v0/instances/{other}/", key=key)
        assert (refused.status_code, refused.json()["error"]) == (403, "not_authorized")
    page = world.ask("GET", "/api/v1/instances/", key=key)
    assert [one["id"] for one in page["instances"]] == [mine]
    for method, path in (
        ("GET", "/api/v0/users/current"),
        ("PUT", "/api/v0/asks/1/"),
        ("PUT", f"/api/v0/instances/bid_price/{other}/"),
        ("DELETE", "/api/v0/instances/"),
    ):
        assert world.call(method, path, {}, key=key).status_code == 403
    world.ask("DELETE", f"/api/v0/instances/{mine}/", {}, key=key)
    world.pass_time(5)
    assert world.call("GET", f"/api/v0/instances/{mine}/", key=key).status_code == 404


def test_keys_with_fewer_rights(world: World) -> None:
    body = {"name": "k", "permissions": {"api": {"misc": {}, "instance_read": {}}}}
    made = world.ask("POST", "/api/v0/auth/apikeys/", body)
    key = made["key"]
    assert world.ask("POST", "/api/v0/bundles/", {}, key=key)["offers"]
    assert world.call("GET", "/api/v1/instances/", key=key).status_code == 200
    # Section 14 of marketplace-facts.md.
    refused = world.call("PUT", "/api/v0/asks/1/", {}, key=key)
    assert refused.status_code == 401
    assert "lacks the instance_write route access" in refused.json()["msg"]
    listed = world.call("GET", "/api/v0/auth/apikeys/")
    assert key not in listed.text
    assert [one["name"] for one in listed.json()["apikeys"]] == ["k"]
    assert world.ask("GET", f"/api/v0/auth/apikeys/{made['id']}/")["permissions"]
    world.ask("DELETE", f"/api/v0/auth/apikeys/{made['id']}/", {})
    assert world.call("POST", "/api/v0/bundles/", {}, key=key).status_code == 404
    wrong = {"name": "k", "permissions": {"api": {"everything": {}}}}
    assert world.call("POST", "/api/v0/auth/apikeys/", wrong).status_code == 400


def test_no_key_is_stored_in_clear(world: World) -> None:
    body = {"name": "k", "permissions": {"api": {"misc": {}}}}
    key = world.ask("POST", "/api/v0/auth/apikeys/", body)["key"]
    number = world.rent()
    kept = json.dumps(
        [
            world.market.store.documents(kind)
            for kind in ("api_key", "contract", "template", "secret")
        ]
    ) + json.dumps(world.market.store.requests(0))
    for secret in (key, KEY, instance_key(KEY, number)):
        assert secret not in kept


def test_user(world: World) -> None:
    user = world.ask("GET", "/api/v0/users/current")
    assert user["credit"] == 100.0
    assert user["host_agreement_accepted"] == 0
    assert "api_key" not in user


def test_account_ssh_keys_go_into_new_instances(world: World) -> None:
    assert world.call("GET", "/api/v0/ssh/").status_code == 404
    made = world.ask("POST", "/api/v0/ssh/", {"ssh_key": PUBLIC})["key"]
    assert world.ask("GET", "/api/v0/ssh/") == [made]
    number = world.rent_running()
    keys = world.ask("GET", f"/api/v0/instances/{number}/ssh/")
    assert [one["public_key"] for one in keys] == [PUBLIC]
    assert world.call("POST", "/api/v0/ssh/", {"ssh_key": PUBLIC}).status_code == 400
    assert world.call("POST", "/api/v0/ssh/", {"ssh_key": "~/.ssh/id.pub"}).status_code == 400
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()
    world.ask("PUT", f"/api/v0/ssh/{made['id']}/", {"ssh_key": other})
    assert world.ask("GET", "/api/v0/ssh/")[0]["public_key"] == other
    world.ask("DELETE", f"/api/v0/ssh/{made['id']}/", {})
    assert world.call("DELETE", f"/api/v0/ssh/{made['id']}/", {}).status_code == 404


def test_secrets_go_in_and_do_not_come_out(world: World) -> None:
    path = "/api/v0/secrets/"
    world.ask("POST", path, {"key": "hf_token", "value": "hf_sentinel"})
    shown = world.call("GET", path)
    assert shown.json()["secrets"] == {"HF_TOKEN": "********"}
    again = world.call("POST", path, {"key": "HF_TOKEN", "value": "x"})
    assert again.json()["error"] == "existing_key"
    world.ask("PUT", path, {"key": "HF_TOKEN", "value": "hf_other"})
    world.rent_running()
    assert world.host.secrets == {"HF_TOKEN": "hf_other"}
    world.ask("DELETE", path, {"key": "HF_TOKEN"})
    assert world.call("DELETE", path, {"key": "HF_TOKEN"}).json()["error"] == "nonexistent_key"
    assert world.call("POST", path, {"key": "X"}).json()["error"] == "missing_input"
    assert "hf_other" not in world.call("GET", "/emulator/requests").text


def days(since: float, until: float, column: str = "day") -> dict[str, Any]:
    return {"select_filters": json.dumps({column: {"gte": since, "lte": until}})}


def test_charges_of_a_contract(world: World) -> None:
    """Section 7 of marketplace-facts.md: the documented shape."""
    number = world.rent_running(label="mine")
    world.pass_time(3600)
    answer = world.ask("GET", "/api/v0/charges/", params=days(BIRTH - 1, BIRTH + 10_000))
    (row,) = answer["results"]
    assert (row["source"], row["metadata"]) == (f"instance-{number}", {"label": "mine"})
    assert {item["type"] for item in row["items"]} == {"gpu", "disk", "bwd"}
    assert row["amount"] == pytest.approx(sum(item["amount"] for item in row["items"]), abs=2e-3)
    assert row["amount"] == round(world.ledger()["total"], 3)
    assert {type(row["start"]), type(row["end"])} == {int}
    assert {item["source"] for item in row["items"]} == {None}
    for filters in (None, {"select_filters": '{"day": {"gte": 1}}'}):
        refused = world.call("GET", "/api/v0/charges/", params=filters)
        assert refused.status_code == 400
        assert refused.json() == {
            "success": False,
            "msg": "Must provide both 'day' gte and lte filters for instance charges",
        }
    past = world.ask("GET", "/api/v0/charges/", params=days(BIRTH - 9e6, BIRTH - 8e6))
    assert (past["total"], past["next_token"]) == (0, None)


def test_charges_come_by_the_contract_and_outlive_it(world: World) -> None:
    """Section 7: one row for all its days."""
    number = world.rent_running(label="p/s/r/n")
    world.ask("POST", "/emulator/clock/advance", {"seconds": 86_400})
    world.ask("DELETE", f"/api/v0/instances/{number}/", {})
    world.pass_time(5)
    query = days(BIRTH - 1, BIRTH + 200_000)
    (row,) = world.ask("GET", "/api/v0/charges/", params=query)["results"]
    assert row["metadata"] == {"label": "p/s/r/n"}
    assert row["start"] // 86_400 == BIRTH // 86_400
    assert (row["end"] - 1) // 86_400 == BIRTH // 86_400 + 1
    begun = int(json.loads(query["select_filters"])["day"]["gte"])
    kinds = {"day": {"gte": begun, "lte": begun + 200_000}, "type": {"in": ["volume"]}}
    only = {"select_filters": json.dumps(kinds)}
    assert world.ask("GET", "/api/v0/charges/", params=only)["results"] == []


def test_a_range_to_the_clients_present_reaches_to_the_emulated_one(world: World) -> None:
    world.ask("POST", "/emulator/clock/advance", {"seconds": 10 * 86_400})
    world.rent_running()
    now = world.time.epoch()
    answer = world.ask("GET", "/api/v0/charges/", params=days(now - 7 * 86_400, now))
    assert answer["total"] == 1


def test_charges_by_the_page(world: World) -> None:
    world.rent()
    world.rent_running()
    query = {**days(BIRTH - 1, BIRTH + 10_000), "limit": "1"}
    first = world.ask("GET", "/api/v0/charges/", params=query)
    rest = world.ask(
        "GET", "/api/v0/charges/", params={**query, "after_token": first["next_token"]}
    )
    assert (first["total"], first["count"], rest["next_token"]) == (2, 1, None)
    # Section 7: the latest come first, unless it is asked otherwise.
    assert first["results"][0]["start"] >= rest["results"][0]["start"]
    assert first["results"][0]["source"] > rest["results"][0]["source"]
    token = json.loads(base64.b64decode(first["next_token"]))
    assert token == {"values": {"id": int(first["results"][0]["source"].partition("-")[2])}}
    for wrong in ("1", "rubbish", base64.b64encode(b'{"values": {"id": 7}}').decode()):
        refused = world.call("GET", "/api/v0/charges/", params={**query, "after_token": wrong})
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_token")


def test_invoices(world: World) -> None:
    assert world.ask("GET", "/api/v1/invoices/")["success"] is False
    answer = world.ask("GET", "/api/v1/invoices/", params=days(BIRTH - 9, BIRTH + 9, "when"))
    assert [row["amount"] for row in answer["results"]] == [100.0]


def test_templates(world: World) -> None:
    body = {
        "name": "t1",
        "image": "vllm/vllm-openai",
        "tag": "v1",
        "env": "-p 8000:8000 -e A=b",
        "onstart": "x",
        "runtype": "ssh",
        "recommended_disk_space": "100",
    }
    made = world.ask("POST", "/api/v0/template/", body)["template"]
    query = {"select_filters": json.dumps({"hash_id": {"eq": made["hash_id"]}})}
    found = world.ask("GET", "/api/v0/template/", params=query)
    assert [one["id"] for one in found["templates"]] == [made["id"]]
    offer = world.offers()[0]["id"]
    rent = {"image": None, "env": {}, "disk": None, "template_hash_id": made["hash_id"]}
    number = world.ask("PUT", f"/api/v0/asks/{offer}/", rent)["new_contract"]
    world.pass_time(600)
    row = world.instance(number)
    assert (row["image_uuid"], row["disk_space"]) == ("vllm/vllm-openai:v1", 100)
    assert row["template_hash_id"] == made["hash_id"]
    assert ["A", "b"] in row["extra_env"]
    changed = world.ask("PUT", "/api/v1/template/", {**body, "id": made["id"], "name": "t2"})
    assert changed["template"]["hash_id"] != made["hash_id"]
    gone = world.call("PUT", f"/api/v0/asks/{world.offers()[0]['id']}/", rent)
    assert gone.status_code == 400
    world.ask("DELETE", "/api/v0/template/", {"template_id": made["id"]})
    assert world.call("DELETE", "/api/v0/template/", {"hash_id": "x"}).status_code == 404


def test_volumes_outlive_instances(world: World) -> None:
    offer = world.offers()[0]
    made = world.ask(
        "PUT",
        "/api/v0/volumes/",
        {"size": 200, "id": offer["avail_vol_ask_id"], "name": "weights"},
    )
    volume = int(made["volume_name"].removeprefix("V."))
    body = {
        "image": "a",
        "disk": 10,
        "volume_info": {"volume_id": volume, "mount_path": "/models"},
    }
    number = world.ask("PUT", f"/api/v0/asks/{offer['id']}/", body)["new_contract"]
    world.pass_time(600)
    assert ("mount", volume) in world.host.did
    (row,) = world.ask("GET", "/api/v0/volumes?owner=me&type=all_volume")["volumes"]
    assert (row["id"], row["status"], row["instances"]) == (volume, "in-use", [number])
    page = world.ask("GET", "/api/v1/instances/")
    assert page["instances"][0]["volume_info"][0]["id"] == volume
    path = f"/api/v0/volumes/?id={volume}"
    assert world.call("DELETE", path, {}).json()["error"] == "volume_in_use"
    world.ask("DELETE", f"/api/v0/instances/{number}/", {})
    world.pass_time(5)
    assert world.call("DELETE", path, {}).json()["error"] == "volume_in_use"
    world.pass_time(30)
    assert world.ledger()["dollars_per_hour"] > 0
    world.ask("DELETE", path, {})
    assert world.ledger()["dollars_per_hour"] == 0
    assert world.call("DELETE", path, {}).status_code == 404


def test_a_volume_of_another_machine_is_refused(world: World) -> None:
    one, other = world.offers()[:2]
    made = world.ask("PUT", "/api/v0/volumes/", {"size": 20, "id": one["avail_vol_ask_id"]})
    volume = int(made["volume_name"].removeprefix("V."))
    body = {"image": "a", "disk": 10, "env": {f"-v V.{volume}:/models": "1"}}
    answer = world.call("PUT", f"/api/v0/asks/{other['id']}/", body)
    assert answer.status_code == 400
    assert world.ask("GET", "/emulator/status")["contracts"] == []


def test_rate_limits() -> None:
    world = make_world(throttle=True)
    path = "/api/v0/instances/7/"
    assert world.call("GET", path).status_code == 200
    refused = world.call("GET", path)
    assert refused.status_code == 429
    assert "threshold=2.0" in refused.json()["detail"]
    assert world.call("GET", "/api/v1/instances/").status_code == 200
    world.time.sleep(2)
    assert world.call("GET", path).status_code == 200


def test_the_budget_of_a_key() -> None:
    """Section 8 of marketplace-facts.md: the answer verbatim, and what is counted together."""
    world = make_world(throttle=True)
    paths = ["/api/v0/ssh/", "/api/v0/users/current/", "/api/v1/instances/"]
    paths += ["/api/v0/instances/7/", "/api/v0/auth/apikeys/"]
    assert 429 not in [world.call("GET", path).status_code for path in paths]
    refused = world.call("GET", "/api/v0/instances/count/")
    assert refused.status_code == 429
    assert refused.json() == {
        "error": "HTTPTooManyRequests",
        "msg": "API requests too frequent",
        "retry_after": 10,
        "limit": 5.0,
        "remaining": 0,
    }
    assert refused.headers["retry-after"] == "10"
    assert refused.headers["x-ratelimit-remaining"] == "0"
    by_query = world.call("GET", f"/api/v0/instances/count/?api_key={KEY}", key=None)
    assert by_query.status_code == 200
    assert world.call("GET", "/api/v0/gpu_names/unique/", key=None).status_code == 200
    world.time.sleep(10)
    assert world.call("GET", "/api/v0/instances/count/").status_code == 200


def test_what_is_not_emulated_is_said_in_vasts_shape(world: World) -> None:
    for path in ("/api/v0/endptjobs/", "/nothing"):
        answer = world.call("GET", path)
        assert answer.status_code == 404
        assert answer.json()["success"] is False
        assert path in answer.json()["msg"]


def test_a_body_that_is_not_json(world: World) -> None:
    for path, status in (("/api/v0/bundles/", 400), ("/api/v0/instances/command/7/", 483)):
        method = "POST" if status == 400 else "PUT"
        answer = world.call(method, path, content=b"{")
        assert (answer.status_code, answer.json()["error"]) == (status, "invalid_args")
