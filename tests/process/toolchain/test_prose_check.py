"""`make check` refuses a long sentence or a long cell in any document but measurements."""

from __future__ import annotations

import subprocess

from toolchain.prose import MOST_WORDS, MOST_WORDS_OF_A_CELL, main

SENTENCE = "word " * MOST_WORDS + "word."
CELL = "cell " * (MOST_WORDS_OF_A_CELL + 1)


def test_what_is_too_long_is_refused_with_its_document(tmp_path):
    (tmp_path / "docs" / "measured").mkdir(parents=True)
    (tmp_path / "README.md").write_text(f"{SENTENCE}\n")
    (tmp_path / "docs" / "a.md").write_text(f"| a |\n|---|\n| {CELL} |\n")
    (tmp_path / "docs" / "measured" / "b.md").write_text(f"{SENTENCE}\n")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    assert str(main(["--check"], tmp_path)).splitlines() == [
        f"README.md: 26 words: {SENTENCE}",
        f"docs/a.md: 21 words: {CELL.strip()}",
    ]


def test_the_project_holds_to_its_own_limits():
    assert main(["--check"]) == 0
