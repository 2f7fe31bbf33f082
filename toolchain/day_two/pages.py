"""Write what the documents show of compare, boots and reports: `python -m toolchain.day_two.pages`.

It brings a stack up on an emulator of its own, in real time, with a record; changes an option, so
that the server starts once more; and asks each command without a terminal. What a command prints
goes between the marks of the document that shows it. It takes a quarter of an hour, of which the
emulated download and image are the most.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.core.errors import ConfigurationError, StackError
from toolchain.pictures import MARKET, PICTURES, ROOT, own_environment

DOCUMENTS = ("compare.md", "boots.md", "field-report.md")

REAL_TIME = ("--speed", "1")
"""After `MARKET`, whose own speed this replaces."""

CHANGED = "config:\n  vast-vllm:maxModelLen: 65536\n"
"""What makes the server start once more."""

_BLOCK = re.compile(
    r"(?P<begin><!-- output: (?P<name>[a-z-]+) -->\n).*?(?P<end><!-- end of output -->)", re.DOTALL
)


class NoPage(ConfigurationError):
    """A command that is to be shown failed.

    It runs against the emulator.

    Cost: nothing.
    Remedy: type the command by hand, and mend what it names.
    """


def main() -> int:
    """Play the story and write the documents; return 1 with a sentence if a command fails.

    What was printed before a command failed is written all the same.
    """
    shown: dict[str, str] = {}
    status = 0
    with tempfile.TemporaryDirectory(prefix="pages-") as name:
        try:
            play(Path(name), shown)
        except StackError as error:
            print(error, file=sys.stderr)  # noqa: T201  (a command's own output)
            status = 1
    for document in DOCUMENTS:
        path = ROOT / "docs" / document
        path.write_text(filled(path.read_text(encoding="utf-8"), shown), encoding="utf-8")
    return status


def play(folder: Path, shown: dict[str, str]) -> None:
    """Put what each command prints into `shown`, by the name of its block.

    Raises:
        NoPage: one has failed.
    """
    environment = {**own_environment(folder), "RECORD": "1"}
    python = [sys.executable, "-m"]
    emulator = [*python, "emulator"]
    ran(
        [*emulator, "up", "--port", "0", *MARKET, *REAL_TIME, "--end-with", str(os.getpid())],
        environment,
    )
    try:
        shown["compare"] = ran([*python, "toolchain.day_two.compare"], environment)
        ran([*python, "toolchain.on_emulator", "up"], environment)
        shown["up"] = ran([*python, "toolchain.chat", "local", "--panel"], environment)
        own = folder / "emulated" / "Pulumi.local.yaml"
        own.parent.mkdir(exist_ok=True)
        own.write_text(CHANGED)
        ran([*python, "toolchain.on_emulator", "up"], environment)
        shown["boots"] = ran([*python, "toolchain.day_two.boots"], environment)
        picture = max((folder / "boots" / "local").glob("*.svg"))
        shutil.copyfile(picture, PICTURES / "boots.svg")
        report = [*python, "toolchain.day_two.field_report", "--write"]
        shown["field-report"] = ran(report, environment)
        (written,) = (folder / "field-reports").glob("*.tar.gz")
        shown["same"] = ran([*emulator, "compare", str(written)], environment)
        other = folder / "changed.tar.gz"
        _change_one_answer(written, other)
        shown["changed"] = ran([*emulator, "compare", str(other)], environment, status=1)
    finally:
        ran([*python, "toolchain.on_emulator", "destroy"], environment)
        ran([*emulator, "down"], environment)
        for name, text in shown.items():
            shown[name] = text.replace(str(folder), ".tools")


def ran(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    status: int = 0,
    answer_alone: bool = False,
) -> str:
    """Run a command as without a terminal, and give what it prints.

    `answer_alone` leaves out what it says on the way, which it prints to standard error.

    Raises:
        NoPage: it ended with another status.
    """
    done = subprocess.run(  # noqa: S603  (our own words)
        command,
        cwd=ROOT,
        env={**environment, "COLUMNS": "80"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if answer_alone else subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != status:
        words = " ".join(command[2:])
        said = f"{done.stdout}{done.stderr or ''}"
        raise NoPage(f"`{words}` ended with {done.returncode}: {said[-2000:]}")
    return done.stdout


def filled(text: str, shown: Mapping[str, str]) -> str:
    """Put what commands printed between the marks of a document, indented as code."""

    def block(found: re.Match[str]) -> str:
        if found["name"] not in shown:
            return found[0]
        lines = shown[found["name"]].rstrip().splitlines()
        body = "\n".join(f"    {line}".rstrip() for line in lines)
        return f"{found['begin']}\n{body}\n\n{found['end']}"

    return _BLOCK.sub(block, text)


def _change_one_answer(report: Path, changed: Path) -> None:
    """Let the market have said something else once: another status, as a word and not a null."""
    from toolchain.field_report.report import CALLS, Report, archive, unpacked  # noqa: PLC0415

    files = dict(unpacked(report.read_bytes()))
    calls = [json.loads(line) for line in files[CALLS].splitlines()]
    answers = [call["answer"] for call in calls if isinstance(call.get("answer"), dict)]
    lists = [answer.get("instances") for answer in answers]
    rows = [row for found in lists if isinstance(found, list) for row in found]
    rows[-1]["actual_status"] = "warming_up"
    files[CALLS] = "".join(f"{json.dumps(call)}\n" for call in calls)
    changed.write_bytes(archive(Report(files, ())))


if __name__ == "__main__":
    sys.exit(main())
