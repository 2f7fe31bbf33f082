"""How long many machines take against one: `make many`, on the emulator, in real time.

All boots have one length, so the ratio says what renting side by side costs: the market's pace, the
providers, and this computer's own work. All hosts of the emulator share this computer; with few
cores, the start of many stand-ins at once is a part of the figure.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
import tempfile
import threading
import time
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

import psutil
from rich.console import Console
from rich.table import Table

from tests.helpers.stack_world import REAL, Emulator, Stack

MOST = 1.3
"""Of the wall clock of one machine, what many may take."""

SAME = 1.25
"""Of the calls a minute for one machine that waits, what many that wait may make."""

SETTINGS: dict[str, Any] = {
    "model": "qwen2.5-0.5b-1x4090",
    # Small machines of the steady market: 26 that fit.
    "offerQuery": (
        "gpu_name in [RTX_3090,RTX_4090,RTX_5090,L40S,H100_NVL,H100_SXM,H200,H200_NVL] num_gpus=1"
    ),
    "minInetDownMbps": 300,
    "maxDollarsPerHour": "4.00",
    "drainMinutes": 0,
    "expectedHours": 1,
}

NEAR = 6
"""Calls before a refused one that are shown: the market lets five through in ten seconds."""

SETTLED = 30.0
"""Seconds after the last rent call until nothing but the wait asks the market."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """What bringing up so many machines took."""

    replicas: int
    seconds: float
    waiting: float
    """Calls a minute while all machines waited for their images; 0 if they never did together."""
    calls: int
    """Of the market's API in all."""
    refusals: tuple[str, ...]
    """Calls that got 429, the end of the machines included, each with those before it."""
    gigabytes: float
    """Of memory beyond what was in use before, at most."""


def main() -> int:
    """Measure both, print a table, and fail if many take too long or ask too much.

    Boots that are too short for a look at the wait are a failure as well.
    """
    given = _arguments()
    console = Console()
    with (
        # HAProxy's sockets stand in it, whose paths are short.
        tempfile.TemporaryDirectory(prefix="many-") as folder,
        Emulator(Path(folder), speed=given.speed, pace=REAL) as emulator,
    ):
        emulator.arm("pull_takes", 1 + given.replicas, seconds=given.boot_seconds)
        emulator.refill()
        console.print(f"boots of {given.boot_seconds} s: 1 machine, then {given.replicas}")
        one = measured(Path(folder), emulator, 1)
        # What follows may fail after an hour, and this says what the first part has shown.
        console.print(table([one]))
        many = measured(Path(folder), emulator, given.replicas)
    console.print(table([one, many]))
    ratio = many.seconds / one.seconds
    console.print(f"{many.replicas} machines take {ratio:.2f} times as long as one")
    found = problems(one, many)
    for problem in found:
        console.print(f"[red]{problem}[/red]")
    return 1 if found else 0


def problems(one: Measured, many: Measured) -> list[str]:
    """Say in which ways many machines are not as cheap to wait for as they should be."""
    found = []
    if many.seconds > MOST * one.seconds:
        found.append(f"more than {MOST} times the wall clock of one machine")
    if not (one.waiting and many.waiting):
        found.append("the calls while all wait were not seen: take longer boots")
    elif many.waiting > SAME * one.waiting:
        found.append(f"more than {SAME} times the calls a minute while waiting")
    found += [f"the market has answered 429: {said}" for said in one.refusals + many.refusals]
    return found


def measured(folder: Path, emulator: Emulator, replicas: int) -> Measured:
    """Bring a stack of so many machines up, and end it again."""
    stack = Stack(folder / f"stack-{replicas}", emulator, name=f"many{replicas}")
    stack.environment |= {
        "PULUMI_PARALLEL": str(2 * replicas + 8),
        "VASTVLLM_ROUTERS": str(folder / "r"),
        # Both stacks are of one computer, whose processes keep the key's pace together.
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    stack.configure(**SETTINGS, replicas=replicas)
    before = emulator.last_request()
    with _Memory() as memory:
        began = time.monotonic()
        done = stack.up()
        seconds = time.monotonic() - began
    calls = emulator.requests(before)
    machines = [one["machine_id"] for one in emulator.status()["contracts"]]
    ended = stack.destroy()
    refusals = refused(emulator.requests(before))
    if done.status != 0 or ended.status != 0:
        sys.exit(f"{done.outcome()}\n{ended.outcome()}")
    if len(set(machines)) != replicas:
        sys.exit(f"{replicas} machines were asked for, and these were rented: {machines}")
    return Measured(
        replicas,
        seconds,
        calls_while_waiting(calls),
        len(calls),
        refusals,
        memory.most / 1e9,
    )


def calls_while_waiting(calls: list[dict[str, Any]]) -> float:
    """Calls a minute from the last rent call on until the first machine has started."""
    rents = [float(call["time"]) for call in calls if "/asks/" in call["path"]]
    starts = [float(call["time"]) for call in calls if "/request_logs/" in call["path"]]
    if not rents or not starts:
        return 0.0
    since, until = max(rents) + SETTLED, min(starts)
    if until <= since:
        return 0.0
    return sum(since <= float(call["time"]) < until for call in calls) / (until - since) * 60


def refused(calls: list[dict[str, Any]]) -> tuple[str, ...]:
    """Name each call that got 429, and how long before it those came that it was too near to."""
    found = []
    for at, call in enumerate(calls):
        if call["status"] != HTTPStatus.TOO_MANY_REQUESTS:
            continue
        near = [
            f"{one['method']} {one['path']} {float(call['time']) - float(one['time']):.2f} s before"
            for one in calls[max(0, at - NEAR) : at]
        ]
        found.append(f"{call['method']} {call['path']}, {', '.join(near)}")
    return tuple(found)


def table(rows: list[Measured]) -> Table:
    """The figures for a person."""
    drawn = Table("machines", "wall clock s", "calls/min waiting", "calls", "429", "memory GB")
    for row in rows:
        drawn.add_row(
            str(row.replicas),
            f"{row.seconds:.0f}",
            f"{row.waiting:.1f}",
            str(row.calls),
            str(len(row.refusals)),
            f"{row.gigabytes:.1f}",
        )
    return drawn


class _Memory:
    """Looks at this computer's memory while the block runs."""

    def __init__(self) -> None:
        self.most = 0.0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _look(self) -> None:
        before = psutil.virtual_memory().available
        for _ in itertools.count():
            self.most = max(self.most, before - psutil.virtual_memory().available)
            if self._is_over.wait(2.0):
                return


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="many", description=__doc__)
    parser.add_argument("--replicas", type=int, default=16)
    parser.add_argument("--boot-seconds", type=int, default=600, help="emulated, of each pull")
    parser.add_argument("--speed", type=float, default=1.0, help="of the emulator's time")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
