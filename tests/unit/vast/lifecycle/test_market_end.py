"""Section 17 of marketplace-facts.md: the market's own end of a machine."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.progress import Progress
from components.vast.api.models import ScheduledEnd
from components.vast.errors import ApiFailed, MarketEndRefused
from components.vast.lifecycle.auto_shutdown import AutoShutdown
from components.vast.lifecycle.market_end import (
    AFTER,
    NONE,
    MarketEnd,
    MarketJob,
    start_for,
    wanted,
)
from tests.helpers.fake_jobs import FakeJobs
from tests.helpers.fakes import VirtualClock

NOW = 1_800_000_000.0
HOUR = 3600.0


def end_of(jobs: FakeJobs, said: list[str] | None = None) -> MarketEnd:
    lines: list[str] = [] if said is None else said
    return MarketEnd(jobs, Progress("instance", VirtualClock(NOW), lines.append), 7)


@given(st.floats(min_value=NOW, max_value=NOW + 9e6))
def test_the_market_never_comes_before_the_machines_own_end_and_at_most_an_hour_after(ends_at):
    """It begins with the full hour that contains the start."""
    first_run = start_for(ends_at) // HOUR * HOUR
    assert ends_at < first_run + 1
    assert first_run <= ends_at + AFTER + 1


def test_a_machine_without_an_end_or_without_the_setting_has_no_job():
    assert start_for(0.0) == 0.0
    assert wanted(AutoShutdown(2.0, market_end=True), NOW) == NOW + AFTER
    assert wanted(AutoShutdown(2.0), NOW) == 0.0
    assert wanted(AutoShutdown(0.0, market_end=True), 0.0) == 0.0


def test_an_end_is_given_read_back_and_told_with_what_nobody_has_tried():
    said: list[str] = []
    jobs = FakeJobs(ScheduledEnd(3, 8, NOW))
    outs = end_of(jobs, said).arm(NOW + HOUR)
    assert outs == MarketJob(4, NOW + HOUR)
    assert jobs.calls == ["list", "add", "list"]
    assert jobs.jobs[3] == ScheduledEnd(3, 8, NOW)
    assert "the market destroys instance 7 at 2027-01-15 09:00 UTC" in said[0]
    assert "nobody has tried" in said[0]


@pytest.mark.parametrize("others", [(), (ScheduledEnd(5, 7, NOW),)])
def test_one_that_is_there_is_moved_and_is_the_only_one_afterwards(others):
    jobs = FakeJobs(ScheduledEnd(3, 7, NOW), *others)
    outs = end_of(jobs).arm(NOW + 5 * HOUR)
    assert outs == MarketJob(3, NOW + 5 * HOUR)
    assert list(jobs.jobs) == [3]


def test_one_that_is_there_for_that_time_is_left_as_it_is():
    jobs = FakeJobs(ScheduledEnd(3, 7, NOW))
    assert end_of(jobs).arm(NOW).number == 3
    assert jobs.calls == ["list"]


def test_one_that_cannot_be_read_back_is_taken_away_again():
    class ForgetsOnce(FakeJobs):
        def scheduled_ends(self) -> list[ScheduledEnd]:
            if self.calls.count("list") == 1:
                self.calls.append("list")
                raise ApiFailed("no list")
            return super().scheduled_ends()

    jobs = ForgetsOnce()
    with pytest.raises(MarketEndRefused, match="no list"):
        end_of(jobs).arm(NOW)
    assert jobs.jobs == {}


@pytest.mark.parametrize("call", ["list", "add"])
def test_one_that_is_refused_is_an_error_that_names_setting_and_reason(call):
    jobs = FakeJobs()
    jobs.refuses = {call}
    with pytest.raises(MarketEndRefused, match=rf"instance 7 \(marketEnd\): .* refused {call}"):
        end_of(jobs).arm(NOW)


@pytest.mark.parametrize(
    ("before", "shows"), [((), "shows none"), ((ScheduledEnd(3, 7, NOW),), "shows one for 2027")]
)
def test_one_that_is_taken_and_not_shown_is_an_error(before: Any, shows: str):
    jobs = FakeJobs(*before)
    jobs.loses = True
    with pytest.raises(MarketEndRefused, match=shows):
        end_of(jobs).arm(NOW + HOUR)


def test_all_that_would_destroy_the_machine_is_taken_away_and_nothing_of_others():
    jobs = FakeJobs(*(ScheduledEnd(job, id_, NOW) for job, id_ in ((1, 7), (2, 8), (3, 7))))
    assert end_of(jobs).disarm() == NONE
    assert list(jobs.jobs) == [2]


def test_one_that_is_not_let_go_is_an_error():
    jobs = FakeJobs(ScheduledEnd(1, 7, NOW))
    jobs.refuses = {"drop"}
    with pytest.raises(MarketEndRefused, match="is not taken away"):
        end_of(jobs).disarm()


def test_a_look_gives_what_there_is():
    assert end_of(FakeJobs(ScheduledEnd(1, 7, NOW))).look().number == 1
    assert end_of(FakeJobs(ScheduledEnd(1, 8, NOW))).look() == NONE


JOB = {
    "id": 4,
    "instance_id": 7,
    "api_endpoint": "/api/v0/instances/7/",
    "request_method": "DELETE",
    "frequency": "HOURLY",
    "start_time": NOW,
}


def test_a_row_of_the_market_is_read():
    assert ScheduledEnd.from_json(JOB) == ScheduledEnd(4, 7, NOW)
    assert ScheduledEnd.from_json({**JOB, "request_method": "delete"}) is not None


@pytest.mark.parametrize(
    "other",
    [
        {"request_method": "PUT"},
        {"request_method": None},
        {"api_endpoint": "/api/v0/instances/reboot/7/"},
        {"api_endpoint": "/api/v0/instances/7/ssh/3/"},
        {"api_endpoint": None},
        {"frequency": "DAILY"},
        {"id": "many"},
        {"start_time": "soon"},
    ],
)
def test_a_row_that_destroys_nothing_or_cannot_be_read_is_no_end(other):
    assert ScheduledEnd.from_json({**JOB, **other}) is None


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(sorted(JOB)), inner),
    )
)
def test_whatever_a_row_is_it_is_read_or_no_end(row):
    found = ScheduledEnd.from_json(row)
    assert found is None or isinstance(found, ScheduledEnd)
