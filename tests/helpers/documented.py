"""The code blocks of the documents, as a reader copies them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

from tests.helpers.places import ROOT

COMMANDS = ("make", "pulumi", "vastai")

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


class Place(NamedTuple):
    """Where a code block stands: the `number`-th below a heading, from 0."""

    document: str
    heading: str
    number: int = 0


def documents() -> list[Path]:
    """Return the documents; what was measured (docs/measured) shows figures and no commands."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("emulator/*.md"), *ROOT.glob("docs/**/*.md")]
    return sorted(path for path in found if "measured" not in path.parts)


def blocks() -> dict[Place, str]:
    """Return all code blocks."""
    found: dict[Place, str] = {}
    for path in documents():
        document = str(path.relative_to(ROOT))
        text = path.read_text(encoding="utf-8")
        for match in _BLOCK.finditer(text):
            before = _BLOCK.sub("", text[: match.start()])
            heading = _HEADING.findall(before)[-1]
            number = sum(one[:2] == (document, heading) for one in found)
            found[Place(document, heading, number)] = match[2]
    return found


def block(document: str, heading: str, number: int = 0) -> str:
    """Return one code block.

    Raises:
        KeyError: there is none.
    """
    return blocks()[Place(document, heading, number)]


def commands() -> dict[Place, list[list[str]]]:
    """Return the words of each command of `make`, `pulumi` or `vastai`, by the block they are in.

    `tests/cli/test_makefile.py` asks `make` for its own, and
    `tests/cli/test_documented_commands.py` the others. Blocks that need a shell for more than one
    command behind another are left out.
    """
    found = {}
    for place, text in blocks().items():
        lines = [line.partition(" #")[0].strip() for line in text.splitlines()]
        typed = [part.strip() for line in lines if line for part in line.split("&&")]
        if all(part.split()[0] in COMMANDS for part in typed):
            found[place] = [shlex.split(part) for part in typed]
    return found
