"""A machine with an end that the market carries out: given, moved, read back, taken away."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from components.core.property_bag import Properties
from components.resources.instance import InstanceProvider
from components.vast.errors import LeftRunning, MarketEndRefused, NoCandidateLeft
from tests.helpers.adapters import client_key, machine, outputs, vast
from tests.helpers.states import PREFIX, ordered, rented

__all__ = ["client_key", "machine", "vast"]  # fixtures

HOUR = 3600.0
JOBS = "/commands/schedule_job/"


def shutdown(hours: float = 2.0, *, market_end: bool = True) -> Properties:
    return {"time_to_live_hours": hours, "idle_minutes": 0.0, "market_end": market_end}


@pytest.fixture
def props(client_key: Any) -> Properties:
    return ordered(client_key, leash=shutdown())


@pytest.fixture
def made(machine: Any, props: Properties) -> Properties:
    """A machine that ends itself two hours after its start, and the market an hour later."""
    assert machine.logins == 0
    return outputs(InstanceProvider().create(props))


def hours_told(folder: Path) -> float:
    """What the machine's own watch was told."""
    told = (folder / "home/serving/time_to_live.env").read_text()
    return int(told.partition("TTL_SECONDS=")[2].splitlines()[0]) / HOUR


def start_of_the_job(vast: Any) -> float:
    (job,) = vast.jobs.values()
    return float(job["start_time"])


def updated(olds: Properties, news: Properties) -> Properties:
    found = InstanceProvider().diff("9001", olds, news)
    assert (found.changes, found.replaces) == (True, [])
    outs = outputs(InstanceProvider().update("9001", olds, news))
    assert not InstanceProvider().diff("9001", outs, news).changes
    return outs


def test_a_machine_that_is_rented_is_given_an_end_an_hour_after_its_own(vast, made):
    (number, job), *_ = vast.jobs.items()
    assert job == {
        "start_time": made["ends_itself_at"] + HOUR,
        "end_time": made["ends_itself_at"] + 49 * HOUR,
        "api_endpoint": "/api/v0/instances/9001/",
        "request_method": "DELETE",
        "request_body": {},
        "day_of_the_week": None,
        "hour_of_the_day": None,
        "frequency": "HOURLY",
        "instance_id": 9001,
    }
    assert (made["market_job"], made["market_ends_at"]) == (number, job["start_time"])


@pytest.mark.usefixtures("machine")
def test_without_the_setting_the_market_is_asked_nothing(vast, client_key):
    made = outputs(InstanceProvider().create(ordered(client_key, leash=shutdown(market_end=False))))
    assert (made["market_job"], made["market_ends_at"]) == (0, 0.0)
    InstanceProvider().read("9001", made)
    InstanceProvider().delete("9001", made)
    assert not [call for call in vast.calls if JOBS in call]


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("how", ["refused", "not shown"])
def test_a_machine_that_the_market_does_not_take_an_end_of_is_given_back_before_it_starts(
    vast, props, how
):
    vast.loses_jobs = how == "not shown"
    vast.failing = {f"POST {JOBS}"} if how == "refused" else set()
    with pytest.raises(
        MarketEndRefused, match=r"9001 .*\(marketEnd\).*rm marketEnd.*given back in stage"
    ):
        InstanceProvider().create(props)
    assert vast.contracts == {}


@pytest.mark.usefixtures("made")
def test_a_machine_has_an_end_before_it_has_started_and_may_never_start(vast):
    """Whoever rents it may die meanwhile, and its own watch does not run yet."""
    rent, first, *others = (call for call in vast.writes() if "/instances/" not in call)
    assert (rent, first, others) == ("PUT /asks/111/", f"POST {JOBS}", [f"PUT {JOBS}1/"])
    # It may start as late as the last moment of its boot, and lives for two hours from then on.
    provisional, exact = vast.starts
    assert provisional - exact == pytest.approx(20 * 60, abs=30)


@pytest.mark.usefixtures("machine")
def test_a_machine_that_is_given_back_leaves_no_job(vast, props, tmp_path):
    (tmp_path / "bin/nvidia-smi").write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(NoCandidateLeft):
        InstanceProvider().create(props)
    assert (vast.contracts, vast.jobs) == ({}, {})
    assert f"POST {JOBS}" in vast.calls


@pytest.mark.usefixtures("machine")
def test_one_that_the_market_does_not_move_leaves_the_machine_to_the_next_up(vast, props):
    vast.failing = {f"PUT {JOBS}1/"}
    with pytest.raises(
        LeftRunning,
        match=r"9001 works and costs \$\d.*\(marketEnd\).*not now.*rm marketEnd.*to go on without",
    ):
        InstanceProvider().create(props)
    assert list(vast.contracts) == [9001]
    vast.failing.clear()
    again = outputs(InstanceProvider().create(props))
    assert again["adopted"] is True
    assert again["market_ends_at"] == start_of_the_job(vast)


@pytest.mark.usefixtures("made")
def test_a_machine_that_is_adopted_without_the_setting_keeps_no_end_of_the_market(
    vast, client_key, capsys
):
    again = InstanceProvider().create(ordered(client_key, leash=shutdown(0.0, market_end=False)))
    assert outputs(again)["market_job"] == 0
    assert vast.jobs == {}
    assert "does not destroy instance 9001 at" in capsys.readouterr().out


def test_a_longer_life_is_accepted_once_the_market_has_moved_its_end(
    vast, made, client_key, tmp_path
):
    outs = updated(made, ordered(client_key, leash=shutdown(5.0)))
    assert outs["ends_itself_at"] == made["ends_itself_at"] + 3 * HOUR
    assert start_of_the_job(vast) == outs["market_ends_at"] == outs["ends_itself_at"] + HOUR
    assert hours_told(tmp_path) == 5.0


def test_a_longer_life_is_refused_where_the_market_does_not_move_its_end(
    vast, made, client_key, tmp_path
):
    """The market would end the machine before its time otherwise."""
    vast.failing = {f"PUT {JOBS}1/"}
    with pytest.raises(MarketEndRefused, match=r"instance 9001 \(marketEnd\)"):
        InstanceProvider().update("9001", made, ordered(client_key, leash=shutdown(5.0)))
    assert hours_told(tmp_path) == 2.0
    assert start_of_the_job(vast) == made["market_ends_at"]


def test_a_longer_life_is_refused_where_the_market_only_says_that_it_moved_its_end(
    vast, made, client_key, tmp_path
):
    vast.loses_jobs = True
    with pytest.raises(MarketEndRefused, match="and shows one for"):
        InstanceProvider().update("9001", made, ordered(client_key, leash=shutdown(5.0)))
    assert hours_told(tmp_path) == 2.0


def test_a_shorter_life_is_told_to_the_machine_before_the_market(
    vast, made, client_key, tmp_path, capsys
):
    vast.failing = {f"PUT {JOBS}1/"}
    news = ordered(client_key, leash=shutdown(1.0))
    outs = outputs(InstanceProvider().update("9001", made, news))
    said = "the next `pulumi up` tries again; .*until then the market ends it later, or not at all"
    assert re.search(said, capsys.readouterr().out)
    assert hours_told(tmp_path) == 1.0
    assert start_of_the_job(vast) == outs["market_ends_at"] == made["market_ends_at"]
    vast.failing.clear()
    outs = updated(outs, news)
    assert start_of_the_job(vast) == outs["ends_itself_at"] + HOUR


@pytest.mark.parametrize("hours", [2.0, 0.0])
def test_it_is_taken_away_with_the_setting_before_the_machine_may_live_on(
    vast, made, client_key, tmp_path, hours
):
    news = ordered(client_key, leash=shutdown(hours, market_end=False))
    vast.failing = {f"DELETE {JOBS}1/"}
    with pytest.raises(MarketEndRefused, match="is not taken away"):
        InstanceProvider().update("9001", made, news)
    assert hours_told(tmp_path) == 2.0
    vast.failing.clear()
    outs = updated(made, news)
    assert vast.jobs == {}
    assert (outs["market_job"], hours_told(tmp_path)) == (0, hours)


def test_it_is_given_to_a_machine_that_serves_without_a_word_to_the_machine(
    vast, machine, client_key
):
    before = outputs(
        InstanceProvider().create(ordered(client_key, leash=shutdown(market_end=False)))
    )
    logins = machine.logins
    outs = updated(before, ordered(client_key, leash=shutdown()))
    assert start_of_the_job(vast) == outs["market_ends_at"] == before["ends_itself_at"] + HOUR
    assert machine.logins == logins


@pytest.mark.parametrize("found", ["none", "another"])
def test_a_refresh_reads_it_back_and_the_next_up_gives_it_again(vast, made, props, capsys, found):
    if found == "none":
        vast.jobs.clear()
    else:
        vast.jobs[1]["start_time"] -= 5 * HOUR
    seen = outputs(InstanceProvider().read("9001", made))
    assert "the next `pulumi up` gives it again" in capsys.readouterr().out
    outs = updated(seen, props)
    assert start_of_the_job(vast) == outs["market_ends_at"] == made["market_ends_at"]


def test_a_refresh_finds_it_as_it_is(vast, made, props, capsys):
    writes = vast.writes()
    capsys.readouterr()
    seen = outputs(InstanceProvider().read("9001", made))
    assert "marketEnd" not in capsys.readouterr().out
    assert not InstanceProvider().diff("9001", seen, props).changes
    vast.failing = {f"GET {JOBS}"}
    again = outputs(InstanceProvider().read("9001", seen))
    assert "whether the market still ends instance 9001 is not known" in capsys.readouterr().out
    assert not InstanceProvider().diff("9001", again, props).changes
    assert vast.writes() == writes


def test_destroy_takes_it_away_after_the_machine(vast, made):
    InstanceProvider().delete("9001", made)
    assert (vast.contracts, vast.jobs) == ({}, {})
    deletes = [call for call in vast.calls if call.startswith("DELETE")]
    assert deletes == ["DELETE /instances/9001/", f"DELETE {JOBS}1/"]


def test_destroy_needs_nothing_of_the_markets_jobs(vast, made, capsys):
    vast.failing = {f"GET {JOBS}", f"DELETE {JOBS}1/"}
    InstanceProvider().delete("9001", made)
    assert vast.contracts == {}
    assert "is not taken away" in capsys.readouterr().out


def test_a_refresh_that_finds_the_machine_gone_takes_it_away_and_names_it_as_a_cause(
    vast, made, capsys
):
    vast.contracts.clear()
    assert InstanceProvider().read("9001", made).id == ""
    assert vast.jobs == {}
    assert "the market may have ended it before its time (marketEnd)" in capsys.readouterr().out


def test_a_host_that_says_that_it_starts_later_puts_off_neither_end(
    vast, made, client_key, tmp_path
):
    state = tmp_path / "home/serving/state/first_start"
    state.write_text(f"{int(made['ends_itself_at']) + 99 * 3600}\n")
    outs = updated(made, ordered(client_key, leash=shutdown(5.0)))
    assert outs["ends_itself_at"] <= made["ends_itself_at"] + 3 * HOUR
    assert start_of_the_job(vast) <= outs["ends_itself_at"] + HOUR


def test_a_state_of_an_older_release_has_none_and_nothing_changes(vast):
    vast.has(9001, label=f"{PREFIX}abc")
    old = {"time_to_live_hours": 2.0, "idle_minutes": 0.0}
    state = rented(leash=old, ends_itself_at=1.0)
    news = ordered(leash={**old, "market_end": False})
    assert not InstanceProvider().diff("9001", state, news).changes
    assert not InstanceProvider().diff("9001", state, ordered(leash=old)).changes
