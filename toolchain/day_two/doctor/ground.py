"""What every other check stands on: Python and its packages. The standard library alone.

Without them nothing else of this project can be imported, so their findings are plain texts.
"""

from __future__ import annotations

import datetime as dt
import json
import sys

PYTHON = "Python"
PACKAGES = "packages"

OLDEST_PYTHON = (3, 11)

Ground = list[tuple[str, str, str]]
"""What is wrong, each with its name, a sentence and what mends it."""


def what_is_missing(version: tuple[int, ...], environment: str, packages: str) -> Ground:
    """Judge the interpreter's version and what set-up says of the environment and its packages.

    `environment` and `packages` are empty for what is not there.
    """
    if version < OLDEST_PYTHON:
        return [
            (
                PYTHON,
                f"this is Python {'.'.join(map(str, version))}, and 3.11 or newer is needed",
                "install a newer Python, then type `make setup`",
            )
        ]
    if not environment:
        text = "there is no virtual environment in .venv that works"
        return [(PACKAGES, text, "`make setup` makes it and installs the packages")]
    if not packages:
        text = "the packages in .venv are not those of requirements.txt"
        return [(PACKAGES, text, "`make setup` installs them, pinned and hash-checked")]
    return []


def look() -> Ground:
    """See what is missing here."""
    version = tuple(sys.version_info[:3])
    if version < OLDEST_PYTHON:
        return what_is_missing(version, "", "")
    # Ends the process where Python is too old.
    from toolchain.set_up import packages_are_there, venv_is_there  # noqa: PLC0415

    return what_is_missing(version, venv_is_there(), packages_are_there())


def shown(missing: Ground, stack: str, *, as_json: bool) -> str:
    """Write what is missing as `make doctor` writes everything."""
    if not as_json:
        return "\n".join(f"{name}  {text}\n  {mend}" for name, text, mend in missing)
    problems = [{"about": name, "text": text, "mend": mend} for name, text, mend in missing]
    answer = {
        "format": "vast-vllm/doctor/1",
        "asked_at": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),  # noqa: UP017  (an older Python may read this)
        "stack": stack,
        "problems": problems,
        "not_asked": [],
        "notes": [],
        "findings": [{**one, "name": one["about"], "state": "wrong"} for one in problems],
        "verdict": "not well",
    }
    for finding in answer["findings"]:
        del finding["about"]  # type: ignore[attr-defined]
    return json.dumps(answer)
