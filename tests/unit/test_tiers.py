"""The rules that the tests themselves keep: who may reach what, how often, and who goes first."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from tests.helpers.examples import examples
from tests.helpers.places import ROOT
from tests.schedule import ENOUGH, LONG, SHORT, chosen
from tests.tiers import TIER_NAMES, TIERS, NotAUnitTest, WithoutTier, tier_of


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


def test_who_has_little_to_do_gets_the_longest_file():
    assert chosen(TOOK, seconds_pending=ENOUGH, took=TOOK) == "d.py"


def test_behind_a_long_file_goes_the_shortest():
    assert chosen(TOOK, seconds_pending=ENOUGH + 1, took=TOOK) == "a.py"


def test_a_file_that_was_never_measured_is_short():
    assert chosen([*TOOK, "new.py"], seconds_pending=ENOUGH, took=TOOK) == "d.py"
    assert SHORT < ENOUGH


def test_once_the_long_ones_are_given_short_and_longer_files_take_turns():
    left = {"a.py": 1.0, "b.py": LONG - 1, "c.py": 2.0, "d.py": 3.0}
    given = []
    while left:
        given.append(chosen(left, seconds_pending=0, took=left))
        del left[given[-1]]
    assert given == ["b.py", "a.py", "d.py", "c.py"]


def test_of_files_that_nobody_measured_those_that_compute_go_first_where_one_is_short():
    left = ["tests/emulator/test_a.py", "tests/unit/test_b.py", "tests/process/test_c.py"]
    assert chosen(left, seconds_pending=ENOUGH + 1, took={}) == "tests/unit/test_b.py"
    assert chosen(left[:2], seconds_pending=0, took={}) == "tests/emulator/test_a.py"


def test_none_takes_the_turn_of_a_long_file():
    for count in range(1, 5):
        short = [f"{number}.py" for number in range(count)]
        assert (
            chosen([*short, "long.py"], seconds_pending=ENOUGH, took={"long.py": LONG}) == "long.py"
        )
