"""Old names and phrases are refused wherever they are, but where users or states hold them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from toolchain.words import EXEMPT, NAMES, PHRASES, definitions, file_name, problems, prose

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


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for folder in ("components", "docs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "components" / "lease.py").write_text("class Leash:\n    'As before.'\n")
    (tmp_path / "docs" / "a.md").write_text("The one of\nbefore.\n")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def test_each_old_name_and_phrase_is_refused(checkout):
    assert problems(checkout, {}) == [
        "components/lease.py: 'Leash' 1 times: write AutoShutdown",
        "components/lease.py: 'lease' 1 times: write stack_finalizer",
        f"docs/a.md: 'of before' 1 times: write {PHRASES['of before']}",
    ]


def test_an_exempt_name_is_let_be_in_its_file_alone(checkout):
    exempt = {("lease", "components/lease.py"): "states hold it"}
    (checkout / "components" / "_lease.py").write_text("")
    assert problems(checkout, exempt) == [
        "components/lease.py: 'Leash' 1 times: write AutoShutdown",
        "components/_lease.py: 'lease' 1 times: write stack_finalizer",
        f"docs/a.md: 'of before' 1 times: write {PHRASES['of before']}",
    ]


def test_an_exemption_that_nothing_needs_is_refused(checkout):
    wrong = problems(checkout, {("lease", "components/gone.py"): "states hold it"})
    assert wrong[-1] == (
        "components/gone.py: 'lease' is not there any more: "
        "remove it from EXEMPT in toolchain/words.py"
    )


def test_what_is_exempt_is_a_known_name():
    assert {name for name, _ in EXEMPT} <= set(NAMES)
    assert all(EXEMPT.values())
