"""Turns of the loop: read, decide, act, and say so in one line.

What a turn needs of the world is a `World`. The simulation has one in virtual time, and plays the
same turns.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping
from typing import Protocol

from components.core.clock import Clock
from components.core.errors import PlatformError, StackError
from components.scaling.running import Extras, Lease, new_lease
from toolchain.scale.decide import Decision, decide
from toolchain.scale.memory import Memory
from toolchain.scale.situation import Bill, Extra, Limits, Reading, Rules, Situation


@dataclasses.dataclass(frozen=True)
class Stack:
    """What settings, state and market say of a stack."""

    limits: Limits
    extras: Extras
    """The leases in its state."""
    contracts: Mapping[int, int]
    """Contracts of the replicas above the floor, by index, as the state has them."""
    prices: Mapping[int, float]
    """$/h of each contract of the stack that the market lists, by id."""
    bill: Bill

    def listed(self) -> tuple[Extra, ...]:
        """Give the extras, and whether their machines are there."""
        found = []
        for index, lease in sorted(self.extras.leases.items()):
            price = self.prices.get(self.contracts.get(index, 0))
            found.append(Extra(index, lease.until, price or 0.0, price is not None))
        return tuple(found)


class World(Protocol):
    """What a turn asks, and what it may do."""

    def stack(self) -> Stack:
        """Read state, market and ledger.

        Raises:
            StackError: if one of them does not say.
        """

    def reading(self) -> Reading:
        """Read the load of the endpoint.

        Raises:
            StackError: if it is not known.
        """

    def order(self, extras: Extras) -> None:
        """Run `pulumi up` with these replicas above the floor.

        Raises:
            StackBusy: if another command works on the stack.
            StackError: if it fails.
        """


class StackBusy(PlatformError):
    """Another command works on the stack.

    Cost: nothing was changed.
    Remedy: none is needed: the next turn tries again.
    """


@dataclasses.dataclass(frozen=True)
class Turn:
    """What became of a turn."""

    line: str
    memory: Memory
    """What the next one has to know."""
    failed: bool = False
    """Whether a step has failed; a turn that was skipped has not."""


def turn(world: World, memory: Memory, rules: Rules, clock: Clock) -> Turn:
    """Play one turn."""
    try:
        stack = world.stack()
        reading = world.reading()
    except StackError as error:
        return Turn(_line(clock, f"skipped: {error}"), memory)
    memory = memory.with_reading(reading, clock.epoch())
    situation = Situation(
        now=clock.epoch(),
        limits=stack.limits,
        bill=stack.bill,
        extras=stack.listed(),
        readings=memory.readings,
        changed_at=memory.changed_at,
        failed_at=memory.failed_at,
        failures=memory.failures,
    )
    decision = decide(situation, rules)
    words = _words(situation, decision)
    if not decision.acts:
        return Turn(_line(clock, words), memory)
    try:
        world.order(ordered(stack, decision, clock.epoch()))
    except StackBusy as error:
        return Turn(_line(clock, f"skipped: {error}; it was to be: {words}"), memory)
    except StackError as error:
        tried = decision.rents or decision.repairs
        failed = memory.failed(clock.epoch()) if tried else memory
        return Turn(_line(clock, f"{words}; that failed: {error}"), failed, failed=True)
    if decision.rents or decision.ends or decision.repairs:
        came_up = bool(decision.rents) or decision.repairs
        memory = memory.changed(clock.epoch(), rented=came_up)
    return Turn(_line(clock, words), memory)


def ordered(stack: Stack, decision: Decision, now: float) -> Extras:
    """Give the replicas above the floor as an order has them."""
    leases: dict[int, Lease] = {}
    for index in decision.extras:
        if index == decision.rents:
            leases[index] = new_lease(now)
        elif index in decision.extends:
            leases[index] = stack.extras.leases[index].extended(now, stack.contracts[index])
        else:
            leases[index] = stack.extras.leases[index]
    return stack.extras.model_copy(update={"leases": leases})


def _words(situation: Situation, decision: Decision) -> str:
    before = situation.replicas
    after = situation.limits.floor + len(decision.extras)
    stays = "1 replica stays" if before == 1 else f"{before} replicas stay"
    number = f"{before} to {after} replicas" if after != before else stays
    budget = situation.limits.dollars_per_day
    extended = ", ".join(map(str, decision.extends))
    leases = f"; replica {extended} may live longer" * bool(decision.extends)
    spent = f"${situation.bill.spent_today:.2f} of ${budget:g} spent today"
    return f"{number}: {decision.why}{leases} ({spent})"


def _line(clock: Clock, words: str) -> str:
    return f"{dt.datetime.fromtimestamp(clock.epoch(), dt.UTC):%Y-%m-%d %H:%M} UTC  {words}"
