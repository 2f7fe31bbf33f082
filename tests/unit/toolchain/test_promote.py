from __future__ import annotations

import datetime as dt
import itertools
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from components.core.errors import StackError
from components.release.release import ReleaseRefused, load_release
from tests.unit.release.test_release import release, runs
from toolchain import promote as command
from toolchain.configuration import NoConfiguration, path_of, settings_of, with_setting
from toolchain.project import Project
from toolchain.promote import previous, way_here
from toolchain.release import release_of, write

NOW = dt.datetime(2026, 11, 24, tzinfo=dt.UTC)

STAGING = """\
# Why it is so.
config:
  vast-vllm:promoteFrom: dev  # and why this
  vast-vllm:maxDollarsPerHour: "8.00"
"""


def update(name: str, result: str = "succeeded", kind: str = "update"):
    config = {command.KEY: {"value": name, "secret": False}} if name else {}
    return {"kind": kind, "result": result, "config": config}


def ran(*names: str):
    """The history of updates to these releases, which pulumi tells newest first."""
    return [update(name) for name in reversed(names)]


@pytest.mark.parametrize(
    ("updates", "current", "found"),
    [
        ([], "r1", ""),
        (ran("r1"), "r1", ""),
        (ran("r1", "r2"), "r2", "r1"),
        ([update("r2", "failed"), *ran("r1")], "r2", "r1"),
        ([update("r1"), update("r2", kind="refresh"), update("r0")], "r1", "r0"),
        (ran("r1", "", "r2", "r2"), "r2", "r1"),
        # Typed again before the `up`, and again after it.
        (ran("r1", "r2", "r3"), "r2", "r1"),
        (ran("r1", "r2", "r3", "r2"), "r2", "r1"),
        (ran("r1", "r2", "r3", "r2", "r1"), "r1", ""),
        # Two bad ones in a row, a third that is bad as well: not back to one of them.
        (ran("r1", "r2", "r3", "r2", "r1", "r4"), "r4", "r1"),
        # One that was gone back from, let in once more.
        (ran("r1", "r2", "r1", "r2"), "r2", "r1"),
        ([update("r2", "failed"), *ran("r1", "r2", "r1")], "r2", "r1"),
        ([{"kind": "update", "result": "succeeded", "config": None}], "r1", ""),
    ],
)
def test_back_is_what_led_here_and_never_what_was_gone_back_from(updates, current, found):
    assert previous(way_here(updates), current) == found


def test_one_line_changes_and_the_comments_stay():
    text = with_setting(STAGING, "release", "r1")
    assert text == STAGING + "  vast-vllm:release: r1\n"
    assert with_setting(text, "release", "r2") == text.replace("r1", "r2")
    assert settings_of(text)["vast-vllm:maxDollarsPerHour"] == "8.00"


def test_a_stack_without_a_file_is_refused_by_name(tmp_path):
    with pytest.raises(NoConfiguration, match=r"no Pulumi\.nobody\.yaml"):
        path_of("nobody", tmp_path)


def known(*, proven: bool = True):
    what = runs()
    return {
        "release": {
            "name": "",
            "digest": release().digest,
            "proven": proven,
            "runs": what.model_dump_json(),
            "files": [{"name": "params.json", "bytes": 2, "digest": "git:" + "0" * 40}],
            "sources": {"org/model": {"commit": "the Hub's", "files": "the host's claim"}},
            "host_key": "the market's log",
        },
        "gpu": "2x H200",
        "machine_id": 5,
        "hourly_cost": 3.6,
        "boot_seconds": {"image": 30, "load": 70},
        "smoke_report": {"ok": proven, "tokens_per_second": 100.0},
    }


def test_a_release_is_written_once_and_read_back(tmp_path):
    one = release_of("r1", "dev", known(), NOW, "Vast.ai")
    write(one, tmp_path)
    assert load_release("r1", tmp_path) == one
    assert one.proven["dollars_per_million_tokens_for_one_client"] == 10.0
    assert one.proven["written_at"] == "2026-11-24T00:00:00+00:00"
    assert one.proven["marketplace"] == "Vast.ai"
    assert one.proven["files"][0]["name"] == "params.json"
    assert one.proven["whose_word"]["commits"] == {"org/model": "the Hub's"}
    assert one.proven["whose_word"]["files"] == {"org/model": "the host's claim"}
    assert one.proven["whose_word"]["gpu"] == "the host's claim"
    assert one.proven["whose_word"]["host_key"] == "the market's log"
    with pytest.raises(ReleaseRefused, match="there is a release r1 already"):
        write(one, tmp_path)


def known_of_two(**release):
    told = known()
    return {
        **told,
        "release": {**told["release"], **release},
        "hourly_cost": 7.2,
        "replicas": [{"hourly_cost": 3.6}, {"hourly_cost": 3.6}],
    }


def test_a_release_of_several_machines_says_what_one_client_costs_on_one_of_them():
    one = release_of("r1", "dev", known_of_two(), NOW, "Vast.ai")
    assert one.proven["dollars_per_million_tokens_for_one_client"] == 10.0
    assert one.proven["summary"].startswith("2 machines of 2x H200 for $7.20/h")
    assert one.runs == release_of("r1", "dev", known(), NOW, "Vast.ai").runs


def by_a_hosts_word():
    told = known()
    del told["release"]["sources"]
    return told


@pytest.mark.parametrize(
    ("name", "outputs", "said"),
    [
        ("r1", {}, "runs nothing"),
        ("r1", by_a_hosts_word(), "is its host's word.*bring it up once more, which asks the Hub"),
        ("r1", known(proven=False), "the smoke test has not passed"),
        (
            "r1",
            known_of_two(proven=False, unproven=["endpoint-r1 runs another commit"]),
            "^endpoint-r1 runs another commit, in the stack dev: a release is of what works",
        ),
        ("../r1", known(), "no name of a release"),
        ("", known(), "no name of a release"),
    ],
)
def test_nothing_is_written_of_what_was_not_proven(name, outputs, said):
    with pytest.raises(ReleaseRefused, match=said):
        release_of(name, "dev", outputs, NOW, "Vast.ai")


class Stacks:
    """Stacks whose preview ends as a test wants, and that note what they were asked."""

    def __init__(self, status: int = 0, updates: Sequence[Mapping[str, Any]] = ()) -> None:
        self.status = status
        self.updates = updates
        self.asked: list[tuple[str, str]] = []

    def pulumi(
        self, command: str, stack: str, *arguments: str, quiet: bool = False
    ) -> subprocess.CompletedProcess[str]:
        del quiet
        self.asked.append((command, stack))
        told = json.dumps(self._page(arguments)) if command == "stack history" else "[]"
        return subprocess.CompletedProcess([], self.status, stdout=told, stderr="")

    def _page(self, arguments: Sequence[str]) -> list[Mapping[str, Any]]:
        """Page through the updates as pulumi does."""
        given = dict(itertools.pairwise(arguments))
        size, page = int(given.get("--page-size", 10)), int(given.get("--page", 1))
        return list(self.updates[(page - 1) * size : page * size])


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "releases").mkdir()
    write(release("r1"), tmp_path / "releases")
    (tmp_path / "Pulumi.staging.yaml").write_text(STAGING)
    return Project(tmp_path)


def test_a_promotion_that_the_preview_takes_is_in_the_file(project):
    stacks = Stacks()
    assert command.promote(stacks, project, "r1", "staging", "dev") == 0
    assert stacks.asked == [("preview", "staging")]
    assert settings_of(project.path("staging").read_text())[command.KEY] == "r1"


def test_a_promotion_that_the_preview_refuses_leaves_the_file(project):
    assert command.promote(Stacks(255), project, "r1", "staging", "") == 255
    assert project.path("staging").read_text() == STAGING


@pytest.mark.parametrize(
    ("name", "source", "said"),
    [
        ("r2", "", "there is no release 'r2'"),
        ("r1", "prod", "takes its releases from dev, not from prod"),
    ],
)
def test_what_cannot_be_promoted_is_not_even_previewed(project, name, source, said):
    stacks = Stacks()
    with pytest.raises(StackError, match=said):
        command.promote(stacks, project, name, "staging", source)
    assert stacks.asked == []


def test_on_the_emulator_what_is_committed_stays_as_it_is(project, tmp_path):
    own = Project(tmp_path, own=tmp_path / ".tools/emulated")
    write(release("made-up"), own.releases)
    assert command.promote(Stacks(), own, "made-up", "staging", "dev") == 0
    assert (tmp_path / "Pulumi.staging.yaml").read_text() == STAGING
    assert [one.name for one in (tmp_path / "releases").iterdir()] == ["r1.yaml"]
    assert own.settings("staging")[command.KEY] == "made-up"
    assert command.KEY not in project.settings("staging")
    # What the account runs is nothing that the emulator has.
    project.write("staging", with_setting(STAGING, "release", "r1"))
    assert own.settings("staging")[command.KEY] == "made-up"
    with pytest.raises(ReleaseRefused, match="there is no release 'r1'"):
        command.promote(Stacks(), own, "r1", "staging", "")


def test_the_account_takes_no_release_of_the_emulator(project, tmp_path):
    made_up = release_of("r9", "dev", known(), NOW, "the emulator")
    write(made_up, tmp_path / "releases")
    stacks = Stacks(updates=ran("r9", "r1"))
    with pytest.raises(command.CannotPromote, match="r9 was made on the emulator"):
        command.promote(stacks, project, "r9", "staging", "dev")
    project.write("staging", with_setting(STAGING, "release", "r1"))
    with pytest.raises(command.CannotPromote, match="r9 was made on the emulator"):
        command.rollback(stacks, project, "staging")


def test_there_may_be_nothing_to_go_back_to(project):
    with pytest.raises(command.CannotPromote, match="nothing to go back to"):
        command.rollback(Stacks(), project, "staging")


def test_a_rollback_looks_behind_hundreds_of_updates(project):
    updates = ran("r1", *["r2"] * 250)
    path = project.path("staging")
    path.write_text(with_setting(STAGING, "release", "r2"))
    assert command.rollback(Stacks(updates=updates), project, "staging") == 0
    assert settings_of(path.read_text())[command.KEY] == "r1"
    with pytest.raises(command.CannotPromote, match="no release that led to r1"):
        command.rollback(Stacks(updates=updates), project, "staging")
