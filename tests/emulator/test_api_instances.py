from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest

from emulator.store import Store
from tests.helpers.emulator_world import IMAGE, World, make_world

LIST = "/api/v1/instances/"


def listed(world: World, **query: Any) -> Any:
    return world.ask("GET", LIST, params=query)


def test_boot_as_a_client_sees_it(world: World) -> None:
    number = world.rent(label="a/b/c", onstart="echo hi")
    assert world.instance(number) is None
    world.pass_time(1.5)
    created = world.instance(number)
    assert (created["actual_status"], created["ports"]) == ("created", {})
    assert created["direct_port_start"] == -1
    world.pass_time(3)
    assert world.instance(number)["actual_status"] == "loading"
    world.pass_time(600)
    row = world.instance(number)
    assert [row[name] for name in ("actual_status", "intended_status", "cur_state")] == [
        "running"
    ] * 3
    assert row["status_msg"] == f"success, running {IMAGE}/ssh\n"
    assert row["public_ipaddr"] == "127.0.0.1\n"
    assert set(row["ports"]) == {"22/tcp", "8000/tcp"}
    binding = row["ports"]["8000/tcp"][0]
    assert isinstance(binding["HostPort"], str)
    assert binding["HostIp"] == "0.0.0.0"
    assert row["extra_env"] == [["-p 8000:8000", "1"]]
    assert isinstance(row["start_date"], float)
    assert row["label"] == "a/b/c"
    assert row["image_uuid"] == IMAGE
    assert row["disk_space"] == 100
    assert row["ssh_host"] == "127.0.0.1"
    assert ("start", number) in world.host.did


@pytest.mark.parametrize(
    ("runtype", "ports", "proxied"),
    [
        (None, set(), True),
        ("ssh", set(), True),
        ("ssh_proxy", set(), True),
        ("jupyter", set(), True),
        ("jupyter_proxy ssh_proxy", set(), True),
        ("ssh_direct", {"22/tcp", "8000/tcp"}, True),
        ("ssh_direc ssh_proxy", {"22/tcp", "8000/tcp"}, True),
        ("jupyter_direct", {"22/tcp", "8080/tcp", "8000/tcp"}, True),
        ("jupyter_direc ssh_direc ssh_proxy", {"22/tcp", "8080/tcp", "8000/tcp"}, True),
        ("args", {"8000/tcp"}, False),
    ],
)
def test_ports_of_run_types(
    world: World, runtype: str | None, ports: set[str], proxied: bool
) -> None:
    """Section 9 of marketplace-facts.md: by proxy, or without a run type, nothing is published."""
    row = world.instance(world.rent_running(runtype=runtype))
    assert set(row["ports"]) == ports
    assert (row["ssh_port"] is not None) is proxied


def test_ports_above_70000_have_one_number(world: World) -> None:
    row = world.instance(world.rent_running(env={"-p 70000:70000": "1"}))
    (name,) = set(row["ports"]) - {"22/tcp"}
    assert name == f"{row['ports'][name][0]['HostPort']}/tcp"


def test_billing_of_a_life(world: World) -> None:
    number = world.rent_running()
    row = world.instance(number)
    before = world.ledger()["total"]
    world.pass_time(3600)
    after = world.ledger()
    assert after["total"] - before == pytest.approx(row["dph_total"])
    assert after["dollars_per_hour"] == pytest.approx(row["dph_total"])
    assert after["credit"] == pytest.approx(100 - after["total"])
    world.ask("PUT", f"/api/v0/instances/{number}/", {"state": "stopped"})
    world.pass_time(10)
    assert world.ledger()["dollars_per_hour"] == pytest.approx(row["storage_total_cost"])
    world.ask("DELETE", f"/api/v0/instances/{number}/", {})
    world.pass_time(10)
    ended = world.ledger()
    assert ended["dollars_per_hour"] == 0
    world.pass_time(3600)
    assert world.ledger()["total"] == ended["total"]
    (entry,) = ended["contracts"]
    assert (entry["id"], entry["alive"]) == (number, False)
    assert sum(entry["amounts"].values()) == pytest.approx(ended["total"])


def test_traffic_is_billed_by_the_byte(world: World) -> None:
    number = world.rent_running()
    row = world.instance(number)
    before = world.ledger()["contracts"][0]["amounts"]
    world.host.bytes_down[number] = 120_900_000_000
    world.host.traffic[number] = (1_000_000_000, 2_000_000_000)
    world.pass_time(1)
    after = world.ledger()["contracts"][0]["amounts"]
    assert after["bwd"] - before["bwd"] == pytest.approx(121.9 * row["inet_down_cost"])
    assert after["bwu"] == pytest.approx(2 * row["inet_up_cost"])
    world.pass_time(1)
    assert world.ledger()["contracts"][0]["amounts"]["bwd"] == after["bwd"]


def test_credit_runs_out() -> None:
    world = make_world(credit=5)
    number = world.rent_running()
    world.pass_time(6 * 3600)
    world.pass_time(10)
    row = world.instance(number)
    assert (row["actual_status"], row["intended_status"]) == ("exited", "stopped")
    world.ask("POST", "/emulator/credit", {"add": 100})
    world.ask("PUT", f"/api/v0/instances/{number}/", {"state": "running"})
    world.pass_time(10)
    assert world.instance(number)["actual_status"] == "running"


def test_without_credit_for_two_days_it_is_deleted() -> None:
    world = make_world(credit=1)
    number = world.rent_running()
    for _ in range(60):
        world.pass_time(3600)
    assert world.instance(number) is None


def test_the_list_that_was_withdrawn(world: World) -> None:
    answer = world.call("GET", "/api/v0/instances/")
    assert (answer.status_code, answer.json()["error"]) == (410, "deprecated_endpoint")


def test_pages_of_25(world: World) -> None:
    number = world.rent_running(label="first")
    store = world.market.store
    template = world.market.contract(number)
    many = [{**vars(template), "id": 2000 + extra, "label": "more"} for extra in range(30)]
    for one in many:
        store.save_document("contract", one["id"], one)
    again = make_world(store=store)
    first = listed(again, select_filters={}, limit="100")
    # Section 10 of marketplace-facts.md: found on this page, of all that match.
    assert (first["instances_found"], first["total_instances"]) == (25, 31)
    token = json.loads(base64.b64decode(first["next_token"]))
    assert token == {"values": {"id": first["instances"][-1]["id"]}}
    assert first["label_counts"] == {"first": 1, "more": 30}
    assert len(first["instances"]) == 25
    rest = listed(again, after_token=first["next_token"], limit="25")
    assert len(rest["instances"]) == 6
    assert rest["next_token"] is None
    ids = [one["id"] for one in first["instances"] + rest["instances"]]
    assert ids == sorted(ids)
    assert len(listed(again, limit="0")["instances"]) == 5


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, 2),
        ({"label": {"eq": "one"}}, 1),
        ({"label": {"in": ["one", "two"]}}, 2),
        ({"label": {"eq": "none"}}, 0),
        ({"actual_status": {"eq": "running"}}, 2),
        ({"gpu_name": {"neq": "H200"}}, 0),
    ],
)
def test_filters_of_the_list(world: World, filters: dict[str, Any], found: int) -> None:
    world.rent(label="one")
    world.rent_running(label="two")
    page = listed(world, select_filters=json.dumps(filters))
    assert page["instances_found"] == page["total_instances"] == len(page["instances"]) == found


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ({"select_filters": '{"dph_total": {"lt": 1}}'}, "invalid_request"),
        ({"select_filters": '{"num_gpus": {"eq": 2}}'}, "invalid_request"),
        ({"select_filters": "{"}, "invalid_request"),
        ({"order_by": "[1]"}, "invalid_request"),
        ({"order_by": '[{"col": "dph_total"}]'}, "invalid_request"),
        ({"order_by": '[{"col": "nonsense"}]'}, "invalid_request"),
        ({"after_token": "eyJ2YWx1ZXMiOiB7ImxhYmVsIjogIngifX0="}, "invalid_token"),
        ({"after_token": "rubbish"}, "invalid_token"),
    ],
)
def test_what_is_no_list(world: World, query: dict[str, str], error: str) -> None:
    answer = world.call("GET", LIST, params=query)
    assert (answer.status_code, answer.json()["error"]) == (400, error)


@pytest.mark.parametrize("order", [None, '[{"col": "label", "dir": "desc"}]'])
def test_no_row_is_left_out_where_one_goes_between_two_pages(
    world: World, order: str | None
) -> None:
    """Section 10: a token names a row, not a place."""
    template = vars(world.market.contract(world.rent_running()))
    store = world.market.store
    for extra in range(12):
        row = {**template, "id": 2000 + extra, "label": f"{extra % 3}"}
        store.save_document("contract", 2000 + extra, row)
    again = make_world(store=store)
    query = {"limit": "5", **({"order_by": order} if order else {})}
    whole = [one["id"] for one in listed(again, **{**query, "limit": "25"})["instances"]]
    first = listed(again, **query)
    # The last one that was seen goes, and one that was not.
    for gone in (whole[4], whole[6]):
        again.ask("DELETE", f"/api/v0/instances/{gone}/", {})
    again.pass_time(5)
    seen = [one["id"] for one in first["instances"]]
    token = first["next_token"]
    while token:
        page = listed(again, **query, after_token=token)
        seen += [one["id"] for one in page["instances"]]
        token = page["next_token"]
    assert seen == [one for one in whole if one != whole[6]]


def test_order_and_columns(world: World) -> None:
    one, two = world.rent(), world.rent_running()
    page = listed(world, order_by='[{"col": "id", "dir": "desc"}]', select_cols='["actual_status"]')
    assert page["instances"] == [
        {"id": two, "actual_status": "running"},
        {"id": one, "actual_status": "running"},
    ]


def test_stop_start_and_a_queued_start(world: World) -> None:
    number = world.rent_running()
    path = f"/api/v0/instances/{number}/"
    ports = world.instance(number)["ports"]
    world.ask("PUT", path, {"state": "stopped"})
    world.pass_time(5)
    assert world.instance(number)["ports"] == {}
    machine = {"machine_id": {"eq": world.instance(number)["machine_id"]}}
    others = []
    while found := world.offers(**machine):
        body = {"image": IMAGE, "disk": 10}
        others.append(world.ask("PUT", f"/api/v0/asks/{found[0]['id']}/", body)["new_contract"])
    refused = world.ask("PUT", path, {"state": "running"})
    assert refused["success"] is False
    assert "state change queued" in refused["msg"]
    world.pass_time(60)
    assert world.instance(number)["actual_status"] == "exited"
    world.ask("DELETE", f"/api/v0/instances/{others[0]}/", {})
    for _ in range(3):
        world.pass_time(10)
    row = world.instance(number)
    assert row["actual_status"] == "running"
    assert row["ports"] != ports


@pytest.mark.parametrize("action", ["reboot", "recycle"])
def test_restarts(world: World, action: str) -> None:
    number = world.rent_running()
    world.ask("PUT", f"/api/v0/instances/{action}/{number}/", {})
    assert world.instance(number)["actual_status"] in ("rebooting", "recycling")
    world.pass_time(600)
    assert world.instance(number)["actual_status"] == "running"
    assert world.host.did.count(("start", number)) == 2
    assert (("empty", number) in world.host.did) is (action == "recycle")


def test_bulk_state_and_destroy(world: World) -> None:
    one, two = world.rent(), world.rent_running()
    world.ask("PUT", "/api/v0/instances/", {"state": "stopped", "ids": [one, two]})
    world.pass_time(5)
    assert {world.instance(each)["actual_status"] for each in (one, two)} == {"exited"}
    gone = world.ask("DELETE", "/api/v0/instances/", {"instance_ids": [one, two, 7]})
    assert gone["not_found"] == [7]
    world.pass_time(5)
    assert listed(world)["total_instances"] == 0


def test_destroy_is_asynchronous_and_final(world: World) -> None:
    number = world.rent_running()
    path = f"/api/v0/instances/{number}/"
    assert world.ask("DELETE", path, {})["success"] is True
    assert listed(world)["total_instances"] == 1
    world.pass_time(3)
    assert world.ask("GET", path) == {"instances": None}
    assert listed(world)["total_instances"] == 0
    again = world.call("DELETE", path, {})
    assert (again.status_code, again.json()["error"]) == (404, "no_such_instance")
    assert ("kill", number) in world.host.did
    assert world.host.did[-1] == ("remove", number)


def test_labels(world: World) -> None:
    number = world.rent_running()
    path = f"/api/v0/instances/{number}/"
    world.ask("PUT", path, {"label": "new"})
    assert world.instance(number)["label"] == "new"
    long = world.call("PUT", path, {"label": "x" * 1025})
    assert (long.status_code, long.json()["error"]) == (400, "label_too_long")
    assert world.call("PUT", path, {}).status_code == 400
    assert world.call("PUT", path, {"state": "asleep"}).status_code == 400


def test_update_is_stored_and_applied_by_the_next_start(world: World) -> None:
    number = world.rent_running()
    words = '--a "b c"'  # section 4 of marketplace-facts.md
    body = {"id": number, "image": "b:2", "args": words, "env": {"A": "b"}, "onstart": "echo"}
    row = world.ask("PUT", f"/api/v0/instances/update_template/{number}/", body)["updated_instance"]
    assert (row["image_uuid"], row["image_args"], row["onstart"]) == ("b:2", ["--a", "b c"], "echo")
    assert row["extra_env"] == [["A", "b"]]


def test_logs_come_late_and_without_a_key(world: World) -> None:
    number = world.rent_running()
    world.host.logs[number] = "one\ntwo\nthree\n"
    body = {"tail": "2", "filter": "t"}
    answer = world.ask("PUT", f"/api/v0/instances/request_logs/{number}/", body)
    path = answer["result_url"].removeprefix("http://127.0.0.1:8765")
    fetched = [world.call("GET", path, key=None) for _ in range(3)]
    assert [one.status_code for one in fetched] == [403, 403, 200]
    assert fetched[2].text == "two\nthree\n"
    assert fetched[2].headers["content-type"].startswith("text/plain")
    daemon = world.ask("PUT", f"/api/v0/instances/request_logs/{number}/", {"daemon_logs": "true"})
    path = daemon["result_url"].removeprefix("http://127.0.0.1:8765")
    assert "success, running" in [world.call("GET", path, key=None) for _ in range(3)][2].text
    missing = world.call("PUT", "/api/v0/instances/request_logs/7/", {})
    assert missing.status_code == 404
    assert world.call("GET", "/instance_logs/nothing.log", key=None).status_code == 403


def test_a_log_can_be_late_or_never_there(world: World) -> None:
    for params, texts in (({}, ["", ""]), ({"seconds": "3000"}, ["", "one\n"])):
        world.market.faults.arm("log_late", params=params)
        number = world.rent_running()
        world.host.logs[number] = "one\n"
        for text in texts:
            answer = world.ask("PUT", f"/api/v0/instances/request_logs/{number}/", {})
            path = answer["result_url"].removeprefix("http://127.0.0.1:8765")
            assert [world.call("GET", path, key=None) for _ in range(3)][2].text == text
            world.pass_time(3600)


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("ls -la /root", 200),
        ("du -sh .", 200),
        ("rm file", 200),
        ("cat /root/x", 400),
        ("rm -rf /etc", 400),
        ("rm ../../x", 400),
        ("ls 'unclosed", 400),
        ("ls " + "x" * 600, 400),
    ],
)
def test_execute(world: World, command: str, status: int) -> None:
    number = world.rent_running()
    world.ask("PUT", f"/api/v0/instances/{number}/", {"state": "stopped"})
    world.pass_time(5)
    answer = world.call("PUT", f"/api/v0/instances/command/{number}/", {"command": command})
    assert answer.status_code == status
    assert ("result_url" in answer.json()) is (status == 200)


def test_a_command_is_for_stopped_instances_alone(world: World) -> None:
    """Section 11 of marketplace-facts.md."""
    number = world.rent_running()
    answer = world.call("PUT", f"/api/v0/instances/command/{number}/", {"command": "ls"})
    assert answer.status_code == 400
    assert "use ssh" in answer.json()["msg"]


def test_ssh_keys_of_an_instance(world: World) -> None:
    number = world.rent_running()
    path = f"/api/v0/instances/{number}/ssh/"
    world.ask("POST", path, {"ssh_key": "ssh-ed25519 AAAA one"})
    world.ask("POST", path, {"ssh_key": "ssh-ed25519 BBBB two"})
    assert [one["public_key"][-3:] for one in world.ask("GET", path)] == ["one", "two"]
    world.ask("DELETE", f"{path}1/", {})
    assert [one["public_key"][-3:] for one in world.ask("GET", path)] == ["two"]
    assert world.host.did.count(("authorize", number)) == 3
    assert world.call("DELETE", f"{path}9/", {}).status_code == 404


def test_a_container_that_cannot_start_is_a_failed_one(world: World) -> None:
    world.host.broken = OSError("no free port")
    number = world.rent()
    world.pass_time(600)
    row = world.instance(number)
    assert (row["actual_status"], row["cur_state"]) == ("created", "stopped")
    assert "no free port" in row["status_msg"]


def test_args_containers_end_with_their_main_process(world: World) -> None:
    number = world.rent_running(runtype="args", args=["--model", "x"])
    world.host.alive = False
    world.pass_time(1)
    row = world.instance(number)
    assert (row["actual_status"], row["ports"]) == ("exited", {})
    assert world.ledger()["dollars_per_hour"] == pytest.approx(row["storage_total_cost"])


def test_the_next_process_goes_on_where_the_last_one_ended(world: World) -> None:
    number = world.rent_running(label="kept")
    ports = world.instance(number)["ports"]
    spent = world.ledger()["total"]
    again = make_world(store=world.market.store)
    assert again.market.clock.now() == world.market.clock.now()
    assert again.instance(number)["label"] == "kept"
    assert again.instance(number)["ports"] == ports
    assert again.ledger()["total"] == pytest.approx(spent)
    again.pass_time(60)
    assert again.ledger()["total"] > spent


def test_many_contracts_are_carried_forward_quickly(world: World) -> None:
    number = world.rent_running()
    template = vars(world.market.contract(number))
    store: Store = world.market.store
    for extra in range(200):
        store.save_document("contract", 3000 + extra, {**template, "id": 3000 + extra})
    again = make_world(store=store)
    began = time.perf_counter()
    again.pass_time(1)
    assert time.perf_counter() - began < 2
    assert again.ledger()["contracts"][-1]["id"] == 3199
