"""Whatever is changed and whatever fails: the market never ends a machine before its own end."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, Self

from hypothesis import given
from hypothesis import strategies as st

from components.core.errors import StackError
from components.core.progress import Progress
from components.core.property_bag import Properties
from components.machine.ssh_types import HostAddress, HostUnreachable, Result
from components.resources.context import Context, using
from components.resources.instance import InstanceProvider
from components.vast.api.models import ScheduledEnd
from components.vast.errors import ApiFailed
from components.vast.lifecycle.auto_shutdown import AutoShutdown
from components.vast.lifecycle.market_end import MarketEnd
from tests.helpers.fake_jobs import FakeJobs
from tests.helpers.fakes import VirtualClock
from tests.helpers.states import ordered, rented

NOW = 1_800_000_000.0
HOUR = 3600.0
BROKEN = HostUnreachable(HostAddress("203.0.113.9", 40022), "closed")


class World(FakeJobs):
    """A machine's own watch and the market's job for it; both can fail, before or after they act.

    After each thing that happens, the market must not be about to end what lives on: neither by its
    own watch, nor by what was accepted or the machine is just told. (A watch that lives longer than
    both was told so by an `up` that failed afterwards.)
    """

    def __init__(self, failures: Iterator[str]) -> None:
        super().__init__()
        self.clock = VirtualClock(NOW)
        self.first_start = NOW - 600
        self.own_hours = 0.0
        self.promised = math.inf
        """The end that the state says, and from the moment that the machine is told of a later one,
        that one."""
        self.url = "http://market"
        self.failures = failures

    # The market

    def scheduled_ends(self) -> list[ScheduledEnd]:
        with self._one_call(ApiFailed("no list")):
            return super().scheduled_ends()

    def schedule_end(self, instance_id: int, starts_at: float, until: float) -> None:
        with self._one_call(ApiFailed("not added")):
            super().schedule_end(instance_id, starts_at, until)

    def move_end(self, job: int, instance_id: int, starts_at: float, until: float) -> None:
        with self._one_call(ApiFailed("not moved")):
            super().move_end(job, instance_id, starts_at, until)

    def drop_end(self, job: int) -> None:
        with self._one_call(ApiFailed("not dropped")):
            super().drop_end(job)

    def starts(self) -> list[float]:
        """When the market would come."""
        assert all(one.instance_id == 9001 for one in self.jobs.values())
        return [one.starts_at for one in self.jobs.values()]

    # The host

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def put(self, files: Mapping[str, tuple[bytes, int]]) -> None:
        told = files["time_to_live.env"][0].decode()
        hours = int(told.partition("TTL_SECONDS=")[2].splitlines()[0]) / HOUR
        self.promised = max(self.promised, self.end_after(hours))
        with self._one_call(BROKEN):
            self.own_hours = hours

    def run(self, command: str) -> Result:
        assert command.endswith("status")
        with self._one_call(BROKEN):
            return Result(0, f"first_start={self.first_start:.0f}\nkey=yes\n", "")

    # What must hold

    def own_end(self) -> float:
        return self.end_after(self.own_hours)

    def end_after(self, hours: float) -> float:
        return self.first_start + hours * HOUR if hours else math.inf

    @contextlib.contextmanager
    def _one_call(self, error: Exception) -> Iterator[None]:
        how = next(self.failures, "works")
        if how == "fails":
            raise error
        yield
        for at in self.starts():
            lives_until = min(self.own_end(), self.promised)
            assert at // HOUR * HOUR >= lives_until, "the market would come first"
        if how == "acts and fails":
            raise error


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorldContext(Context):
    world: World

    def market(self, *, patient: bool = True) -> Any:
        del patient
        return self.world

    def host(self, *_: object, **__: object) -> Any:
        return self.world


LIVES = st.builds(
    lambda hours, minutes, guarded: AutoShutdown(
        hours, minutes, market_end=bool(hours) and guarded
    ),
    st.sampled_from([0.0, 1.0, 2.5, 12.0, 40.0]),
    st.sampled_from([0.0, 30.0]),
    st.booleans(),
)
FAILURES = st.dictionaries(
    st.integers(0, 30), st.sampled_from(["fails", "acts and fails"]), max_size=2
).map(lambda failing: [failing.get(call, "works") for call in range(31)] if failing else [])
"""A call fails if six tries did. Three at the wrong moments leave a job that an `up` could neither
read back nor take away, and that the next one cannot see."""


def updated(world: World, olds: Properties, wanted: AutoShutdown) -> Properties:
    """What the state says after an `up`; one that fails leaves it as it was."""
    world.promised = float(olds["ends_itself_at"]) or math.inf
    news = ordered(leash=dataclasses.asdict(wanted))
    if not InstanceProvider().diff("9001", olds, news).changes:
        return olds
    with contextlib.suppress(StackError):
        return dict(InstanceProvider().update("9001", olds, news).outs or {})
    return olds


@given(st.lists(LIVES, min_size=1, max_size=6), FAILURES)
def test_the_market_never_comes_first_and_in_the_end_all_is_as_it_was_asked_for(lives, failures):
    world = World(iter(failures))
    state = rented(leash=dataclasses.asdict(AutoShutdown()), ends_itself_at=0.0)
    with using(WorldContext(clock=world.clock, say=lambda _line: None, world=world)):
        for wanted in lives:
            state = updated(world, state, wanted)
            world.clock.sleep(60)
        # Nothing fails any more: a refresh reads the market's end back, and an `up` mends it.
        world.failures = iter(())
        if state["leash"]["market_end"]:
            job = MarketEnd(world, Progress("", world.clock, print), 9001).look()
            state |= {"market_job": job.number, "market_ends_at": job.starts_at}
        state = updated(world, state, lives[-1])
    wanted, ends_at = lives[-1], float(state["ends_itself_at"])
    assert AutoShutdown.from_bag(state["leash"]) == wanted
    if wanted.market_end:
        assert world.starts() == [state["market_ends_at"]] == [ends_at + HOUR]
    if not failures:
        assert world.own_hours == wanted.time_to_live_hours
        assert ends_at == (world.own_end() if wanted.time_to_live_hours else 0.0)
        assert bool(world.jobs) is wanted.market_end
