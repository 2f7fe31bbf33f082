"""Show how a stack's machines started: `python -m toolchain.day_two.boots --stack dev`.

Each `up` notes on this computer how its machine and its server started, so boots that another
computer has seen are not here. The newest boot is drawn as a waterfall, with those before it in a
table, and all of them in a file.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.console import RenderableType
from rich.text import Text

from components.core.tables import table
from components.vast.boot_notes import BootNotes
from components.vast.labels import stack_prefix
from toolchain.configuration import project_name
from toolchain.day_two.answer import Answer, in_utc
from toolchain.day_two.boot_chart import (
    GROUPS,
    Boot,
    boots_of,
    by_group,
    headline,
    save,
    together,
    waterfall,
)
from toolchain.day_two.command import Asked, asked, parser, run
from toolchain.on_emulator import BELONGINGS, ROOT

SHOWN = 10
"""Boots in the table, the newest."""

KEPT = 20
"""Files that are kept of a stack, the newest."""

HEADINGS = ("begun", "instance", *GROUPS, "whole", "end")


class Boots(Answer):
    """The boots of a stack that this computer has seen, oldest first."""

    format: Literal["vast-vllm/boots/1"] = "vast-vllm/boots/1"
    boots: tuple[Boot, ...]
    file: str = ""
    """Where they are drawn; empty if nothing was drawn."""


def main() -> int:
    """Print the boots and draw them; a stack without any is well."""
    command = asked(parser("boots", __doc__).parse_args())
    return run(command, lambda: boots(command), show)


def boots(command: Asked) -> Boots:
    """Read the notes on a stack's boots, and draw them.

    Raises:
        StackError: there are no credentials or no folder, so no notes of an account.
    """
    context = command.context
    found = noted(context.boot_notes(), command.stack)
    file, notes = _drawn(found, command.stack)
    return Boots(
        asked_at=in_utc(context.clock.epoch()),
        stack=command.stack,
        boots=tuple(found),
        file=file,
        notes=notes,
    )


def noted(notes: BootNotes, stack: str) -> list[Boot]:
    """Give the boots of a stack that were noted, oldest first."""
    return boots_of(stack_prefix(project_name(ROOT), stack), notes.machines(), notes.starts())


def show(answer: Boots) -> Sequence[RenderableType]:
    """Draw the newest boot, and put those before it into a table."""
    if not answer.boots:
        return [Text(f"this computer has seen no boot of the stack {answer.stack}")]
    newest = answer.boots[-1]
    parts: list[RenderableType] = [Text(headline(newest), style="bold"), waterfall(newest)]
    earlier = answer.boots[-SHOWN - 1 : -1]
    if earlier:
        made = table(HEADINGS, map(_row, reversed(earlier)), numbers={*GROUPS, "whole"})
        # Lines between the columns would take it beyond 80.
        made.box, made.padding = None, (0, 1, 0, 0)
        parts += [Text("\nbefore it, seconds by stage", style="bold"), made]
    return parts


def show_newest(notes: BootNotes, stack: str) -> Sequence[RenderableType]:
    """Draw the boots of the last `up`; nothing if they were drawn before, or none is noted.

    Several machines that started together have a headline each, and the slowest one is drawn.
    """
    found = noted(notes, stack)
    if not found or picture(stack, found[-1]).exists():
        return []
    alike = together(found)
    slowest = max(alike, key=lambda boot: boot.seconds)
    lines = [Text(headline(boot), style="bold") for boot in alike]
    _, where = _drawn(found, stack)
    return [*lines, waterfall(slowest), *map(Text, where)]


def picture(stack: str, boot: Boot, folder: Path = BELONGINGS) -> Path:
    """Where the picture of a boot and of those before it stands."""
    when = boot.began_at[:19].replace(":", "")
    return folder / "boots" / stack / f"{when}-{boot.instance_id}.svg"


def _drawn(found: Sequence[Boot], stack: str) -> tuple[str, tuple[str, ...]]:
    """Draw boots unless their picture exists, and drop the oldest pictures."""
    if not found:
        return "", ()
    path = picture(stack, found[-1])
    try:
        if not path.exists():
            save(found, path)
        for old in sorted(path.parent.glob("*.svg"))[:-KEPT]:
            old.unlink(missing_ok=True)
    except OSError as error:
        return "", (f"the boots are not drawn: {path} cannot be written ({error.strerror})",)
    return str(path), (f"drawn in {path}",)


def _row(boot: Boot) -> tuple[str, ...]:
    groups = by_group(boot)
    return (
        boot.began_at[5:16].replace("T", " "),
        str(boot.instance_id),
        *(f"{groups[name]:.0f}" if groups[name] else "-" for name in GROUPS),
        f"{boot.seconds:.0f}",
        f"failed: {boot.failed_in}" if boot.failed_in else "answered",
    )


if __name__ == "__main__":
    sys.exit(main())
