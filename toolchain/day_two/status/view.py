"""How `make status` looks to a person, in 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from components.core.display import shown
from components.core.progress import duration
from toolchain.day_two.command import facts, what_is_wrong
from toolchain.day_two.metrics import Quantile
from toolchain.day_two.status.model import Costs, End, MachineStatus, Speed, Status

WORDS = ("#", "contract", "GPUs", "state", "server")
FIGURES = ("temp", "GiB", "run", "wait", "KV", "tok/s")
"""Columns of the machines: degrees Celsius, memory of the GPUs, requests in work and in the queue,
share of the KV cache, tokens written a second."""

NOTHING = "-"
"""Stands for a figure that nobody gave."""


def show(status: Status) -> Sequence[RenderableType]:
    """Lay out the answer without what is wrong, which every command shows alike."""
    style = "bold green" if status.verdict == "well" else "bold red"
    verb = "" if status.verdict == "could not be asked" else "is "
    title = Text.assemble(f"stack {status.stack} {verb}", (status.verdict, style))
    parts: list[RenderableType] = [title]
    if status.endpoint_url:
        parts.append(
            facts(
                [
                    ("endpoint", status.endpoint_url),
                    ("router", status.router),
                    ("model", status.model),
                    ("release", status.release or "none: it runs its own settings"),
                ]
            )
        )
    if status.machines:
        parts += [Text(""), _machines(status.machines), Text("")]
    parts.append(
        facts(
            [
                *(_speed(status.speed) if status.speed else ()),
                *(_costs(status.costs) if status.costs else ()),
                *_ends(status.ends),
            ]
        )
    )
    return parts


def frame(status: Status) -> Group:
    """Everything in one piece, for a terminal that is written over."""
    return Group(*show(status), *what_is_wrong(status))


def _machines(machines: Sequence[MachineStatus]) -> Table:
    # No lines and little room between columns, so that a row fits into 80 of them.
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in WORDS:
        made.add_column(name, no_wrap=name in {"#", "contract"})
    for name in FIGURES:
        made.add_column(name, justify="right", no_wrap=True)
    several = len({one.endpoint for one in machines}) > 1
    for one in machines:
        made.add_row(*(Text(shown(cell)) for cell in _row(one, several=several)))
    return made


def _row(one: MachineStatus, *, several: bool) -> tuple[str, ...]:
    return (
        f"{one.endpoint} {one.replica}" if several else str(one.replica),
        str(one.contract),
        one.gpu,
        one.state,
        one.server,
        _figure(one.gpu_temperature, "{:.0f} C"),
        NOTHING
        if one.gpu_memory_used is None or one.gpu_memory is None
        else f"{one.gpu_memory_used:.0f}/{one.gpu_memory:.0f}",
        _figure(one.running, "{}"),
        _figure(one.waiting, "{}"),
        _figure(None if one.kv_cache is None else one.kv_cache * 100, "{:.0f}%"),
        _figure(one.tokens_per_second, "{:.0f}"),
    )


def _speed(speed: Speed) -> list[tuple[str, str]]:
    when = f"the last {duration(speed.seconds)}"
    if speed.is_since_start:
        when = f"the {duration(speed.seconds)} since the start, for want of an earlier look"
    first = "not counted" if speed.requests else "no request"
    if speed.first_token_p50 and speed.first_token_p99:
        p50, p99 = _seconds(speed.first_token_p50), _seconds(speed.first_token_p99)
        first = f"p50 {p50}, p99 {p99}, of {speed.requests} requests"
    return [
        ("first token", f"{first} in {when}"),
        ("tokens", f"{speed.tokens_per_second:.1f} written a second, in the same time"),
    ]


def _costs(costs: Costs) -> list[tuple[str, str]]:
    price = f"${costs.dollars_per_hour:.2f}/h now"
    if costs.dollars is None or costs.hours is None:
        return [("cost", f"{price}; the ledger says nothing of these machines yet")]
    rows = [("cost", f"${costs.dollars:.2f} for {costs.hours:.2f} h by the ledger; {price}")]
    if costs.per_million_written is not None and costs.per_million is not None:
        text = (
            f"${costs.per_million_written:.2f} for tokens written, ${costs.per_million:.2f} with "
            f"those read; {costs.written:,} written since the servers' start"
        )
        rows.append(("per million", text))
    return rows


def _ends(ends: Sequence[End]) -> list[tuple[str, str]]:
    """A row for each kind of end, with the soonest moment of all machines that it is of."""
    kinds: dict[str, list[End]] = {}
    for end in sorted(ends, key=lambda one: (not one.at, one.at)):
        kinds.setdefault(end.text, []).append(end)
    return [
        ("ends" if n == 0 else "", f"{_at(alike[0])}{_whose(alike)}: {text}")
        for n, (text, alike) in enumerate(kinds.items())
    ]


def _whose(alike: Sequence[End]) -> str:
    """Name what ends alike: one thing, or the first machine and how many follow it."""
    more = len(alike) - 1
    return alike[0].about if not more else f"{alike[0].about}, later {more} more"


def _at(end: End) -> str:
    return f"{end.at[:16].replace('T', ' ')} UTC  " if end.at else ""


def _seconds(quantile: Quantile) -> str:
    more = "over " if quantile.is_more else ""
    return f"{more}{quantile.seconds:.2f} s"


def _figure(value: float | None, form: str) -> str:
    return NOTHING if value is None else form.format(value)
