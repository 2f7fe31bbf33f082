from __future__ import annotations

from pathlib import Path

from tests.earlier_runs import remove_earlier


def test_earlier_runs_that_are_over_are_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in ("pytest-8", "pytest-9", "pytest-10", "pytest-11", "pytest-current", "other-8"):
        (tmp_path / name / "test_of_it").mkdir(parents=True)
    (tmp_path / "pytest-8" / ".lock").touch()

    remove_earlier(tmp_path / "pytest-10")

    left = {folder.name for folder in tmp_path.iterdir()}
    assert left == {"pytest-8", "pytest-10", "pytest-11", "pytest-current", "other-8"}


def test_a_folder_that_was_asked_for_has_no_earlier_ones(tmp_path: Path) -> None:
    for name in ("mine", "mine-1", "mine-2", "pytest-1", "1"):
        (tmp_path / name).mkdir()
    for asked in ("mine", "mine-2", "1"):
        remove_earlier(tmp_path / asked)
    assert len(list(tmp_path.iterdir())) == 5
