"""The rules that the tests themselves keep: who may reach what, how often, and who goes first."""

from __future__ import annotations

import importlib
import socket
import subprocess
import sys
from collections.abc import Iterable

import pytest

from tests.helpers.examples import examples
from tests.helpers.places import ROOT
from tests.schedule import ENOUGH, LONG, SHORT, chosen
from tests.tiers import LIBRARIES, TIER_NAMES, TIERS, NotAUnitTest, WithoutTier, tier_of


@pytest.mark.parametrize(
    ("path", "tier"),
    [
        ("tests/unit/vllm/test_sizing.py::test_x[a::b]", "unit"),
        ("tests/emulator/standins/test_checks.py", "process"),
        ("tests/cli/test_drift_with_pulumi.py::test_x", "cli"),
        ("tests/faults/test_faults.py", "faults"),
    ],
)
def test_the_folder_gives_the_tier(path, tier):
    assert tier_of(path) == tier


def test_a_test_in_no_folder_of_a_tier_is_refused():
    with pytest.raises(WithoutTier, match="stands in no folder of a tier"):
        tier_of("tests/test_x.py")


def test_every_test_stands_in_the_folder_of_a_tier():
    tests = [path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")]
    assert {tier_of(path) for path in tests} == set(TIER_NAMES)


def test_every_path_of_the_table_is_there():
    assert [path for path in TIERS if not (ROOT / path).exists()] == []


def test_a_unit_test_that_connects_fails():
    with socket.socket() as one, pytest.raises(NotAUnitTest, match=r"uses socket\.connect"):
        one.connect(("127.0.0.1", 9))


def test_a_unit_test_that_starts_a_process_fails():
    with pytest.raises(NotAUnitTest, match=r"uses subprocess\.Popen"):
        subprocess.run([sys.executable, "-c", ""], check=False)


STARTS_A_PROCESS = """
import subprocess, sys
def start():
    subprocess.run([sys.executable, "-c", ""], check=True)
"""


def test_a_library_may_look_about_while_it_is_loaded_and_not_afterwards(tmp_path, monkeypatch):
    installed = tmp_path / LIBRARIES
    installed.mkdir()
    (installed / "looks_about.py").write_text(STARTS_A_PROCESS + "start()")
    monkeypatch.syspath_prepend(installed)
    library = importlib.import_module("looks_about")
    with pytest.raises(NotAUnitTest, match=r"uses subprocess\.Popen"):
        library.start()


def test_the_projects_own_modules_look_about_no_more_when_they_are_loaded(tmp_path, monkeypatch):
    (tmp_path / "ours_looks_about.py").write_text(STARTS_A_PROCESS + "start()")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(NotAUnitTest, match=r"uses subprocess\.Popen"):
        importlib.import_module("ours_looks_about")


@pytest.mark.parametrize(
    ("environment", "usual", "of_100"),
    [
        ({}, 20, 33),
        ({"CI": "true"}, 60, 100),
        ({"EXAMPLES": "2000"}, 2000, 3333),
        ({"EXAMPLES": "120", "CI": "true"}, 120, 200),
        ({"EXAMPLES": "0"}, 1, 1),
    ],
)
def test_ci_tries_more_examples_than_a_developer_and_whoever_asks_gets_more(
    environment, usual, of_100
):
    assert (examples(environment=environment), examples(100, environment)) == (usual, of_100)


TOOK = {"a.py": 1.0, "b.py": 90.0, "c.py": 2.0, "d.py": 300.0}


def next_of(files: Iterable[str], pending: float = 0, *, enough_wait: bool = False) -> str:
    return chosen(files, seconds_pending=pending, enough_wait=enough_wait, took=TOOK)


def test_who_has_little_to_do_gets_the_longest_file():
    assert next_of(TOOK, ENOUGH) == "d.py"


def test_behind_a_long_file_goes_the_shortest():
    assert next_of(TOOK, ENOUGH + 1) == "a.py"


def test_a_file_that_was_never_measured_is_short():
    assert next_of([*TOOK, "new.py"], ENOUGH) == "d.py"
    assert SHORT < ENOUGH


def test_where_enough_workers_wait_the_next_gets_a_short_file_unless_there_is_a_very_long_one():
    assert next_of(["a.py", "c.py"], enough_wait=True) == "a.py"
    assert next_of(["a.py", "c.py"], enough_wait=False) == "c.py"
    assert next_of(["a.py", "b.py"], enough_wait=True) == "b.py"
    assert TOOK["c.py"] < LONG < TOOK["b.py"]


def test_of_files_that_nobody_measured_those_that_compute_are_the_shortest():
    left = ["tests/emulator/test_a.py", "tests/unit/test_b.py", "tests/process/test_c.py"]
    assert next_of(left, enough_wait=True) == "tests/unit/test_b.py"
    assert next_of(left[:2]) == "tests/emulator/test_a.py"
