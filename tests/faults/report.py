"""Play a suite and write what came of it: `python -m tests.faults.report whole`, `more` or
`several`.

`rehearsal` plays no cells: it measures what a rehearsal tells how early.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from tests.faults import rehearsal_table
from tests.faults.cell import Row
from tests.faults.suite import WORLDS
from tests.faults.table import as_markdown, summary
from tests.faults.world import SPEED
from tests.helpers.places import ROOT


@dataclasses.dataclass(frozen=True)
class Page:
    """What is written about one suite."""

    file: Path
    title: str
    command: str
    about: str
    worlds: int = WORLDS
    """That play at once, unless `FAULTS_WORLDS` says otherwise."""


PAGES = {
    "whole": Page(
        ROOT / "docs/faults.md",
        "Faults",
        "make faults",
        "The deaths are at every moment of an `up`, of an `up` that replaces its machine, and of a "
        "`destroy`. [more-faults.md](more-faults.md) has those of other replacements.",
    ),
    "more": Page(
        ROOT / "docs/more-faults.md",
        "More faults",
        "make more-faults",
        "It goes on where [faults.md](faults.md) ends: with the deaths where a machine is replaced "
        "for another reason, or beside the old one. Moments that do not differ are left out.",
    ),
    "several": Page(
        ROOT / "docs/faults-of-several.md",
        "Faults of several machines",
        "make faults-of-several",
        "Somebody dies while an endpoint changes. It grows from two machines to three, shrinks to "
        "two, changes an option on both, or gets two other machines beside them. Clients ask the "
        "router all the time, and never repeat a request. The last column counts those that "
        "failed, from before the command until the next one was through. The death of a replica "
        "may cost those that it was answering: none failed that began after it. Where nobody "
        "answers, each client asks again twice a second.",
        # Each has up to four machines, and eight clients.
        worlds=4,
    ),
}

TEXT = """# {title}

Written by `{command}`; do not edit. Every row ran the real `pulumi` against the emulator. {about}

{summary}. It took {minutes:.0f} minutes in {worlds} worlds at once, on {cores} cores.

A row is something that goes wrong, met by a command. Most have the emulator's name for it \
(`emulator/README.md`); F18 is somebody's death by SIGKILL at a named moment. The \
[numbers](reference/failures.md) group them; those that are missing are no matter of renting.

After each row, whatever its outcome, this holds:

- What the account pays for under the stack's label is what the state knows.
- At no moment were two contracts paid for one resource.
- No secret stood in clear in any file, output, log or command line.
- Where an endpoint is up, the right model answered who has the key and refused who has not.

The columns:

- **outcome** is what the command, and what a person does after it, came to. After a death that is \
`python -m emulator up` or `pulumi cancel`, and then `up` again, or `destroy`.
- **left over** counts contracts that are alive though the state does not know them.
- **billed** is the account's whole bill for the row, with the emulator's clock running \
{speed:.0f} times as fast as the seconds in the last column. **$0.00** can be less than a cent.

{table}
"""


def main(part: str) -> int:
    """Play a part, write its page and return pytest's exit status."""
    began = time.monotonic()
    page = PAGES[part]
    worlds = int(os.environ.get("FAULTS_WORLDS") or page.worlds)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        environment = {**os.environ, "FAULTS": part, "FAULTS_ROWS": str(file)}
        environment["FAULTS_WORLDS"] = str(worlds)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "tests/faults"],
            cwd=ROOT,
            env=environment,
            check=False,
        )
        rows = [Row(**json.loads(line)) for line in file.read_text().splitlines()]
    page.file.write_text(document(page, rows, time.monotonic() - began, worlds))
    return done.returncode


def document(page: Page, rows: Iterable[Row], seconds: float, worlds: int) -> str:
    """The whole page; `seconds` is what all rows together took, in so many worlds at once."""
    rows = list(rows)
    return TEXT.format(
        title=page.title,
        command=page.command,
        about=page.about,
        summary=summary(rows),
        minutes=seconds / 60,
        worlds=worlds,
        cores=os.cpu_count(),
        speed=SPEED,
        table=as_markdown(rows),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Play a suite and write its page.")
    parser.add_argument("part", choices=[*sorted(PAGES), "rehearsal"])
    part = parser.parse_args().part
    sys.exit(rehearsal_table.main() if part == "rehearsal" else main(part))
