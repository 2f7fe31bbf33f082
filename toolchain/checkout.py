"""The folders of set-up in this checkout, and its output; the standard library alone."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
TOOLS = ROOT / ".tools"
BIN = TOOLS / "bin"


def say(line: str) -> None:
    """Print a line for the person who waits."""
    print(f"setup: {line}", flush=True)  # noqa: T201  (a command's own output)


def which(name: str) -> Path | None:
    """Find a command on the `PATH`."""
    found = shutil.which(name)
    return Path(found) if found else None


def runs(command: list[str]) -> bool:
    """Whether a command ends well."""
    try:
        return subprocess.run(command, check=False, capture_output=True).returncode == 0  # noqa: S603  (our own arguments)
    except OSError:
        return False


def environment_runs(folder: Path) -> bool:
    """Whether a virtual environment has an interpreter that runs, and commands that start it.

    The commands name the interpreter by its whole path, so a folder that was moved or copied has
    none that start. pip stands for them all.
    """
    try:
        command = (folder / "bin" / "pip").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    named = "|".join({re.escape(str(one / "bin")) for one in (folder, folder.resolve())})
    starts_it = re.search(rf"(?<![\w./-])({named})/python", command.partition("import ")[0])
    return starts_it is not None and runs([str(folder / "bin" / "python"), "-c", ""])
