"""Refuse Python files that are too long to have one reason to exist.

`python -m toolchain.file_sizes` checks what git knows or would add; `make check` runs it. A table,
whose rows a reader only looks up, may be longer. It is named here with a reason.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

MOST_LINES: Mapping[str, int] = {
    "components": 400,
    "emulator": 400,
    "policy": 400,
    "toolchain": 400,
    "tests": 600,
}
"""By the first folder of a path."""

TABLES: Mapping[str, str] = {}
"""Paths of tables, each with the reason why it is not split."""


def problems(lines: Mapping[str, int], tables: Mapping[str, str]) -> list[str]:
    """Name every file that is too long, by its number of lines, and every table that needs no name.

    Files outside the folders of `MOST_LINES` may have any length.
    """
    too_long = {path for path, count in lines.items() if count > _most(path)}
    return [
        *(
            f"{path} has {lines[path]} lines and may have {_most(path)}: split it by what a reader "
            "looks for"
            for path in sorted(too_long - tables.keys())
        ),
        *(
            f"{path} is in TABLES of toolchain/file_sizes.py and need not be: take it out"
            for path in sorted(tables.keys() - too_long)
        ),
    ]


def counted(root: Path) -> dict[str, int]:
    """Count the lines of every Python file that git knows or would add, by its path."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.py"],  # noqa: S607  (whichever git there is)
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [path for path in listed.stdout.splitlines() if (root / path).is_file()]
    return {path: len((root / path).read_text(encoding="utf-8").splitlines()) for path in paths}


def main(root: Path = ROOT) -> str | None:
    """Check the files of a checkout; what is wrong, a line each, or None."""
    return "\n".join(problems(counted(root), TABLES)) or None


def _most(path: str) -> float:
    return MOST_LINES.get(path.partition("/")[0], float("inf"))


if __name__ == "__main__":
    sys.exit(main())
