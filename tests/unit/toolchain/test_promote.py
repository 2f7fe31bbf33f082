from __future__ import annotations

import datetime as dt
import itertools
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.errors import StackError
from components.release.release import ReleaseRefused, load_release
from tests.helpers.load_scene import load_test, point
from tests.helpers.places import ROOT
from tests.unit.release.test_release import release, runs
from toolchain import promote as command
from toolchain.configuration import NoConfiguration, path_of, settings_of, with_setting
from toolchain.day_two.load.figure import compared, figure_in, figure_of
from toolchain.project import Project
from toolchain.promote import previous, way_here
from toolchain.release import load_test_of, release_of, write

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


def test_a_promotion_prints_the_difference_to_what_the_stack_is_configured_for(project, capsys):
    for name, tokens in (("f1", 100), ("f2", 110)):
        test = load_test(point(1, tokens))
        release_with = release_of(name, "dev", known(), NOW, "Vast.ai", test=test)
        write(release_with, project.releases)
    assert command.promote(Stacks(), project, "f1", "staging", "") == 0
    assert "against" not in capsys.readouterr().err
    assert command.promote(Stacks(), project, "f2", "staging", "") == 0
    assert "promote: against f1: 1 client: 110 tokens/s (+10%)" in capsys.readouterr().err
    # A release without a figure, as an older version wrote it, and one that is gone, go on.
    assert command.promote(Stacks(), project, "r1", "staging", "") == 0
    assert "against f2: no figures to compare: no load was measured for r1" in (
        capsys.readouterr().err
    )
    (project.releases / "r1.yaml").unlink()
    assert command.promote(Stacks(), project, "f1", "staging", "") == 0
    assert "its load figures are not compared: there is no release 'r1'" in capsys.readouterr().err


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


def carried(tmp_path, name, test=None):
    one = release_of(name, "dev", known(), NOW, "Vast.ai", test=test)
    write(one, tmp_path)
    return load_release(name, tmp_path)


def test_a_release_carries_the_newest_load_test_of_exactly_what_runs(tmp_path):
    digest = release().digest
    older = load_test(point(1, 90), digest=digest)
    newer = load_test(point(1, 100), point(2, 180, 520), point(4, 190, 2000), digest=digest)
    others = [
        load_test(digest="sha256:b"),
        load_test(digest=digest, gpus=("2x H200",) * 2),
        load_test(digest=digest, gpus=("4x H200",)),
    ]
    in_part = [
        newer.model_copy(update={"flaws": ("2 clients were not measured",)}),
        load_test(point(1, 95), point(2, 170, failed=1), digest=digest),
    ]
    assert load_test_of(known(), [older, newer, *in_part, *others]) == newer
    assert load_test_of(known(), in_part) is None
    assert load_test_of(known(), others) is None
    assert load_test_of({}, [load_test(digest="")]) is None
    several = known() | {"replicas": [{"gpu": "2x H200"}] * 2}
    assert load_test_of(several, [newer, *others]) == others[1]
    one = carried(tmp_path, "r1", newer)
    figure = figure_in(one.proven)
    assert figure is not None
    assert figure.conditions == newer.conditions
    assert (figure.knee, figure.loads[0].dollars_per_million) == (2.0, 10.0)


def test_promotion_says_how_fast_a_release_is_against_the_one_before(tmp_path):
    before = carried(tmp_path, "r1", load_test(point(1, 100), point(2, 200, 400)))
    points = (point(1, 110), point(2, 150, 800), point(4, 160, 9000))
    after = carried(tmp_path, "r2", load_test(*points))
    first, second = compared("r2", after.proven, "r1", before.proven)
    assert first == (
        "1 client, the knee: 110 tokens/s (+10%), first token after 100 ms (+0%), "
        "$9.09 for a million tokens (-9%)"
    )
    assert "2 clients: 150 tokens/s (-25%), first token after 160 ms (+100%)" in second


def test_releases_that_were_not_measured_alike_are_not_compared(tmp_path):
    one = carried(tmp_path, "r1", load_test())
    (said,) = compared(
        "r2", carried(tmp_path, "r2", load_test(replicas=2)).proven, "r1", one.proven
    )
    assert said == (
        "the load figures of r1 and r2 cannot be compared, since they differ in replicas"
    )
    (said,) = compared("r3", carried(tmp_path, "r3", load_test(point(8))).proven, "r1", one.proven)
    assert said == "r1 and r3 were measured at no load in common"
    (said,) = compared("r4", one.proven | {"load": {"loads": []}}, "r1", one.proven)
    assert said.startswith("a load figure of r1 or r4 cannot be read")


def test_a_release_of_an_older_version_has_no_figure_and_goes_on(tmp_path):
    old = load_release("2026-11", ROOT / "tests/releases")
    assert figure_in(old.proven) is None
    new = carried(tmp_path, "r2", load_test())
    assert compared("r2", new.proven, "2026-11", old.proven) == [
        "no figures to compare: no load was measured for 2026-11"
    ]
    assert "load" not in carried(tmp_path, "r3").proven


@given(
    st.recursive(
        st.none() | st.floats() | st.text(max_size=5),
        lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=8), one),
    )
)
def test_any_figure_in_a_file_is_a_sentence(figure):
    lines = compared("r2", {"load": figure}, "r1", {"load": figure_of(load_test())})
    assert len(lines) == 1
