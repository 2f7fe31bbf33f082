"""Files are as long as their folder allows, and an exception is one that is needed."""

from __future__ import annotations

import subprocess

import pytest

from tests.helpers.places import ROOT
from toolchain.file_sizes import MOST_LINES, counted, main, problems


def test_this_checkout_keeps_to_its_limits():
    assert main() is None
    assert {path.partition("/")[0] for path in counted(ROOT)} >= MOST_LINES.keys()


@pytest.mark.parametrize("folder", MOST_LINES)
def test_one_line_more_than_a_folder_allows_is_refused(folder):
    path, most = f"{folder}/deep/one.py", MOST_LINES[folder]
    assert problems({path: most}, {}) == []
    (wrong,) = problems({path: most + 1}, {})
    assert wrong.startswith(f"{path} has {most + 1} lines and may have {most}")
    assert problems({path: most + 1}, {path: "a table"}) == []


def test_a_table_that_is_short_or_gone_is_no_exception():
    (short, gone) = problems({"emulator/b.py": 400}, {"emulator/b.py": "a", "emulator/c.py": "b"})
    assert short.startswith("emulator/b.py is in TABLES")
    assert gone.startswith("emulator/c.py is in TABLES")


def test_other_folders_have_no_limit():
    assert problems({"__main__.py": 5000, "models/one.py": 5000}, {}) == []


def test_a_file_that_git_would_add_counts_and_one_that_it_ignores_does_not(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / ".gitignore").write_text("ignored.py\n")
    (tmp_path / "emulator").mkdir()
    for name in ("new.py", "ignored.py"):
        (tmp_path / "emulator" / name).write_text("pass\n" * 401)
    assert counted(tmp_path) == {"emulator/new.py": 401}
    assert (main(tmp_path) or "").startswith("emulator/new.py has 401 lines")
