"""The page that has every command of day two in every scene: what a scene is, and its layout. Pure.

`toolchain.day_two.story` plays the scenes.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence

COMMANDS: Mapping[str, tuple[str, ...]] = {
    "status": ("toolchain.day_two.status",),
    "logs": ("toolchain.day_two.logs",),
    "doctor": ("toolchain.day_two.doctor", "--stack", "local"),
    "history": ("toolchain.day_two.history",),
    "compare": ("toolchain.day_two.compare",),
    "boots": ("toolchain.day_two.boots",),
    "field-report": ("toolchain.day_two.field_report",),
    "cost": ("toolchain.cost", "--stack", "local"),
    "dashboard": ("toolchain.day_two.dashboard",),
    # Short loads: what the command says in each scene is shown, and no curve.
    "load": (
        "toolchain.day_two.load",
        *("--clients", "1,2", "--each", "10", "--prompt", "128", "--answer", "16"),
    ),
}
"""Module and arguments of each command, by its goal of `make`."""

COLUMNS = 80

LAST_LINES = 8
"""Of a log that is shown."""

ENDS = (12, 16)
"""Lines of a field report that are shown, at its beginning and its end, but for the first one."""


@dataclasses.dataclass(frozen=True)
class Scene:
    """A state of a stack in which each command is asked."""

    name: str
    title: str
    about: str


SCENES = (
    Scene("one", "One machine", "All is well."),
    Scene(
        "wrong-key",
        "A key that the endpoint does not take",
        "The host's list of keys was changed behind the stack's back.",
    ),
    Scene(
        "wrong-account",
        "A key that the market does not take",
        "Whoever asks has another API key of Vast.ai than the account's.",
    ),
    Scene(
        "down",
        "The endpoint is down",
        "vLLM was killed, and what starts it again stands still.",
    ),
    Scene("four", "Four machines", "They stand behind one router, and all is well."),
    Scene(
        "one-of-four-down",
        "One of four is down",
        "vLLM was killed on one machine, and what starts it again stands still.",
    ),
    Scene(
        "hostile",
        "A host that lies",
        "One host of four answers what no server answers, over HTTP and SSH.",
    ),
    Scene(
        "router-down",
        "The router is down",
        "Its processes were killed, on a computer without systemd. Four machines are well.",
    ),
    Scene("destroyed", "A stack that was destroyed", "Nothing is billed any more."),
)


@dataclasses.dataclass(frozen=True)
class Printed:
    """What a command has printed, and how its module ended."""

    command: str
    status: int
    text: str


HEAD = """\
# Day two, scene by scene

Written by `make day-two`; do not edit. Each command of [day-two.md](day-two.md) was asked in each \
of these scenes, on the emulator. There was no terminal, so it prints 80 columns and no colours.

{contents}

The exit status is the module's, as [day-two.md](day-two.md#how-they-answer) says. Of a log, the \
last {lines} lines are shown; the middle of a field report is left out but once. Lines that are \
longer than 80 characters are folded here. An output that stands here once is not repeated.
"""


def page(played: Mapping[str, Sequence[Printed]]) -> str:
    """Lay out what was printed, by the names of the scenes."""
    contents = "\n".join(f"- [{one.title}](#{_anchor(one.title)})" for one in SCENES)
    parts = [HEAD.format(contents=contents, lines=LAST_LINES)]
    known: dict[tuple[str, int, str], Scene] = {}
    for scene in SCENES:
        parts.append(f"## {scene.title}\n\n{scene.about}\n")
        for one in played[scene.name]:
            before = known.setdefault((one.command, one.status, one.text), scene)
            is_short = one.command == "field-report" and scene is not SCENES[0]
            parts.append(_block(_without_middle(one) if is_short else one, scene, before))
    return "\n".join(parts)


def shortened(text: str) -> str:
    """Leave the end of a log, each line cut to what a document has room for."""
    lines = text.splitlines()
    left_out = len(lines) - LAST_LINES
    head = [f"[{left_out} lines before these are left out]"] * (left_out > 0)
    return "\n".join([*head, *map(_cut, lines[-LAST_LINES:])])


def folded(text: str) -> str:
    """Fold lines that are wider than a terminal without one."""
    lines: list[str] = []
    for line in text.splitlines():
        lines += [line] if len(line) <= COLUMNS else textwrap.wrap(line, COLUMNS) or [line]
    return "\n".join(lines)


def _block(one: Printed, scene: Scene, before: Scene) -> str:
    ends = f"`make {one.command}` ends with {one.status}"
    if before is not scene:
        return f"{ends}, and prints the same as [there](#{_anchor(before.title)}).\n"
    body = "\n".join(f"    {line}".rstrip() for line in folded(one.text).splitlines())
    name = f"{scene.name}-{one.command}".replace(" ", "-").replace("=", "-").lower()
    mark = f"<!-- output: {name} -->"
    return f"{ends}:\n\n{mark}\n\n{body or '    (nothing)'}\n\n<!-- end of output -->\n"


def _without_middle(one: Printed) -> Printed:
    lines = one.text.splitlines()
    first, last = ENDS
    left_out = len(lines) - first - last
    if left_out <= 0:
        return one
    middle = f"[{left_out} lines between these are left out]"
    return dataclasses.replace(one, text="\n".join([*lines[:first], middle, *lines[-last:]]))


def _anchor(title: str) -> str:
    return title.lower().replace(",", "").replace(" ", "-")


def _cut(line: str) -> str:
    return line if len(line) <= COLUMNS - 2 else f"{line[: COLUMNS - 5]}..."
