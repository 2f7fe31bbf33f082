"""Section 17 of marketplace-facts.md: calls that the market makes by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.core.progress import Progress
from components.vast.errors import MarketEndRefused
from components.vast.lifecycle.market_end import MarketEnd, MarketJob, start_for
from emulator.keys import instance_key
from tests.helpers.emulator_world import BIRTH, World, make_world

JOBS = "/api/v0/commands/schedule_job/"
HOUR = 3600.0


@pytest.fixture
def world() -> World:
    return make_world()


def job(number: int, start: float, **more: Any) -> dict[str, Any]:
    """As the official client sends it."""
    return {
        "start_time": start,
        "end_time": start + 48 * HOUR,
        "api_endpoint": f"/api/v0/instances/{number}/",
        "request_method": "DELETE",
        "request_body": {},
        "day_of_the_week": None,
        "hour_of_the_day": None,
        "frequency": "HOURLY",
        "instance_id": number,
        **more,
    }


def is_there(world: World, number: int) -> bool:
    return bool(world.instance(number))


def full_hour(after: float) -> float:
    return (after // HOUR + 1) * HOUR


def test_an_hourly_delete_destroys_at_the_full_hour_of_its_start_and_not_before(world: World):
    """Start 13:22 ran at 13:00: the hour that contains the start counts."""
    number = world.rent_running()
    start = full_hour(world.time.epoch()) + 3 * HOUR + 22 * 60
    answer = world.ask("POST", JOBS, job(number, start))
    world.pass_time(start - 22 * 60 - 1 - world.time.epoch())
    assert is_there(world, number)
    world.pass_time(60)
    assert not is_there(world, number)
    (row,) = world.ask("GET", JOBS)
    assert (row["id"], row["start_time"]) == (answer["scheduled_job_id"], start)


def test_one_that_starts_in_the_past_runs_at_the_next_full_hour(world: World):
    number = world.rent_running()
    world.ask("POST", JOBS, job(number, world.time.epoch() - 5 * HOUR))
    world.pass_time(full_hour(world.time.epoch()) - world.time.epoch() - 1)
    assert is_there(world, number)
    world.pass_time(60)
    assert not is_there(world, number)


def test_it_is_billed_up_to_that_hour_also_when_the_clock_jumps(world: World):
    number = world.rent_running()
    start = full_hour(world.time.epoch()) + HOUR
    world.ask("POST", JOBS, job(number, start))
    world.pass_time(30 * HOUR)
    assert not is_there(world, number)
    (contract,) = world.ledger()["contracts"]
    # A destroyed container is billed on for a moment.
    assert start <= contract["until"] < start + 600


def test_a_second_one_for_the_same_call_is_422_with_the_number_of_the_first(world: World):
    number = world.rent_running()
    first = world.ask("POST", JOBS, job(number, BIRTH + 9 * HOUR))["scheduled_job_id"]
    again = world.call("POST", JOBS, job(number, BIRTH + 12 * HOUR))
    assert (again.status_code, again.json()["scheduled_job_id"]) == (422, first)


def test_one_is_moved_and_taken_away(world: World):
    number = world.rent_running()
    start = full_hour(world.time.epoch()) + HOUR
    body = job(number, start)
    path = f"{JOBS}{world.ask('POST', JOBS, body)['scheduled_job_id']}/"
    later = {"start_time": start + 3 * HOUR, "end_time": start + 9 * HOUR}
    world.ask("PUT", path, {"request_body": {}, **later})
    (row,) = world.ask("GET", JOBS)
    assert row["start_time"] == later["start_time"]
    world.pass_time(start + 60 - world.time.epoch())
    assert is_there(world, number)
    world.ask("DELETE", path)
    assert world.ask("GET", JOBS) == []
    assert world.call("DELETE", path).status_code == 404
    world.pass_time(9 * HOUR)
    assert is_there(world, number)


@pytest.mark.parametrize(
    "other",
    [
        {"request_method": "PUT"},
        {"api_endpoint": "/api/v0/instances/reboot/{number}/"},
        {"frequency": "DAILY", "hour_of_the_day": 4},
    ],
)
def test_other_jobs_are_kept_and_not_carried_out(world: World, other: dict[str, Any]):
    number = world.rent_running()
    named = {
        key: value.format(number=number) if isinstance(value, str) else value
        for key, value in other.items()
    }
    world.ask("POST", JOBS, job(number, BIRTH + HOUR, **named))
    world.pass_time(30 * HOUR)
    assert is_there(world, number)
    assert len(world.ask("GET", JOBS)) == 1


@pytest.mark.parametrize(
    "bad",
    [
        {"start_time": "soon"},
        {"end_time": BIRTH},
        {"frequency": "MINUTELY"},
        {"api_endpoint": ""},
        {"instance_id": None},
    ],
)
def test_what_is_no_job_is_refused(world: World, bad: dict[str, Any]):
    assert world.call("POST", JOBS, job(1, BIRTH + HOUR, **bad)).status_code == 400
    assert world.ask("GET", JOBS) == []


def test_the_clients_time_counts_though_emulated_time_has_run_ahead():
    """Otherwise an end that a client puts hours ahead would be over already."""
    world = make_world()
    number = world.rent_running()
    world.market.clock.advance(50 * HOUR)
    start = full_hour(world.time.epoch()) + 2 * HOUR
    world.ask("POST", JOBS, job(number, start))
    world.pass_time(start - 60 - world.time.epoch())
    assert is_there(world, number)
    world.pass_time(120)
    assert not is_there(world, number)


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_one_that_is_refused_changes_nothing(world: World, method: str):
    number = world.rent_running()
    before = job(number, BIRTH + 9 * HOUR)
    path = JOBS
    if method == "PUT":
        path = f"{JOBS}{world.ask('POST', JOBS, before)['scheduled_job_id']}/"
    listed = world.ask("GET", JOBS)
    world.market.faults.arm("job_refused", params={"code": "403"})
    assert world.call(method, path, job(number, BIRTH + 20 * HOUR)).status_code == 403
    assert world.ask("GET", JOBS) == listed


def test_one_that_is_lost_is_answered_with_success_and_not_listed(world: World):
    number = world.rent_running()
    world.market.faults.arm("job_lost", params={})
    assert world.ask("POST", JOBS, job(number, BIRTH + 9 * HOUR))["success"] is True
    assert world.ask("GET", JOBS) == []


def test_one_that_is_early_runs_at_the_next_full_hour_and_reads_as_it_was_sent(world: World):
    number = world.rent_running()
    start = full_hour(world.time.epoch()) + 9 * HOUR
    world.market.faults.arm("job_early", params={})
    world.ask("POST", JOBS, job(number, start))
    assert world.ask("GET", JOBS)[0]["start_time"] == start
    world.pass_time(full_hour(world.time.epoch()) + 60 - world.time.epoch())
    assert not is_there(world, number)


def test_an_instance_s_own_key_schedules_nothing(world: World):
    number = world.rent()
    key = instance_key(world.market.account_key, number)
    answer = world.call("POST", JOBS, job(number, BIRTH + HOUR), key=key)
    assert answer.status_code == 403


# ------------------------------------------------------------------------- with the stack's client


def end_of(world: World, number: int, folder: Path) -> MarketEnd:
    return MarketEnd(world.api(folder), Progress("instance", world.time, print), number)


@pytest.mark.parametrize("minute", [0, 1, 22, 59])
def test_the_market_ends_a_machine_after_its_own_end_and_within_the_hour(
    world: World, tmp_path: Path, minute: int
):
    number = world.rent_running()
    ends_at = full_hour(world.time.epoch()) + 2 * HOUR + minute * 60
    outs = end_of(world, number, tmp_path).arm(start_for(ends_at))
    assert outs.starts_at == ends_at + HOUR
    world.pass_time(ends_at - world.time.epoch())
    assert is_there(world, number)
    world.pass_time(HOUR + 60)
    assert not is_there(world, number)


def test_an_end_is_moved_and_taken_away(world: World, tmp_path: Path):
    number = world.rent_running()
    end = end_of(world, number, tmp_path)
    first = end.arm(full_hour(world.time.epoch()) + 2 * HOUR)
    moved = end.arm(first.starts_at + 4 * HOUR)
    assert moved == MarketJob(first.number, first.starts_at + 4 * HOUR)
    assert end.look() == moved
    end.disarm()
    world.pass_time(50 * HOUR)
    assert is_there(world, number)


def test_an_answer_that_is_lost_makes_no_second_end(world: World, tmp_path: Path):
    number = world.rent_running()
    world.market.faults.arm("lost_reply", params={"on": "any"})
    end_of(world, number, tmp_path).arm(full_hour(world.time.epoch()) + 2 * HOUR)
    assert len(world.ask("GET", JOBS)) == 1


@pytest.mark.parametrize(
    ("fault", "said"), [("job_refused", "cannot be scheduled"), ("job_lost", "and shows none")]
)
def test_an_end_that_is_refused_or_lost_is_no_end(
    world: World, tmp_path: Path, fault: str, said: str
):
    number = world.rent_running()
    world.market.faults.arm(fault, params={})
    with pytest.raises(MarketEndRefused, match=said):
        end_of(world, number, tmp_path).arm(full_hour(world.time.epoch()) + 2 * HOUR)
