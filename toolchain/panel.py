"""The main facts of a stack that is up, in a few lines, which `make up` shows at its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from components.core.commands import DEFAULT_STACK, on_emulator
from components.core.display import shown

WIDEST = 100
"""Columns that the panel takes at most."""

NOT_LISTED = frozenset({"readme", "smoke_report", "boot_seconds", "companion_revisions"})
"""Objects, and a page for Pulumi's own console."""


def panel(stack: str, known: Mapping[str, Any], *, billed_at: str) -> Panel:
    """Say where the endpoint is, what it costs, how to ask it and how to end it.

    `known` are a stack's unfolded outputs; `billed_at` says whose money it is.
    """
    of_stack = "" if stack == DEFAULT_STACK else f" STACK={stack}"
    rows = Table.grid(padding=(0, 2))
    rows.add_column(no_wrap=True)
    rows.add_column(overflow="fold")
    for name, value in (
        ("endpoint", str(known["endpoint_url"])),
        ("model", str(known["model"])),
        *_machines(known),
        ("price", f"${float(known['hourly_cost']):.2f}/h {billed_at}"),
        ("", ""),
        ("ask", f'make chat{of_stack} MSG="..."'),
        ("key, SSH", f"make outputs{of_stack}  (lists them, and says how to show a secret)"),
        ("end it", f"make down{of_stack}"),
    ):
        rows.add_row(Text(name, style="bold"), Text(shown(value)))
    return Panel(rows, title=Text(f"stack {stack} is up"), expand=False)


def _machines(known: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name the machine, or several and the router in front of them."""
    replicas = known.get("replicas")
    if not replicas:
        gpu = known.get("gpu") or "GPUs"
        return [("machine", f"{gpu}, instance {int(known['instance_id'])}")]
    instances = ", ".join(str(int(one["instance_id"])) for one in replicas)
    gpus = " or ".join(sorted({str(one["gpu"]) for one in replicas}))
    return [
        ("machines", f"{len(replicas)} of {gpus}: instances {instances}"),
        ("router", str(known["router"]["where"])),
    ]


def listing(known: Mapping[str, Any]) -> Table:
    """Every output in a line, short where it is long."""
    names = sorted(set(known) - NOT_LISTED)
    rows = Table.grid(padding=(0, 2))
    rows.add_column(no_wrap=True, min_width=max(map(len, names), default=0))
    rows.add_column(no_wrap=True, overflow="ellipsis")
    for name in names:
        rows.add_row(
            Text(name, style="bold"), Text(_short(known[name]), no_wrap=True, overflow="ellipsis")
        )
    return rows


def how_to_show(stack: str) -> str:
    """Give the command that prints one output unchanged; unbroken, since it is copied."""
    command = on_emulator("stack output api_key --show-secrets", stack)
    return f"\nin make shell, each of them as it is:\n{command}"


def console() -> Console:
    """The terminal of a command, or 80 columns where there is none, and never wider than needed."""
    found = Console(highlight=False)
    width = min(found.width, WIDEST) if found.is_terminal else 80
    return Console(highlight=False, width=width, soft_wrap=False)


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        named = ("name", "where", "version", "digest", "proven", "let_in")
        return ", ".join(f"{one} {value[one]}" for one in named if value.get(one) not in {None, ""})
    if isinstance(value, list):
        return ", ".join(str(one.get("name")) for one in value)
    whole = isinstance(value, float) and value.is_integer()
    text = str(int(value)) if whole else str(value)
    lines = text.strip().splitlines() or [""]
    return shown(lines[0] if len(lines) == 1 else f"{lines[0]} ... ({len(lines)} lines)")
