"""Old names and phrases are found wherever they are, and what is left of them may only shrink."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.helpers.places import ROOT
from toolchain.words import NAMES, PHRASES, definitions, file_name, grown, main, problems, prose

CODE = '''
"""A module of before."""

import ast as nonce

DOOR = door = 1  # what was there of
# before, too
left: int = 2


class Leash:
    """The
    contract of  before."""

    _stray: int
    "of before"

    def _undone(self, beside: int) -> int:
        lease = beside
        return lease


class State:
    leash: int  # by its key in the state

    @classmethod
    def from_bag(cls) -> State:
        return cls()


async def reach() -> None:
    def obtain() -> str:
        return "of before"
'''


def test_what_is_defined_is_found_and_nothing_else():
    assert sorted(definitions(CODE)) == sorted(
        ["DOOR", "door", "left", "Leash", "stray", "undone", "State", "from_bag", "reach", "obtain"]
    )


def test_prose_is_docstrings_and_comments_whatever_their_lines():
    text = prose(CODE)
    assert text.count("of before") == 4
    assert "return" not in text


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("tests/vast/test_reach.py", "reach"),
        ("components/on_host/time_to_live.sh", "time_to_live"),
        ("components/vast/_lease.py", "lease"),
    ],
)
def test_a_file_has_its_name_without_what_tests_add(path, name):
    assert file_name(path) == name


LEFT = {"Leash": {"a.py": 1, "b.py": 2}}


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ({"Leash": {"a.py": 1, "b.py": 2}}, []),
        ({"Leash": {"a.py": 2, "b.py": 2}}, ["a.py: 'Leash' 2 times and 1 allowed: write Auto"]),
        ({"Leash": {"b.py": 2}}, ["a.py: 'Leash' 0 times and 1 in toolchain/words.yaml: run"]),
        ({"Leash": {"a.py": 1, "b.py": 2, "c.py": 1}}, ["c.py: 'Leash' 1 times and 0 allowed"]),
    ],
)
def test_a_new_place_is_refused_and_so_is_an_entry_of_none(places, said):
    wrong = problems(places, LEFT, NAMES)
    assert len(wrong) == len(said)
    assert all(line.startswith(part) for line, part in zip(wrong, said, strict=True))


def test_what_moves_has_not_grown_and_what_is_added_has():
    assert grown({"Leash": {"c.py": 3}}, LEFT) == []
    assert grown({"Leash": {"c.py": 4}}, LEFT) == ["Leash"]
    assert grown({"Need": {"c.py": 1}}, LEFT) == ["Need"]


def test_the_list_of_what_is_left_holds_known_names_and_phrases_alone():
    listed = yaml.safe_load((ROOT / "toolchain" / "words.yaml").read_text())
    assert set(listed["names"]) <= set(NAMES)
    assert set(listed["phrases"]) <= set(PHRASES)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for folder in ("components", "toolchain", "docs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "components" / "lease.py").write_text("class Leash:\n    'As before.'\n")
    (tmp_path / "docs" / "a.md").write_text("The one of\nbefore.\n")
    (tmp_path / "toolchain" / "words.yaml").write_text("names: {}\nphrases: {}\n")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def test_a_checkout_is_held_to_its_list(checkout):
    refusal = main([], checkout)
    assert refusal is not None
    assert refusal.splitlines() == [
        "components/lease.py: 'Leash' 1 times and 0 allowed: write AutoShutdown",
        "components/lease.py: 'lease' 1 times and 0 allowed: write stack_finalizer",
        f"docs/a.md: 'of before' 1 times and 0 allowed: write {PHRASES['of before']}",
    ]
    assert main(["--write"], checkout) == (
        "Leash, lease, of before: there are more than before, so nothing was written"
    )


def test_a_list_is_written_for_files_that_have_moved_or_are_gone(checkout):
    (checkout / "toolchain" / "words.yaml").write_text(
        "names: {Leash: {components/old.py: 1}, lease: {components/old.py: 2}}\n"
        "phrases: {of before: {docs/b.md: 1}}\n"
    )
    assert main([], checkout)
    assert main(["--write"], checkout) is None
    assert main([], checkout) is None
    listed = yaml.safe_load((checkout / "toolchain" / "words.yaml").read_text())
    assert listed["names"] == {
        "Leash": {"components/lease.py": 1},
        "lease": {"components/lease.py": 1},
    }
