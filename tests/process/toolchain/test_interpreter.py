from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from toolchain import set_up
from toolchain.interpreter import MAKES_ENVIRONMENTS, Interpreter, faster, own

BY_PYENV = Interpreter(
    executable=Path("/home/me/.pyenv/versions/3.11.7/bin/python3"),
    version="3.11",
    configured="'--enable-shared' '--prefix=/home/me/.pyenv/versions/3.11.7'",
    prefix=Path("/home/me/.pyenv/versions/3.11.7"),
)


def distribution(folder: Path, *, version: str = "3.11", answers: int = 0) -> Path:
    """A folder such as `/usr/bin`, whose Python notes what it is asked, and ends with `answers`."""
    python = folder / "usr" / "bin" / f"python{version}"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$*" >> {folder}/asked\nexit {answers}\n')
    python.chmod(0o755)
    return python.parent


def asked(folder: Path) -> list[str]:
    """What the distribution's Python was asked."""
    note = folder / "asked"
    return note.read_text().splitlines() if note.exists() else []


def test_a_python_without_a_profile_gives_way_to_the_distribution_s(tmp_path):
    there = distribution(tmp_path)
    assert faster(BY_PYENV, there) == there / "python3.11"
    assert asked(tmp_path) == [f"-c {MAKES_ENVIRONMENTS}"]


@pytest.mark.parametrize(
    ("version", "answers"), [("3.11", 1), ("3.12", 0)], ids=["no python3-venv", "another one"]
)
def test_one_that_cannot_take_its_place_is_not_taken(tmp_path, version, answers):
    assert faster(BY_PYENV, distribution(tmp_path, version=version, answers=answers)) is None


def test_without_a_python_of_the_distribution_the_one_at_hand_stays(tmp_path):
    assert faster(BY_PYENV, tmp_path) is None


def test_one_with_a_profile_and_the_distribution_s_own_stay(tmp_path):
    there = distribution(tmp_path)
    built = BY_PYENV.configured + " '--enable-optimizations' '--with-lto'"
    for stays in (
        replace(BY_PYENV, configured=built),
        replace(BY_PYENV, prefix=there.parent, configured=""),
    ):
        assert faster(stays, there) is None
    assert asked(tmp_path) == []


def test_the_one_at_hand_is_the_one_that_made_this_environment():
    this = own()
    assert this.executable == Path(sys.executable)
    assert this.prefix == Path(sys.base_prefix)
    assert (this.prefix / "lib" / f"python{this.version}").is_dir()


@pytest.mark.parametrize("answers", [0, 1])
def test_the_environment_is_of_the_faster_one_where_it_makes_one(
    monkeypatch, tmp_path, capsys, answers
):
    python = distribution(tmp_path, answers=answers) / "python3.11"
    made_here: list[Path] = []
    monkeypatch.setattr(set_up, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(set_up, "faster", lambda _: python)
    monkeypatch.setattr(set_up, "new_venv", made_here.append)
    set_up.make_venv()
    assert asked(tmp_path) == [f"-m venv --clear {tmp_path}/.venv"]
    assert made_here == [tmp_path / ".venv"] * answers
    said = capsys.readouterr().out
    assert f"of {python}: {sys.executable} was built without --enable-optimizations" in said
    assert (f"{python} makes none" in said) == bool(answers)
