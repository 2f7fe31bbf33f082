"""A report becomes contract tests: what is changed in one answer is found, and nothing else."""

from __future__ import annotations

import copy
import functools
import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.core.record import FOLDER, entries
from components.vast.errors import OfferTaken
from emulator.__main__ import main
from emulator.differences import differences, template
from emulator.faults import FaultRequest
from emulator.field_report import read_report
from emulator.replay import fault_behind, replayed
from emulator.server_control import CommandError
from tests.helpers.emulator_world import make_world
from tests.helpers.examples import examples
from tests.helpers.recorded import record_life
from toolchain.field_report.report import Recorded, archive, report_of


@functools.cache
def recorded() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        return record_life(Path(folder))


@pytest.fixture
def life() -> list[dict[str, Any]]:
    return recorded()


def written(entries: list[dict[str, Any]], folder: Path) -> Path:
    path = folder / "report.tar.gz"
    path.write_bytes(archive(report_of(Recorded(entries), ["a-key-of-nobody"], {})))
    return path


def found(entries: list[dict[str, Any]], folder: Path) -> list[tuple[str, ...]]:
    calls, speed = read_report(written(entries, folder))
    return [
        (one.endpoint, one.kind, one.where, one.market, one.emulator)
        for one in differences(replayed(calls, speed=speed))
    ]


def changed(life, path, change):
    """The same record with one answer changed."""
    entries = copy.deepcopy(life)
    change(next(one for one in entries if template(one["path"]) == path and _has_rows(one)))
    return entries


def _has_rows(call):
    return not (isinstance(call["answer"], dict) and call["answer"].get("instances", 1) is None)


def test_a_report_of_the_emulator_differs_from_it_in_nothing(life, tmp_path):
    assert len({template(call["path"]) for call in life}) >= 9
    assert found(life, tmp_path) == []


@settings(max_examples=examples(30))
@given(late=st.lists(st.sampled_from([0.0, 0.5, 4.0, 30.0, 150.0]), min_size=20, max_size=20))
def test_a_market_that_looked_some_moments_before_differs_in_nothing(late):
    """A report tells when answers came. What a machine was like meanwhile is no difference."""
    later, now = [], 0.0
    for call, seconds in zip(recorded(), late, strict=True):
        now = max(now, call["at"] + seconds)
        later.append(call | {"at": now})
    with tempfile.TemporaryDirectory() as folder:
        assert found(later, Path(folder)) == []


INSTANCE = "/instances/{id}/"
OFFERS = "/bundles/"


@pytest.mark.parametrize(
    ("path", "change", "difference"),
    [
        pytest.param(
            OFFERS,
            lambda call: call.update(status=202),
            ("POST /bundles/", "status", "", "202", "200"),
            id="status",
        ),
        pytest.param(
            OFFERS,
            lambda call: [row.pop("dlperf") for row in call["answer"]["offers"]],
            ("POST /bundles/", "key", "offers[].dlperf", "absent", "number"),
            id="a key that the market does not have",
        ),
        pytest.param(
            OFFERS,
            lambda call: call["answer"]["offers"][3].update(carbon_grams=7),
            ("POST /bundles/", "key", "offers[].carbon_grams", "number", "absent"),
            id="a key that the emulator does not have",
        ),
        pytest.param(
            OFFERS,
            lambda call: call["answer"]["offers"][0].update(num_gpus="2"),
            ("POST /bundles/", "type", "offers[].num_gpus", "text", "number"),
            id="type",
        ),
        pytest.param(
            INSTANCE,
            lambda call: call["answer"]["instances"].update(actual_status="warming_up"),
            (
                "GET /instances/{id}/",
                "value",
                "instances.actual_status",
                "warming_up",
                "created or exited or loading or running",
            ),
            id="value",
        ),
        pytest.param(
            INSTANCE,
            lambda call: call["answer"]["instances"].update(is_bid=None),
            ("GET /instances/{id}/", "type", "instances.is_bid", "null", "boolean"),
            id="null",
        ),
        pytest.param(
            OFFERS,
            lambda call: call["headers"].update({"Content-Type": "text/html"}),
            ("POST /bundles/", "headers", "Content-Type", "text/html", "application/json"),
            id="header",
        ),
        pytest.param(
            "/users/current/",
            lambda call: call.update(answer=[]),
            ("GET /users/current/", "type", "", "list", "object"),
            id="the whole answer",
        ),
    ],
)
def test_one_changed_answer_is_one_difference(life, tmp_path, path, change, difference):
    (one,) = found(changed(life, path, change), tmp_path)
    assert one[:4] == difference[:4]
    assert one[4] == difference[4] or set(one[4].split(" or ")) <= set(difference[4].split(" or "))


def test_an_error_of_the_market_is_compared_with_the_emulators_own(life, tmp_path):
    def too_many(call):
        call.update(
            status=429,
            headers={"Content-Type": "application/json", "Retry-After": "4"},
            answer={"detail": "API requests too frequent endpoint threshold=4.5", "code": 7},
        )

    (one,) = found(changed(life, "/users/current/", too_many), tmp_path)
    assert one == ("GET /users/current/", "key", "code", "number", "absent")


def test_an_offer_that_was_taken_is_taken_from_the_emulator_too(tmp_path):
    world = make_world()
    world.market.faults.arm_all([FaultRequest("offer_taken", 1, None, {"http": "410"})])
    with pytest.raises(OfferTaken):
        record_life(tmp_path / "life", world)
    recorded = list(entries(tmp_path / "life" / FOLDER))
    assert recorded[-1]["status"] == 410
    assert found(recorded, tmp_path) == []


def test_a_question_without_an_answer_is_counted_and_not_compared(life, tmp_path, capsys):
    def lost(call):
        for name in ("status", "headers", "answer"):
            del call[name]
        call["error"] = "ReadTimeout"

    path = written(changed(life, "/users/current/", lost), tmp_path)
    assert main(["compare", str(path)]) == 0
    said = capsys.readouterr().out
    assert f"{len(life) - 1} answers compared, 1 questions had none: no differences" in said


def test_the_command_says_what_differs_and_ends_with_one(life, tmp_path, capsys):
    entries = changed(life, OFFERS, lambda call: call.update(status=202))
    path = written(entries, tmp_path)
    assert main(["compare", str(path), "--json"]) == 1
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["call"], one["kind"], one["market"]) == (1, "status", "202")
    assert main(["compare", str(path)]) == 1
    assert "1 difference\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no archive", "is no archive|cannot be read"),
        (gzip.compress(b""), "is no archive|something else"),
        (gzip.compress(b"x" * 600), "is no archive|something else"),
    ],
    ids=["no archive", "nothing in it", "no files in it"],
)
def test_what_is_no_report_is_refused_in_a_sentence(tmp_path, content, said):
    path = tmp_path / "report.tar.gz"
    path.write_bytes(content)
    with pytest.raises(CommandError, match=said):
        read_report(path)
    with pytest.raises(CommandError, match="cannot be read"):
        read_report(tmp_path / "missing")


def test_no_fault_is_behind_a_plain_answer(life, tmp_path):
    calls, _ = read_report(written(life, tmp_path))
    assert [fault_behind(call) for call in calls if call.status == 200] == [None] * sum(
        call.status == 200 for call in calls
    )
