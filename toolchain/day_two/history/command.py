"""The command `make history`: what was done to a stack, with machines and dollars."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from components.core.display import shown
from components.core.errors import PlatformError
from components.resources.context import Context
from components.vast.api.models import Charge
from toolchain import on_emulator, stacks
from toolchain.configuration import PROJECT
from toolchain.day_two.answer import in_utc
from toolchain.day_two.attempt import Failed, attempt
from toolchain.day_two.command import Asked, asked, parser, run
from toolchain.day_two.fleet import NoStack
from toolchain.day_two.history.events import events, of_stack, spans
from toolchain.day_two.history.model import Event, History
from toolchain.day_two.wire import getter
from toolchain.options import whole_number

DAYS = 30
MOST_DAYS = 365
DAY = 86_400.0

PAGE = 100
MOST_PAGES = 20
"""Pages of Pulumi's history that are read: two thousand updates."""

MOST_ROWS = 40
"""Events that a person is shown, the newest."""

Clock = Callable[[float], float]
"""Turns a moment of the market's clock into one of this computer's."""


def main() -> int:
    """Read the command line, and give the exit status: 2 if the ledger could not be asked."""
    options = parser("history", "what was done to a stack")
    options.add_argument(
        "--days", type=whole_number(1, MOST_DAYS), default=DAYS, help=f"of the ledger; {DAYS}"
    )
    given = options.parse_args()
    here = asked(given)
    return run(here, lambda: history(here, here.context, read_updates(here), given.days), show)


def history(
    here: Asked, context: Context, updates: Sequence[dict[str, Any]], days: float
) -> History:
    """Ask the ledger, and join it with Pulumi's history."""
    now = context.clock.epoch()
    since = now - days * DAY
    asked_of = attempt(lambda: _ledger(context, since, now))
    if isinstance(asked_of, Failed):
        return History(
            asked_at=in_utc(now),
            stack=here.stack,
            not_asked=(f"machines and dollars are in the market's ledger: {asked_of.text}",),
            events=events(updates, (), None, since, now),
            since=in_utc(since),
            dollars=None,
        )
    ledger, alive = asked_of
    charges = here_and_now(of_stack(ledger, PROJECT, here.stack), market_clock(here, context))
    return History(
        asked_at=in_utc(now),
        stack=here.stack,
        events=events(updates, spans(charges, alive), charges, since, now),
        since=in_utc(since),
        dollars=sum(one.dollars for one in charges),
    )


def _ledger(context: Context, since: float, now: float) -> tuple[list[Charge], set[int]]:
    """The account's charges, and the contracts that are alive."""
    market = context.market(patient=False)
    return market.charges(since, now), {one.id for one in market.instances()}


def read_updates(here: Asked) -> list[dict[str, Any]]:
    """All updates of a stack, newest first.

    Raises:
        NoStack: if there is none.
        PulumiFailed: with what `pulumi` said.
    """
    if not here.on_account and not on_emulator.is_there(here.stack):
        raise NoStack(f"there is no stack {here.stack} on the emulator, and so no history")
    found: list[dict[str, Any]] = []
    for page in range(1, MOST_PAGES + 1):
        paging = ("--page-size", str(PAGE), "--page", str(page))
        words = ("stack", "history", "--json", *paging, "--stack", here.stack)
        updates = stacks.ask(here.environment, *words) or []
        # A short page is not the last: a backend may give less than it is asked for.
        if not updates:
            break
        found += updates
    return found


def here_and_now(charges: Sequence[Charge], clock: Clock) -> list[Charge]:
    """The same charges by this computer's clock."""
    return [
        dataclasses.replace(one, since=clock(one.since), until=clock(one.until)) for one in charges
    ]


def market_clock(here: Asked, context: Context) -> Clock:
    """The market's clock, which is this computer's; on the emulator it may run faster."""
    if here.on_account:
        return lambda moment: moment
    url = context.environment.get("VAST_URL", "")
    try:
        told = json.loads(getter(context.clock)(f"{url}/emulator/status").body)
        set_to, speed = float(told["clock"]), float(told["speed"])
    except (PlatformError, KeyError, TypeError, ValueError):
        return lambda moment: moment
    now = context.clock.epoch()
    return lambda moment: now - (set_to - moment) / speed


def show(answer: History) -> Sequence[RenderableType]:
    """Lay out a row for each event, the newest last, and the sum."""
    if not answer.events:
        return (Text(f"nothing was ever done to the stack {answer.stack}"),)
    rows = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("when (UTC)", "what", "release", "machines", "$", "outcome"):
        rows.add_column(
            name, justify="right" if name == "$" else "left", no_wrap=name != "machines"
        )
    for event in answer.events[-MOST_ROWS:]:
        rows.add_row(*(Text(shown(cell)) for cell in _row(event)))
    left = len(answer.events) - MOST_ROWS
    parts: list[RenderableType] = [rows, Text("")]
    if left > 0:
        parts.insert(0, Text(f"{left} earlier events are left out"))
    if answer.dollars is not None:
        day = answer.since[:10]
        parts.append(Text(f"${answer.dollars:.2f} by the ledger since {day}; $ is until the next"))
    return parts


def _row(event: Event) -> tuple[str, ...]:
    machines = [*(f"+{one}" for one in event.rented), *(f"-{one}" for one in event.ended)]
    return (
        event.at[:16].replace("T", " "),
        event.what,
        event.release or (event.commit and f"({event.commit})"),
        " ".join(machines),
        "-" if event.dollars is None else f"{event.dollars:.2f}",
        event.outcome,
    )
