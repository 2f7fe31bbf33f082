from __future__ import annotations

import pytest

from emulator.faults import FAULTS, Armed, FaultBook, FaultRequest, Occasion


def book() -> FaultBook:
    told: list[list[Armed]] = []
    return FaultBook([], told.append)


def test_a_fault_strikes_as_often_as_it_was_armed_for() -> None:
    faults = book()
    faults.arm("offer_taken", count=2, params={"http": "410"})
    hits = [faults.strike("offer_taken", Occasion()) for _ in range(3)]
    assert hits == [{"http": "410"}, {"http": "410"}, None]
    assert faults.armed() == []


@pytest.mark.parametrize(
    ("name", "machine", "params", "occasion", "strikes"),
    [
        ("offer_taken", 7, {}, Occasion(machine=8), False),
        ("offer_taken", 7, {}, Occasion(machine=7), True),
        ("rate_limited", None, {"route": "/asks/"}, Occasion(path="/api/v0/bundles"), False),
        ("rate_limited", None, {"route": "/asks/"}, Occasion(path="/api/v0/asks/1"), True),
        ("api_5xx", None, {"method": "delete"}, Occasion(method="GET"), False),
        ("api_5xx", None, {"method": "delete"}, Occasion(method="DELETE"), True),
        ("api_410", None, {}, Occasion(path="/api/v0/bundles"), False),
        ("api_410", None, {}, Occasion(path="/api/v1/instances"), True),
        ("lost_reply", None, {}, Occasion(call="destroy"), False),
        ("lost_reply", None, {}, Occasion(call="create"), True),
        ("lost_reply", None, {"on": "any"}, Occasion(call="destroy"), True),
        ("outbid", None, {"id": "1001"}, Occasion(contract=1002), False),
        ("outbid", None, {"id": "1001"}, Occasion(contract=1001), True),
    ],
)
def test_whom_a_fault_strikes(
    name: str, machine: int | None, params: dict[str, str], occasion: Occasion, strikes: bool
) -> None:
    faults = book()
    faults.arm(name, machine=machine, params=params)
    assert (faults.strike(name, occasion) is not None) is strikes


def test_what_strikes_a_new_contract() -> None:
    faults = book()
    faults.arm("download_slow", params={"mbps": "12.5"})
    faults.arm("gpu_missing", params={"count": "1"}, machine=9)
    faults.arm("api_5xx", params={})
    faults.arm("stuck_loading", params={"msg": "still"})
    assert faults.strike_new(5) == {
        "download_slow": {"mbps": 12.5},
        "stuck_loading": {"msg": "still"},
    }
    assert [one.name for one in faults.armed()] == ["gpu_missing", "api_5xx"]


@pytest.mark.parametrize(
    ("name", "count", "params", "named"),
    [
        ("no_such_thing", 1, {}, "no_such_thing"),
        ("lost_reply", 1, {"colour": "red"}, "colour"),
        ("lost_reply", 0, {}, "--next 0"),
    ],
)
def test_what_cannot_be_armed_is_named(
    name: str, count: int, params: dict[str, str], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        book().arm(name, count=count, params=params)


def test_changes_are_told_and_can_be_taken_up_again() -> None:
    told: list[list[Armed]] = []
    faults = FaultBook([], told.append)
    faults.arm("outbid", params={})
    again = FaultBook([Armed(**one.as_dict()) for one in told[-1]], told.append)
    assert again.armed() == faults.armed()
    assert again.clear() == 1
    assert told[-1] == []


NAMED = """
offer_taken start_refused hopper_hidden lost_reply stuck_loading fatal_status
image_denied ports_missing pull_takes
port_unreachable driver_old cuda_dead gpu_missing gpu_wrong disk_short disk_full download_slow
download_hang crash_loop engine_oom kv_too_small bad_flag gated_model
nccl_hang green_but_dead wrong_model rate_limited api_5xx
api_timeout api_410 key_unknown_404 instance_null_once destroy_lies outbid host_offline
container_exits ports_of_one contract_ends price_raised no_credit killed hostile rude
class_missing rehearsal_hang rehearsal_flood rehearsal_leaves rehearsal_keeps_memory
hub_down hub_moved log_late machine_in_the_middle job_refused job_early job_lost
"""


@pytest.mark.parametrize("name", NAMED.split())
def test_every_promised_fault_exists(name: str) -> None:
    faults = book()
    assert faults.arm(name, params={}).name == name
    assert FAULTS[name].does


def test_no_fault_is_missing_from_the_promise() -> None:
    assert set(FAULTS) == set(NAMED.split())


def test_a_scenario_is_switched_on_as_a_whole() -> None:
    faults = book()
    faults.arm("outbid", params={})
    added = faults.arm_all([FaultRequest("offer_taken", 2), FaultRequest("driver_old", machine=7)])
    assert [(one.id, one.name, one.left, one.machine) for one in added] == [
        (2, "offer_taken", 2, None),
        (3, "driver_old", 1, 7),
    ]
    with pytest.raises(ValueError, match="nonsense"):
        faults.arm_all([FaultRequest("gpu_missing"), FaultRequest("nonsense")])
    assert [one.name for one in faults.armed()] == ["outbid", "offer_taken", "driver_old"]
