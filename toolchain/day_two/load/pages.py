"""Write what docs/load.md shows: `python -m toolchain.day_two.load.pages`.

It brings a stack up on an emulator of its own, in real time, plays one load test twice and another
one with long prompts, and draws them. It takes half an hour, of which the tests are the most.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from components.core.errors import StackError
from toolchain.day_two.load import drawing
from toolchain.day_two.load.kept import LoadTest, folder_of, kept
from toolchain.day_two.pages import REAL_TIME, filled, ran
from toolchain.on_emulator import EMULATOR
from toolchain.pictures import MARKET, PICTURES, ROOT, own_environment

DOCUMENT = ROOT / "docs" / "load.md"

STACK = "local"

SHORT = ("--clients", "1,2,4,8,16,32,64")
LONG = ("--clients", "1,2,4,8,16", "--prompt", "8192", "--answer", "128")

TESTS = (("load", SHORT), ("again", SHORT), ("long", LONG))
"""Each with the name of its block."""


def main() -> int:
    """Play the tests and write the document; return 1 with a sentence if a command fails."""
    try:
        with tempfile.TemporaryDirectory(prefix="loads-") as name:
            folder = Path(name)
            shown = played(folder)
            write(shown, kept(folder_of(STACK, EMULATOR, folder)))
    except StackError as error:
        print(error, file=sys.stderr)  # noqa: T201  (a command's own output)
        return 1
    return 0


def played(folder: Path) -> dict[str, str]:
    """Play the tests; give what each has printed.

    Raises:
        NoPage: one has failed.
    """
    environment = own_environment(folder)
    with_us = ("--end-with", str(os.getpid()))
    _run(environment, "emulator", "up", "--port", "0", *MARKET, *REAL_TIME, *with_us)
    try:
        _run(environment, "toolchain.on_emulator", "up")
        return {
            name: _run(environment, "toolchain.day_two.load", *words).replace(str(folder), ".tools")
            for name, words in TESTS
        }
    finally:
        _run(environment, "toolchain.on_emulator", "destroy")
        _run(environment, "emulator", "down")


def write(shown: Mapping[str, str], tests: list[LoadTest]) -> None:
    """Put what was printed into the document, and draw the tests, oldest first."""
    text = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(filled(text, shown), encoding="utf-8")
    first, second, long = tests[-3:]
    for alike, name in (([first, second], "load"), ([long], "load-long")):
        shape = alike[-1].conditions.shape.describe()
        drawing.save(alike, PICTURES / f"{name}.svg", f"The emulator's stand-in, {shape}")


def _run(environment: Mapping[str, str], module: str, *words: str) -> str:
    return ran([sys.executable, "-m", module, *words], environment, answer_alone=True)


if __name__ == "__main__":
    sys.exit(main())
