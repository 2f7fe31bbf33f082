from __future__ import annotations

import datetime as dt

import pytest

from components.vast.api.locked_file import LockedJsonFile
from components.vast.api.models import Charge
from components.vast.charges import compare, total
from components.vast.estimates import MOST, Estimate, Estimates

MIDNIGHT = 1_800_057_600.0
"""The first second of 16 January 2027, UTC."""
FIRST, SECOND = dt.date(2027, 1, 15), dt.date(2027, 1, 16)


def charge(kind="gpu", since=MIDNIGHT - 7200, until=MIDNIGHT - 3600, dollars=6.0, **changes):
    known = {"source": "instance-1", "label": "p/dev/endpoint-instance/abc", **changes}
    return Charge(kind=kind, since=since, until=until, dollars=dollars, **known)


def test_a_contracts_kinds_become_one_line_a_day():
    charges = [charge(), charge("disk", dollars=0.1), charge("bwd", dollars=0.4)]
    (line,) = compare(charges, {"instance-1": Estimate(6.1, 0.3)}, "p")
    assert (line.stack, line.resource, line.day) == ("dev", "endpoint-instance", FIRST)
    assert line.charged == {"gpu": 6.0, "disk": 0.1, "bwd": 0.4}
    assert line.hours == 1.0
    assert line.total == pytest.approx(6.5)
    assert line.estimated == pytest.approx(6.4)


def test_what_spans_midnight_is_split_by_time_and_the_download_is_expected_once():
    long = [charge(since=MIDNIGHT - 3600, until=MIDNIGHT + 10_800, dollars=8.0)]
    first, second = compare(long, {"instance-1": Estimate(2.0, 0.5)}, "p")
    assert (first.day, first.total, first.estimated) == (FIRST, 2.0, 2.5)
    assert (second.day, second.total, second.estimated) == (SECOND, 6.0, 6.0)


@pytest.mark.parametrize(
    ("rented_at", "traffic"),
    [(MIDNIGHT - 7200, 0.5), (MIDNIGHT - 3600, 0.5), (MIDNIGHT - 90_000, 0.0), (None, 0.5)],
)
def test_a_download_is_expected_only_where_it_lies_in_the_time_that_is_asked_for(
    rented_at, traffic
):
    charges = [charge(), charge(since=MIDNIGHT, until=MIDNIGHT + 3600)]
    estimates = {"instance-1": Estimate(6.0, 0.5, rented_at)}
    first, second = compare(charges, estimates, "p", since=MIDNIGHT - 7200)
    assert first.estimated == 6.0 + traffic
    assert second.estimated == 6.0


def test_an_estimate_that_nobody_noted_makes_the_line_and_the_sum_unknown():
    charges = [charge(), charge(source="instance-2", since=MIDNIGHT, until=MIDNIGHT + 60)]
    lines = compare(charges, {"instance-1": Estimate(6.0, 0.0)}, "p")
    assert [line.estimated for line in lines] == [6.0, None]
    assert total(lines) == (12.0, None)
    assert total(lines[:1]) == (6.0, 6.0)


def test_other_projects_stacks_and_hand_made_labels_are_left_out():
    charges = [
        charge(label="other/dev/r/n"),
        charge(label="p/prod/r/n"),
        charge(label=""),
        charge(label="mine"),
    ]
    assert compare(charges, {}, "p", "dev") == []
    assert [line.stack for line in compare(charges, {}, "p")] == ["prod"]


def test_two_contracts_of_one_resource_are_one_line_and_a_new_kind_is_counted():
    charges = [charge(), charge("network", source="instance-2", dollars=1.0)]
    (line,) = compare(charges, {}, "p")
    assert line.contracts == ("instance-1", "instance-2")
    assert line.charged == {"gpu": 6.0, "other": 1.0}


def test_notes_are_read_back_and_the_newest_are_kept(tmp_path):
    file = LockedJsonFile(tmp_path / "estimates.json")
    notes = Estimates(file)
    note = {"dollars_per_hour": 6.0, "traffic_dollars": 0.3}
    with file.lock() as content:
        content.values = {f"instance-{number}": note for number in range(MOST)}
        content.save()
    notes.note(5000, Estimate(7.0, 0.1, MIDNIGHT))
    known = notes.known()
    assert len(known) == MOST
    assert "instance-0" not in known
    assert known["instance-1"] == Estimate(6.0, 0.3)
    assert known["instance-5000"] == Estimate(7.0, 0.1, MIDNIGHT)
