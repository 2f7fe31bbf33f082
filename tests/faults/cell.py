"""One cell of the table: a fault, the command that meets it, and what is promised."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any, Literal

from tests.faults.world import CREDIT, World, books_agree, doubles, never_two, nothing_leaked

Standing = Literal[
    "nothing", "running", "create-first", "interruptible", "two", "three", "two, create-first"
]
"""What a cell begins with, or leaves: an empty account, or a stack that is up in one way."""

SETTINGS: dict[Standing, dict[str, Any]] = {
    "nothing": {},
    "running": {},
    "create-first": {"replacement": "create-first", "drainMinutes": 0},
    "interruptible": {
        "contract": "interruptible",
        "rerentTries": 100,
        "rerentDollars": "1000",
    },
    "two": {"replicas": 2, "drainMinutes": 1},
    "three": {"replicas": 3, "drainMinutes": 1},
    "two, create-first": {"replicas": 2, "drainMinutes": 1, "replacement": "create-first"},
}
"""What the stack is configured with, beside what every stack is."""

Part = Literal["short", "whole", "more", "several"]
"""Where a cell is played: in the short suite and the whole one, in the whole one alone, or apart
from both, being another way to meet the same, or one that several machines meet."""

Act = Callable[[World], str]
"""Lets the fault happen, asserts what is promised, and says in a few words what came of it."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """A fault x command."""

    fault: str
    """The row of `failures.md`: F01 ... F26."""
    name: str
    """The fault, by the emulator's name, with its variant."""
    command: str
    act: Act
    needs: Standing
    leaves: Standing
    part: Part

    @property
    def id(self) -> str:
        """Its name for pytest."""
        words = f"{self.fault} {self.command} {self.name}"
        return "-".join(words.replace(",", "").replace(":", "").split())


@dataclasses.dataclass(frozen=True)
class Row:
    """What came of a cell. Money in $, time in seconds."""

    fault: str
    name: str
    command: str
    outcome: str
    left_over: int
    """Contracts that are alive though the state does not know them."""
    doubles: int
    """Pairs of contracts that were paid for one resource at one moment."""
    dollars: float
    seconds: float
    throttled: int
    """429 by the account's own pace."""
    kept: bool
    """Whether everything promised held."""
    requests: str = ""
    """How many of the clients' requests failed, in words; empty where no client asks."""


class Book:
    """The cells of one theme, in the order in which they are written down."""

    def __init__(self) -> None:
        """Begin with none."""
        self.cells: list[Cell] = []

    def cell(
        self,
        fault: str,
        name: str,
        command: str,
        *,
        needs: Standing = "nothing",
        leaves: Standing = "nothing",
        part: Part = "short",
    ) -> Callable[[Act], Act]:
        """Make a function a cell."""

        def add(act: Act) -> Act:
            self.cells.append(Cell(fault, name, command, act, needs, leaves, part))
            return act

        return add


def play(cell: Cell, world: World) -> tuple[Row, BaseException | None]:
    """Let a cell happen where what it needs already stands; check what holds after every cell."""
    account = world.account
    account.set_credit(CREDIT)
    spent, throttled, doubled = _spent(world), account.throttled(), len(doubles(world))
    began = time.monotonic()
    world.requests = ""
    failure: BaseException | None = None
    outcome = ""
    try:
        outcome = cell.act(world)
        account.disarm()
        books_agree(world)
        never_two(world)
        nothing_leaked(world)
        if cell.leaves != "nothing":
            assert world.answers(), "the endpoint does not answer"
    except BaseException as error:  # noqa: BLE001  (pytest raises it again, in the cell's own test)
        failure = error
        outcome = f"BROKEN: {str(error).strip().splitlines()[0][:100] if str(error) else error!r}"
        account.disarm()
    alive = {int(one["id"]) for one in account.alive()}
    row = Row(
        fault=cell.fault,
        name=cell.name,
        command=cell.command,
        outcome=outcome,
        left_over=len(alive - world.stack.instance_ids()),
        doubles=len(doubles(world)) - doubled,
        dollars=_spent(world) - spent,
        seconds=time.monotonic() - began,
        throttled=account.throttled() - throttled,
        kept=failure is None,
        requests=world.requests,
    )
    return row, failure


def _spent(world: World) -> float:
    return float(world.account.ledger()["total"])
