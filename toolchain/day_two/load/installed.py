"""guidellm's own environment in .tools: made by the first load test, and when its list changes."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from components.core.errors import ConfigurationError
from toolchain.checkout import ROOT, TOOLS, environment_runs, say
from toolchain.set_up import new_venv

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements.txt"
"""Everything, pinned and hashed. `make lock` writes it from requirements.in and overrides.txt."""

VENV = TOOLS / "guidellm-venv"
PYTHON = VENV / "bin" / "python"
COMMAND = (str(PYTHON), "-P", str(HERE / "without_torch.py"))
"""Stands for `guidellm`; without `-P` Python would look for modules beside this file first."""

NEEDED_GB = 2
"""The environment takes 0.7 GB; what pip downloads lies beside it for a while."""

LAST_LINES = 5


class NotInstalled(ConfigurationError):
    """guidellm cannot be installed.

    Cost: nothing; no load was made.
    Remedy: mend what pip says, then test again.
    """


def ensure() -> tuple[str, ...]:
    """Install guidellm unless it is there, and give its command; what is done is said aside.

    Raises:
        NotInstalled: one sentence.
    """
    with contextlib.redirect_stdout(sys.stderr):
        if not is_there():
            say("guidellm in .tools/guidellm-venv (0.7 GB, a minute): ...")
            install()
            if not is_there():
                raise NotInstalled(
                    "guidellm does not run after it was installed: remove .tools/guidellm-venv, "
                    "and nothing beside it, then test again"
                )
    return COMMAND


def is_there() -> str:
    """Whether the installed packages are those of the list, and run here."""
    stamp = VENV / ".locked"
    as_locked = stamp.is_file() and stamp.read_text() == locked()
    return "as locked" if as_locked and environment_runs(VENV) else ""


def install() -> None:
    """Make the environment anew and install the list into it; pip refuses other hashes.

    Raises:
        NotInstalled: one sentence; of pip its last lines.
    """
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < NEEDED_GB:
        raise NotInstalled(
            f"guidellm needs {NEEDED_GB} GB of disk while it is installed and {free:.1f} GB are "
            f"free below {ROOT}; free some, then test again"
        )
    try:
        TOOLS.mkdir(exist_ok=True)
        new_venv(VENV)
        done = subprocess.run(  # noqa: S603  (our own arguments)
            [
                *(str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
                *("--require-hashes", "--no-deps", "-r", str(REQUIREMENTS)),
            ],
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            said = "; ".join(done.stderr.strip().splitlines()[-LAST_LINES:])
            raise NotInstalled(f"pip could not install guidellm: {said}")
        (VENV / ".locked").write_text(locked())
    except SystemExit as error:
        raise NotInstalled(
            f"guidellm cannot be installed: {str(error.code).removeprefix('setup: ')}"
        ) from None
    except OSError as error:
        raise NotInstalled(
            f"guidellm cannot be installed into .tools/guidellm-venv ({error.strerror})"
        ) from None


def locked() -> str:
    """Name the state of the list."""
    return hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
