"""Play a day of traffic against the loop: `python -m toolchain.scale.simulate`.

Writes docs/scaling-simulation.md and its picture. It rents nothing and asks nobody; the same code
writes the same files.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from toolchain.on_emulator import ROOT
from toolchain.scale.simulation import TURN_SECONDS, Day, Machines, Sample, SimulatedWorld, play
from toolchain.scale.situation import HOUR, Limits, Rules
from toolchain.scale.traffic import HUMPS, NIGHT, Traffic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

START = dt.datetime(2026, 11, 30, tzinfo=dt.UTC).timestamp()
TRAFFIC = Traffic(peak_per_second=36.0)
MACHINES = Machines()
RULES = Rules()
BUDGET = 400.0
CEILING = 4
DIES_AT = 13 * HOUR

PAGE = "docs/scaling-simulation.md"
PICTURE = "docs/pictures/scaling.svg"


TEXT = """\
# A day of traffic against the loop

`make scale-simulation` writes this page. It is a simulation: no machine was rented, and no vLLM \
has answered. The loop is the real one, in virtual time ([scaling.md](scaling.md)).

![Requests, waiting requests, replicas and dollars over a day](pictures/scaling.svg)

{table}

Waiting are requests in a queue, and those that a replica answers beyond {sessions} at once. An \
answer's seconds count from its request on.

## What the loop did

```text
{lines}
```

## What is made up

- *Requests*: a Poisson process of changing rate, seed {seed}, with {peak:g} requests a second at \
its highest. The rate is a floor of {night:.0%} and a sum of bells. They are {bells}. There are no \
bursts in it, and clients never give up.
- *Answers*: their work is exponential. The average one takes as long as the profile \
`mistral-small-4-fp8-2xh200` has measured, by the clients of a replica. That is {points}, and \
evenly between. Further requests wait in one queue.
- *Routing*: requests are spread evenly over the replicas. A replica that goes loses no request.
- *Machines*: ${price:g}/h each, always to be had, and {low:g} to {high:g} minutes from the order \
to the first request, evenly drawn. Its container starts after a third of that. One that goes is \
billed {drain:g} minutes longer.
- *The loop*: a turn each {turn:g} minutes, none while `pulumi up` runs; ${budget:g} a day, with \
${cap:g}/h as the most that one more may cost.
"""


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to run the same day."""

    name: str
    floor: int
    ceiling: int
    loop: bool
    alive: float = float("inf")
    """Seconds after midnight at which the loop dies."""


LOOP = Variant(f"the loop, 1 to {CEILING}", 1, CEILING, loop=True)
VARIANTS = (
    Variant("1 replica all day", 1, CEILING, loop=False),
    LOOP,
    Variant("the loop, dead from 13:00 on", 1, CEILING, loop=True, alive=DIES_AT),
    Variant("3 replicas all day", 3, CEILING, loop=False),
    Variant("4 replicas all day", 4, CEILING, loop=False),
)


def main() -> int:
    """Play all variants, and write page and picture."""
    days = {variant: played(variant, TRAFFIC) for variant in VARIANTS}
    (ROOT / PAGE).write_text(page(days), encoding="utf-8")
    draw(days, ROOT / PICTURE)
    print(table(days))  # noqa: T201  (a command's own output)
    return 0


def played(variant: Variant, traffic: Traffic) -> Day:
    """Play a day one way."""
    world = SimulatedWorld(
        Limits(variant.floor, variant.ceiling, BUDGET),
        RULES,
        MACHINES,
        start=START,
        alive=variant.alive,
    )
    return play(world, traffic, loop=variant.loop)


def table(days: Mapping[Variant, Day]) -> str:
    """Give dollars, seconds of answers and waiting requests of each way, as Markdown."""
    head = (
        "| | dollars | machine hours | p50 of an answer | p95 | hours with more than 4 waiting | "
        "most waiting |"
    )
    rows = [_row(variant.name, day) for variant, day in days.items()]
    return "\n".join([head, "|---|---|---|---|---|---|---|", *rows])


def page(days: Mapping[Variant, Day]) -> str:
    """Give the content of the page."""
    low, high = (seconds / 60 for seconds in MACHINES.boot_seconds)
    bells = (f"{height:.0%} at {_hour(at)} ({width:g} h wide)" for at, width, height in HUMPS)
    return TEXT.format(
        table=table(days),
        lines="\n".join(line for line in days[LOOP].lines if " to " in line),
        sessions=RULES.sessions,
        seed=TRAFFIC.seed,
        peak=TRAFFIC.peak_per_second,
        night=NIGHT,
        bells=", ".join(bells),
        points=", ".join(f"{seconds:g} s with {clients}" for clients, seconds in MACHINES.measured),
        price=MACHINES.dollars_per_hour,
        low=low,
        high=high,
        drain=MACHINES.drain_seconds / 60,
        turn=TURN_SECONDS / 60,
        budget=BUDGET,
        cap=MACHINES.cap,
    )


def draw(days: Mapping[Variant, Day], path: Path) -> None:
    """Draw the day: what came, what waited, what ran and what it cost."""
    import matplotlib as mpl  # noqa: PLC0415  (a third of a second, for a picture alone)
    from matplotlib.figure import Figure  # noqa: PLC0415  (the same)

    loop = days[LOOP]
    hours = [one.at / HOUR for one in loop.samples]
    with mpl.rc_context({"svg.hashsalt": "scaling", "font.size": 9}):
        figure = Figure(figsize=(9, 9), layout="constrained")
        came, waits, ran, cost = figure.subplots(4, sharex=True)
        came.plot(hours, [TRAFFIC.rate(one.at - 60) for one in loop.samples], color="black")
        came.set_ylabel("requests a second")
        _lines(waits, days, lambda one: one.waiting, (VARIANTS[0], LOOP, VARIANTS[3]))
        waits.set_yscale("symlog", linthresh=10)
        waits.set_ylabel("requests waiting")
        _lines(ran, days, lambda one: one.replicas, (LOOP, VARIANTS[2]))
        billed = [one.billed for one in loop.samples]
        ran.plot(hours, billed, "--", color="gray", label="billed, of the loop's")
        ran.set_ylabel("replicas that serve")
        ran.set_yticks(range(CEILING + 1))
        _lines(cost, days, lambda one: one.dollars, VARIANTS)
        cost.axhline(BUDGET, color="gray", linestyle=":", label="budget of the loop")
        cost.set_ylabel("$ since midnight")
        cost.set_xlabel("hour of the day, UTC")
        cost.set_ylim(0, 1.2 * BUDGET)
        cost.set_xlim(0, 24)
        cost.set_xticks(range(0, 25, 3))
        for axes in (waits, ran, cost):
            axes.legend(loc="upper left", fontsize=7)
        figure.suptitle("A simulated day of traffic against the loop")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
    # Matplotlib leaves blanks at the ends of lines.
    text = path.read_text(encoding="utf-8")
    path.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n", encoding="utf-8")


def _lines(
    axes: Axes, days: Mapping[Variant, Day], of: Callable[[Sample], float], shown: Iterable[Variant]
) -> None:
    for variant in shown:
        samples = days[variant].samples
        hours = [one.at / HOUR for one in samples]
        color = f"C{VARIANTS.index(variant)}"
        axes.plot(hours, [of(one) for one in samples], color, label=variant.name, linewidth=1)


def _row(name: str, day: Day) -> str:
    last = day.samples[-1]
    ordered = sorted(day.answers)
    waited = sum(one.waiting > RULES.waiting for one in day.samples) / 60
    machine_hours = sum(one.billed for one in day.samples) / 60
    return (
        f"| {name} | ${last.dollars:.0f} | {machine_hours:.1f} | "
        f"{statistics.median(ordered):.1f} s | {ordered[int(0.95 * len(ordered))]:.1f} s | "
        f"{waited:.1f} | {max(one.waiting for one in day.samples):.0f} |"
    )


def _hour(hour: float) -> str:
    return f"{int(hour)}:{int(hour % 1 * 60):02d}"


if __name__ == "__main__":
    sys.exit(main())
