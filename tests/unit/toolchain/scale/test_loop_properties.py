"""What holds of the loop whatever load comes, over days of virtual time."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.scaling.running import Extras
from tests.helpers.examples import examples
from toolchain.scale.loop import turn
from toolchain.scale.memory import Memory
from toolchain.scale.simulation import TURN_SECONDS, Machines, SimulatedWorld
from toolchain.scale.situation import DAY, HOUR, Limits, Reading, Rules

MIDNIGHT = 1_800_057_600.0
RULES = Rules()

LOADS = st.lists(
    st.tuples(
        st.sampled_from([300, 600, 1800, 3600, 7200, 20_000]),
        st.sampled_from([0, 30, 90, 150, 999]),
    ),
    min_size=1,
    max_size=20,
)
"""Seconds, and requests at once in them."""


class LoadedWorld(SimulatedWorld):
    """The simulated world under a load of a list's."""

    def __init__(self, load: list[tuple[int, int]], *arguments: Any, **others: Any) -> None:
        super().__init__(*arguments, **others)
        self.load = load
        self.orders: list[tuple[float, int]] = []
        """Moments and numbers."""

    def reading(self) -> Reading:
        ends = itertools.accumulate(seconds for seconds, _ in self.load)
        past = sum(end <= self.now - self.start for end in ends)
        requests = self.load[min(past, len(self.load) - 1)][1]
        room = RULES.sessions * self.serving()
        return Reading(
            at=self.now,
            waiting=float(max(0, requests - room)),
            running=float(min(requests, room)),
            serving=self.serving(),
        )

    def order(self, extras: Any) -> None:
        before = self.declared()
        super().order(extras)
        if self.declared() != before:
            self.orders.append((self.now, self.declared()))

    def declared(self) -> int:
        return len(self.floor) + sum(one.ends > self.now for one in self.rented.values())


@dataclasses.dataclass
class Lived:
    world: LoadedWorld
    declared: list[int]
    dollars: list[float]
    """Of each day."""


def lived(world: LoadedWorld, days: int) -> Lived:
    memory, declared, dollars = Memory(), [], []
    for step in range(1, int(days * DAY / TURN_SECONDS) + 1):
        world.now = world.start + step * TURN_SECONDS
        if world.now >= world.busy_until and world.now - world.start < world.alive:
            memory = turn(world, memory, RULES, world).memory
        declared.append(world.declared())
        if step * TURN_SECONDS % DAY == 0:
            dollars.append(world.dollars_on(world.now - 1e-3))
    return Lived(world, declared, dollars)


@st.composite
def worlds(draw: st.DrawFn) -> LoadedWorld:
    floor = draw(st.integers(1, 3))
    price = draw(st.sampled_from([1.0, 5.0, 8.0]))
    budget = draw(st.sampled_from([0.5, 1.0, 1.2, 2.0, 4.0])) * floor * price * 24 + 15
    return LoadedWorld(
        draw(LOADS),
        Limits(floor, floor + draw(st.integers(1, 4)), budget),
        RULES,
        Machines(dollars_per_hour=price),
        start=MIDNIGHT,
        seed=draw(st.integers(0, 9)),
    )


@given(worlds())
@settings(max_examples=examples(), deadline=None)
def test_it_keeps_within_floor_ceiling_and_budget(world):
    life = lived(world, days=3)
    limits = world.limits
    assert all(limits.floor <= number <= limits.ceiling for number in life.declared)
    floor = limits.floor * world.machines.dollars_per_hour * 24
    for dollars in life.dollars:
        # What a person has set as the floor runs in any case.
        assert dollars <= max(floor, limits.dollars_per_day) + 1e-6


@given(worlds())
@settings(max_examples=examples(), deadline=None)
def test_it_does_not_flap(world):
    """A step down comes an hour after the last change, unless a budget or a lease asks for it."""
    world.limits = dataclasses.replace(world.limits, dollars_per_day=1e6)
    numbers = [(MIDNIGHT, world.limits.floor), *lived(world, days=2).world.orders]
    for (before, last), (moment, number) in itertools.pairwise(numbers):
        assert abs(number - last) == 1
        assert moment - before >= (RULES.down_after if number < last else RULES.up_after)


@given(worlds(), st.integers(0, int(DAY)))
@settings(max_examples=examples(), deadline=None)
def test_a_dead_loop_costs_its_last_leases_and_nothing_more(world, seconds):
    world.alive = float(seconds)
    lived(world, days=2)
    last = MIDNIGHT + seconds + TURN_SECONDS + 3 * HOUR + world.machines.boot_seconds[1] / 3
    assert all(one.ends <= last for one in world.rented.values())


@given(st.floats(33, 300), st.floats(0, DAY), st.integers(0, 9))
@settings(max_examples=examples(300), deadline=None)
def test_a_loop_that_dies_stays_within_its_budget(more, seconds, seed):
    """Each machine costs what it may, nobody ends one, and there is always work for another."""
    world = LoadedWorld(
        [(1, 9999)],
        Limits(1, 5, 24 * 8 + more),
        RULES,
        Machines(dollars_per_hour=8.0, cap=8.0, finding=0.0),
        start=MIDNIGHT,
        seed=seed,
        alive=seconds,
    )
    assert max(lived(world, days=2).dollars) <= world.limits.dollars_per_day


def test_a_market_without_machines_is_asked_less_and_less_often():
    world = LoadedWorld([(1, 999)], Limits(1, 3, 1e6), RULES, Machines(), start=MIDNIGHT)
    world.market_is_empty = True
    tries = []
    order = world.order

    def counted(extras: Extras) -> None:
        if extras.leases:
            tries.append((world.now - MIDNIGHT) / 60)
        order(extras)

    world.order = counted  # type: ignore[method-assign]
    lived(world, days=1)
    pauses = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert pauses[:3] == [30, 60, 120]
    assert set(pauses[3:]) == {240}


@pytest.mark.parametrize("hole", [0, 4])
def test_an_extra_that_is_needed_lives_on_and_a_loop_that_misses_turns_loses_none(hole):
    world = LoadedWorld(
        [(10 * int(DAY), 100)], Limits(1, 2, 1e6), RULES, Machines(), start=MIDNIGHT
    )
    memory, contracts = Memory(), set()
    for step in range(1, int(2 * DAY / TURN_SECONDS)):
        world.now = world.start + step * TURN_SECONDS
        if world.now >= world.busy_until and not (hole and step % hole):
            memory = turn(world, memory, RULES, world).memory
        contracts |= {one.contract for one in world.rented.values()}
    assert len(contracts) == 1
    assert world.declared() == 2
