"""A day of traffic against the loop, in virtual time: dollars, waiting requests and replicas.

The loop is the real one. What is made up is the world: requests by `traffic.py`, machines that take
20 to 60 minutes to come up, and their price. A replica answers the slower the more it answers at
once, as the profile's measurement says. The router spreads requests evenly. A request that no
replica has room for waits in one queue. Clients never give up.
"""

from __future__ import annotations

import collections
import dataclasses
import heapq
import itertools
import random

from components.scaling.running import Extras
from components.vast.errors import NoOffer
from toolchain.scale.decide import overload
from toolchain.scale.loop import Stack, turn
from toolchain.scale.memory import Memory
from toolchain.scale.situation import DAY, HOUR, Bill, Limits, Reading, Rules
from toolchain.scale.traffic import Traffic

TURN_SECONDS = 300.0

NO_OFFER = "no offer fits"
"""What a simulated market without machines says."""


@dataclasses.dataclass(frozen=True)
class Machines:
    """What machines cost and how long they take."""

    dollars_per_hour: float = 6.0
    cap: float = 8.0
    """The setting `maxDollarsPerHour`: what the loop reckons with before it rents."""
    finding: float = 10.0
    boot_seconds: tuple[float, float] = (20 * 60, 60 * 60)
    """From the order to the first request, shortest and longest."""
    started_after: float = 1 / 3
    """Of the boot: when the container starts."""
    drain_seconds: float = 600.0
    """Billed after a replica gets no more requests, with Vast's last minutes."""
    measured: tuple[tuple[int, float], ...] = ((1, 1.372), (16, 2.976), (64, 5.468), (256, 10.098))
    """Clients of one replica, and the seconds of an answer of 1024 and 256 tokens: what
    models/mistral-small-4-fp8-2xh200.yaml has measured. The last is the most it answers at once."""

    @property
    def room(self) -> int:
        """The most requests that a replica answers at once."""
        return self.measured[-1][0]

    def seconds(self, clients: float) -> float:
        """How long an answer takes that so many share a replica with, evenly between two points."""
        points = self.measured
        if clients <= points[0][0]:
            return points[0][1]
        for (fewer, faster), (more, slower) in itertools.pairwise(points):
            if clients <= more:
                return faster + (slower - faster) * (clients - fewer) / (more - fewer)
        return points[-1][1]


@dataclasses.dataclass
class _Machine:
    contract: int
    born: float
    started: float
    """When its container did, from which its time to live counts."""
    serves_from: float
    ends: float = float("inf")
    """When it ends itself, or was ended."""
    drains_from: float = float("inf")


@dataclasses.dataclass(frozen=True)
class Sample:
    """One minute of the day."""

    at: float
    """Seconds since midnight."""
    waiting: float
    """As the loop counts them: also what a replica answers beyond its sessions."""
    running: int
    replicas: int
    """That answer."""
    billed: int
    dollars: float
    """Since midnight."""


@dataclasses.dataclass(frozen=True)
class Day:
    """What became of a day."""

    samples: tuple[Sample, ...]
    answers: tuple[float, ...]
    """Seconds from each request to the end of its answer, in the order of their ends."""
    lines: tuple[str, ...]
    """What the loop said."""


class SimulatedWorld:
    """`World`, `Clock` and everything else, at one moment."""

    def __init__(
        self,
        limits: Limits,
        rules: Rules,
        machines: Machines,
        *,
        start: float,
        seed: int = 0,
        alive: float = float("inf"),
    ) -> None:
        """Begin at `start`, in seconds since 1970, with the floor serving.

        From `alive` seconds on the loop is dead, as on a computer that was switched off.
        """
        self.limits, self.rules, self.machines = limits, rules, machines
        self.start = self.now = start
        self.alive = alive
        self.floor = [_Machine(-n, start, start, start) for n in range(limits.floor)]
        self.extras = Extras(endpoint="endpoint", leases={})
        self.rented: dict[int, _Machine] = {}
        """By index of the replica."""
        self.gone: list[_Machine] = []
        self.queue: collections.deque[tuple[float, float]] = collections.deque()
        """Moment and work of requests that wait."""
        self.answering: list[tuple[float, float]] = []
        """A heap: `done` at which an answer is at its end, and the moment of its request."""
        self.done = 0.0
        """Work that was done on each answer since midnight; an average answer is 1."""
        self.took: list[float] = []
        self.market_is_empty = False
        self.busy_until = start
        """Until then an `up` runs, and the loop with it."""
        self._chance = random.Random(seed)  # noqa: S311  (a simulation)
        self._contract = 100

    # ------------------------------------------------------------------ Clock

    def epoch(self) -> float:
        """See `Clock`."""
        return self.now

    def monotonic(self) -> float:
        """See `Clock`."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """See `Clock`; a turn never sleeps."""
        raise AssertionError(seconds)

    # ------------------------------------------------------------------ World

    def stack(self) -> Stack:
        """See `World`."""
        there = {n: one for n, one in self.rented.items() if one.ends > self.now}
        prices = {one.contract: self.machines.dollars_per_hour for one in there.values()}
        others = len(self.floor) * self.machines.dollars_per_hour
        return Stack(
            limits=self.limits,
            extras=self.extras,
            contracts={n: one.contract for n, one in self.rented.items()},
            prices=prices,
            bill=Bill(self.dollars_on(self.now), others, self.machines.cap, self.machines.finding),
        )

    def reading(self) -> Reading:
        """See `World`."""
        return Reading(
            at=self.now,
            waiting=float(len(self.queue)),
            running=float(len(self.answering)),
            serving=self.serving(),
        )

    def order(self, extras: Extras) -> None:
        """See `World`."""
        # What the state has and no order names goes, and nobody rents it again.
        self._end_others(extras)
        self.extras = extras
        for index, lease in extras.leases.items():
            if index in self.rented and self.rented[index].ends > self.now:
                started = self.rented[index].started
                self.rented[index].ends = started + lease.hours * HOUR
                continue
            self._rent(index, lease.hours)

    # ------------------------------------------------------------------ the day

    def serving(self) -> int:
        """How many replicas take requests."""
        now, count = self.now, 0
        # Asked for each request and each end of one.
        for machines in (self.floor, self.rented.values(), self.gone):
            for one in machines:
                count += one.serves_from <= now < one.ends and now < one.drains_from
        return count

    def billed(self) -> int:
        """How many machines are paid for."""
        return sum(one.born <= self.now < one.ends for one in self._all())

    def dollars_on(self, moment: float) -> float:
        """What was spent since the last midnight before a moment."""
        midnight = moment // DAY * DAY
        hours = sum(
            max(0.0, min(one.ends, moment) - max(one.born, midnight)) for one in self._all()
        )
        return hours / HOUR * self.machines.dollars_per_hour

    def advance(self, until: float) -> None:
        """Let time pass: answers go on, and end, and others begin where there is room."""
        serving = self.serving()
        self._take_up(serving)
        while self.answering and serving:
            pace = 1 / self.machines.seconds(len(self.answering) / serving)
            ends = self.now + (self.answering[0][0] - self.done) / pace
            if ends > until:
                self.done += (until - self.now) * pace
                break
            self.now, (self.done, came) = ends, heapq.heappop(self.answering)
            self.took.append(self.now - came)
            self._take_up(serving)
        self.now = until

    def _take_up(self, serving: int) -> None:
        while self.queue and len(self.answering) < serving * self.machines.room:
            came, work = self.queue.popleft()
            heapq.heappush(self.answering, (self.done + work, came))

    def _all(self) -> list[_Machine]:
        return [*self.floor, *self.rented.values(), *self.gone]

    def _rent(self, index: int, hours: float) -> None:
        low, high = self.machines.boot_seconds
        boot = low + (high - low) * self._chance.random()
        if self.market_is_empty:
            raise NoOffer(NO_OFFER)
        if index in self.rented:
            self.gone.append(self.rented[index])
        self._contract += 1
        started = self.now + boot * self.machines.started_after
        ends = started + hours * HOUR
        made = _Machine(self._contract, self.now, started, self.now + boot, ends)
        self.rented[index] = made
        self.busy_until = made.serves_from

    def _end_others(self, extras: Extras) -> None:
        for index in [n for n in self.rented if n not in extras.leases]:
            one = self.rented.pop(index)
            one.drains_from = min(one.drains_from, self.now)
            one.ends = min(one.ends, self.now + self.machines.drain_seconds)
            self.gone.append(one)
            self.busy_until = max(self.busy_until, min(one.ends, self.now + 600))


def play(world: SimulatedWorld, traffic: Traffic, *, days: int = 1, loop: bool = True) -> Day:
    """Play days from midnight on; without `loop` the number of replicas stays as it is."""
    memory = Memory()
    samples, lines = [], []
    requests = traffic.requests(days * DAY)
    upcoming = next(requests, None)
    for minute in range(1, int(days * DAY / 60) + 1):
        at = minute * 60.0
        while upcoming is not None and upcoming[0] < at:
            world.advance(world.start + upcoming[0])
            world.queue.append((world.now, upcoming[1]))
            upcoming = next(requests, None)
        world.advance(world.start + at)
        is_turn = at % TURN_SECONDS == 0 and world.now >= world.busy_until
        if loop and is_turn and at < world.alive:
            played = turn(world, memory, world.rules, world)
            memory = played.memory
            lines.append(played.line)
        samples.append(_sample(world))
    return Day(tuple(samples), tuple(world.took), tuple(lines))


def _sample(world: SimulatedWorld) -> Sample:
    return Sample(
        at=world.now - world.start,
        waiting=overload(world.reading(), world.rules),
        running=len(world.answering),
        replicas=world.serving(),
        billed=world.billed(),
        dollars=world.dollars_on(world.now - 1),
    )
