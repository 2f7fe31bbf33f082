"""The folders of set-up in this checkout, and its output; the standard library alone."""

from __future__ import annotations

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
