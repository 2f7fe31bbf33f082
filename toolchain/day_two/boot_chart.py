"""Boots as pictures: bars over time, in a terminal and in a file. Pure but for `save`."""

from __future__ import annotations

import datetime as dt
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from components.core.display import shown
from components.core.progress import duration
from components.vast.boot_notes import MachineBoot, ServerStart
from toolchain.day_two.answer import Model

WIDTH = 40
"""Columns of a bar that lasts from the beginning to the end."""

COLUMNS = 80

DRAWN = 5
"""Boots that stand in a file, the newest."""

_FONTS = re.compile(r"@font-face \{.*?\}", re.DOTALL)
"""A picture fetches nothing when somebody looks at it."""

MACHINE, SERVER, REHEARSAL = "machine", "server", "rehearsal"

GROUPS: Mapping[str, tuple[str, ...]] = {
    "image": ("contract", "image", "container", "ports", "ssh", "check"),
    "download": ("download",),
    "load": ("load",),
    "compile": ("compile",),
    "graphs": ("graphs",),
    "answers": ("server", "model", "completion", "refusals"),
}
"""Stages by the column that they are counted in, where boots stand in a table."""

COLOURS = {
    "image": "#6b7280",
    "download": "#2563eb",
    "load": "#0891b2",
    "compile": "#d97706",
    "graphs": "#9333ea",
    "answers": "#16a34a",
    REHEARSAL: "#f59e0b",
}


class Bar(Model):
    """One stage of a boot."""

    stage: str
    lane: str
    """`machine`, `server` or `rehearsal`; the first two follow each other."""
    began: float
    """Seconds after the boot began."""
    seconds: float


class Boot(Model):
    """A machine from its contract to the first answer, or a restart of its server."""

    instance_id: int
    resource: str
    """Which of the stack's machines, such as `endpoint-instance`."""
    gpu: str
    model: str
    began_at: str
    """UTC, ISO 8601."""
    kind: str
    """`machine` for a new machine, `restart` for another start on it."""
    seconds: float
    """From the beginning to the end of the last bar."""
    failed_in: str
    """The stage in which it failed; empty if it came up."""
    cause: str
    rehearsal: str
    """What became of the rehearsal; empty where nothing was said of one."""
    bars: tuple[Bar, ...]


def boots_of(
    prefix: str, machines: Sequence[MachineBoot], starts: Sequence[ServerStart]
) -> list[Boot]:
    """Put the notes of the machines whose labels begin with `prefix` together, oldest first."""
    mine = {one.instance_id: one for one in machines if one.label.startswith(prefix)}
    made, met = [], set()
    for start in starts:
        machine = mine.get(start.instance_id)
        if machine is None:
            continue
        is_first = machine.instance_id not in met
        met.add(machine.instance_id)
        made.append(_boot(prefix, machine if is_first else None, mine[start.instance_id], start))
    made += [_boot(prefix, one, one, None) for one in mine.values() if one.instance_id not in met]
    return sorted(made, key=lambda boot: boot.began_at)


def together(boots: Sequence[Boot]) -> list[Boot]:
    """The newest boot and those that ran at the same time, as the machines of one `up` do."""
    starts = [dt.datetime.fromisoformat(boot.began_at).timestamp() for boot in boots]
    newest = starts[-1]
    return [
        boot
        for boot, began in zip(boots, starts, strict=True)
        if began + boot.seconds >= newest and boot.kind == boots[-1].kind
    ]


def waterfall(boot: Boot, whole: float = 0.0) -> Table:
    """Draw the bars of one boot below each other, in 80 columns.

    `whole` are the seconds of the width; 0 for those of this boot.
    """
    rows = Table.grid(padding=(0, 1))
    rows.add_column(no_wrap=True)
    rows.add_column(no_wrap=True, min_width=WIDTH)
    rows.add_column(no_wrap=True, justify="right")
    whole = max(whole, boot.seconds, 1e-9)
    for bar in boot.bars:
        if bar.seconds < 0.5 and bar.lane == MACHINE:  # noqa: PLR2004  (it shows as 0 s)
            continue
        before = min(round(bar.began / whole * WIDTH), WIDTH - 1)
        length = max(1, min(round(bar.seconds / whole * WIDTH), WIDTH - before))
        name = f"rehearsal: {bar.stage}" if bar.lane == REHEARSAL else bar.stage
        drawn = Text(f"{' ' * before}{'█' * length}", style=_colour(bar))
        rows.add_row(Text(shown(name)), drawn, Text(duration(bar.seconds)))
    return rows


def headline(boot: Boot) -> str:
    """Say of which boot the bars are, and how it ended."""
    what = "boot" if boot.kind == MACHINE else "restart"
    end = f"failed in {boot.failed_in} ({boot.cause})" if boot.failed_in else "answered"
    rehearsed = f"; its rehearsal {_became(boot.rehearsal)}" if boot.rehearsal else ""
    return shown(
        f"{what} of instance {boot.instance_id} ({boot.gpu}): {end} after "
        f"{duration(boot.seconds)}, begun {boot.began_at[:16]}{rehearsed}"
    )


def by_group(boot: Boot) -> dict[str, float]:
    """Add the seconds of a boot up by `GROUPS`."""
    return {
        group: sum(bar.seconds for bar in boot.bars if bar.lane != REHEARSAL and bar.stage in names)
        for group, names in GROUPS.items()
    }


def save(boots: Sequence[Boot], path: Path) -> None:
    """Draw the newest boots, newest first, in one measure of time, as SVG.

    Raises:
        OSError: it cannot be written.
    """
    drawn = list(reversed(boots[-DRAWN:]))
    slowest = max(boot.seconds for boot in drawn)
    paper = Console(file=io.StringIO(), record=True, width=COLUMNS, force_terminal=True)
    for boot in drawn:
        paper.print(Text(headline(boot), style="bold"), waterfall(boot, slowest), "", sep="\n")
    svg = _FONTS.sub("", paper.export_svg(title="boots, the newest first", unique_id="boots"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(svg.replace("Fira Code, monospace", "monospace"), encoding="utf-8")


def _boot(
    prefix: str, first: MachineBoot | None, machine: MachineBoot, start: ServerStart | None
) -> Boot:
    """Make a boot: `first` is the machine if this start was the first one on it."""
    bars = _machine_bars(first) if first else []
    began_at = first.ended_at - sum(first.seconds.values()) if first else 0.0
    if start:
        began_at = began_at or start.began_at
        bars += _server_bars(start, max(start.began_at - began_at, _end(bars)))
    return Boot(
        instance_id=machine.instance_id,
        resource=machine.label.removeprefix(prefix).partition("/")[0],
        gpu=machine.gpu,
        model=start.model if start else "",
        began_at=dt.datetime.fromtimestamp(began_at, dt.UTC).isoformat(timespec="seconds"),
        kind=MACHINE if first else "restart",
        seconds=_end(bars),
        failed_in=start.failed_in if start else "",
        cause=start.cause if start else "",
        rehearsal=str(((start and start.rehearsal) or {}).get("course", "")),
        bars=tuple(bars),
    )


def _machine_bars(boot: MachineBoot) -> list[Bar]:
    return _row(boot.seconds, MACHINE, 0.0)


def _server_bars(start: ServerStart, offset: float) -> list[Bar]:
    """Lay out the stages of a server, and its rehearsal behind the download that it ran beside."""
    stages = _row(start.seconds, SERVER, offset)
    rehearsed = _rehearsal_bars(start.rehearsal or {}, offset)
    place = 1 if stages and stages[0].stage == "download" else 0
    return [*stages[:place], *rehearsed, *stages[place:]]


def _row(seconds: Mapping[str, float], lane: str, offset: float) -> list[Bar]:
    bars = []
    for stage, took in seconds.items():
        bars.append(Bar(stage=stage, lane=lane, began=offset, seconds=took))
        offset += took
    return bars


def _rehearsal_bars(found: Mapping[str, Any], offset: float) -> list[Bar]:
    """Lay out a rehearsal by the stages that its log reached, up to its end."""
    began, ended = found.get("began"), found.get("ended")
    if began is None or ended is None:
        return []
    reached = sorted((float(at), name) for name, at in (found.get("stages") or {}).items())
    length = ended - began
    moments = [(at, name) for at, name in reached if at < length] or [(0.0, "start")]
    ends = [at for at, _ in moments[1:]] + [length]
    return [
        Bar(stage=name, lane=REHEARSAL, began=offset + began + at, seconds=end - at)
        for (at, name), end in zip(moments, ends, strict=True)
    ]


def _end(bars: Sequence[Bar]) -> float:
    return max((bar.began + bar.seconds for bar in bars if bar.lane != REHEARSAL), default=0.0)


def _colour(bar: Bar) -> str:
    if bar.lane == REHEARSAL:
        return COLOURS[REHEARSAL]
    return next((COLOURS[name] for name, of in GROUPS.items() if bar.stage in of), "#000000")


def _became(course: str) -> str:
    words = {"running": "was still running", "ended": "was ended", "skipped": "was skipped"}
    return words.get(course, course)
