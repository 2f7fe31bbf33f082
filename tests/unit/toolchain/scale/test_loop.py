"""Turns of the loop: what is asked, what is ordered, and what the one line says."""

from __future__ import annotations

import dataclasses

import pytest

from components.core.errors import PlatformError, StackError
from components.scaling.running import LEASE_HOURS, Extras, Lease
from tests.helpers.fakes import VirtualClock
from toolchain.scale.decide import Decision
from toolchain.scale.loop import Stack, StackBusy, Turn, ordered, turn
from toolchain.scale.memory import MOST_BYTES, Memory, load, save
from toolchain.scale.situation import HOUR, Bill, Limits, Reading, Rules

NOW = VirtualClock().epoch()
RULES = Rules()
LIMITS = Limits(1, 4, 1000.0)


@dataclasses.dataclass
class FakeWorld:
    """A stack whose load, state and `up` a test sets."""

    clock: VirtualClock = dataclasses.field(default_factory=VirtualClock)
    waiting: float = 0.0
    running: float = 0.0
    leases: dict[int, Lease] = dataclasses.field(default_factory=dict)
    contracts: dict[int, int] = dataclasses.field(default_factory=dict)
    prices: dict[int, float] = dataclasses.field(default_factory=dict)
    lost: int = 0
    """How many of its replicas do not serve."""
    unread: StackError | None = None
    refuses: StackError | None = None
    orders: list[Extras] = dataclasses.field(default_factory=list)

    def stack(self) -> Stack:
        extras = Extras(endpoint="endpoint", leases=self.leases)
        return Stack(LIMITS, extras, self.contracts, self.prices, Bill(10.0, 6.0, 8.0, 10.0))

    def reading(self) -> Reading:
        if self.unread:
            raise self.unread
        return Reading(
            at=self.clock.epoch(),
            waiting=self.waiting,
            running=self.running,
            serving=1 + len(self.prices) - self.lost,
        )

    def order(self, extras: Extras) -> None:
        if self.refuses:
            raise self.refuses
        self.orders.append(extras)
        self.clock.sleep(2400)


NOTHING = Memory()


def played(world: FakeWorld, memory: Memory = NOTHING, *, turns: int = 3) -> Turn:
    for _ in range(turns - 1):
        memory = turn(world, memory, RULES, world.clock).memory
        world.clock.sleep(300)
    return turn(world, memory, RULES, world.clock)


def test_a_step_up_is_ordered_with_a_new_lease_and_said_in_one_line():
    world = FakeWorld(waiting=9)
    last = played(world)
    assert last.line == (
        "2027-01-15 08:50 UTC  1 to 2 replicas: more than 4 requests have waited for 10 minutes "
        "(9 now) ($10.00 of $1000 spent today)"
    )
    (order,) = world.orders
    assert order.leases == {1: Lease(since=NOW + 600, hours=LEASE_HOURS)}
    assert last.memory.changed_at == world.clock.epoch()
    assert not last.failed


def test_a_turn_that_changes_nothing_orders_nothing():
    world = FakeWorld(running=10)
    assert "1 replica stays: 10 requests are being answered" in played(world).line
    assert world.orders == []


def test_a_lease_that_is_due_is_extended_for_its_machine_and_others_stay_as_they_are():
    long, short = Lease(since=NOW - 60, hours=LEASE_HOURS), Lease(since=NOW - 2 * HOUR, hours=3.5)
    world = FakeWorld(
        running=150,
        leases={1: short, 2: long},
        contracts={1: 71, 2: 72},
        prices={71: 6.0, 72: 6.0},
    )
    last = played(world, turns=1)
    assert "3 replicas stay" in last.line
    assert "; replica 1 may live longer" in last.line
    (order,) = world.orders
    assert order.leases == {1: Lease(since=NOW - 2 * HOUR, hours=5.0, contract=71), 2: long}
    # Nothing has changed about the number.
    assert last.memory.changed_at == 0


def test_a_replica_that_goes_is_not_in_the_order():
    lease = Lease(since=NOW - 60, hours=LEASE_HOURS)
    world = FakeWorld(leases={1: lease}, contracts={1: 71}, prices={71: 6.0})
    assert "2 to 1 replicas: 1 could have carried the load" in played(world, turns=13).line
    assert world.orders[-1].leases == {}


def test_one_that_is_rented_again_gets_a_lease_of_its_own():
    old = Lease(since=NOW - 40 * HOUR, hours=43, contract=71)
    world = FakeWorld(running=64, leases={1: old}, contracts={1: 71}, prices={})
    last = played(world, turns=1)
    assert "1 to 2 replicas: replica 1 has no machine any more" in last.line
    assert world.orders[0].leases == {1: Lease(since=NOW, hours=LEASE_HOURS)}


def test_what_cannot_be_read_skips_the_turn_and_keeps_what_was_known():
    world = FakeWorld(waiting=9)
    memory = played(world, turns=2).memory
    world.unread = PlatformError("https://127.0.0.1:8443/metrics does not answer (ConnectError)")
    skipped = turn(world, memory, RULES, world.clock)
    assert skipped.line.endswith(
        "UTC  skipped: https://127.0.0.1:8443/metrics does not answer (ConnectError)"
    )
    assert (skipped.memory, skipped.failed, world.orders) == (memory, False, [])


def test_a_stack_at_work_skips_the_turn_and_the_next_one_does_it():
    world = FakeWorld(waiting=9, refuses=StackBusy("the stack dev is at work"))
    skipped = played(world)
    assert "skipped: the stack dev is at work; it was to be: 1 to 2 replicas" in skipped.line
    assert (skipped.memory.failures, skipped.failed) == (0, False)
    world.refuses = None
    world.clock.sleep(300)
    assert "1 to 2 replicas" in turn(world, skipped.memory, RULES, world.clock).line
    assert len(world.orders) == 1


def test_what_a_failed_step_has_left_without_serving_is_brought_up_before_another_is_rented():
    lease = Lease(since=NOW - 60, hours=LEASE_HOURS)
    world = FakeWorld(waiting=9, leases={1: lease}, contracts={1: 71}, prices={71: 6.0}, lost=1)
    done = played(world)
    assert "2 replicas stay: more than 4 requests have waited" in done.line
    assert "and only 1 of 2 replicas serve: the others are brought up" in done.line
    assert world.orders[0].leases == {1: lease}
    assert done.memory.changed_at == world.clock.epoch()
    failing = dataclasses.replace(world, refuses=PlatformError("no"), orders=[])
    failed = played(failing)
    assert failed.failed
    assert "the last step failed" in played(failing, failed.memory).line


def test_a_step_that_failed_is_said_and_waits():
    world = FakeWorld(waiting=9, refuses=PlatformError("no offer fits"))
    failed = played(world)
    assert failed.line.endswith("; that failed: no offer fits")
    assert (failed.failed, failed.memory.failures) == (True, 1)
    world.clock.sleep(300)
    world.refuses = None
    later = played(world, failed.memory)
    assert "the last step failed, and the next try is in 15 minutes" in later.line


def test_an_order_never_names_a_replica_without_a_machine():
    gone = Lease(since=NOW, hours=3)
    world = FakeWorld(leases={1: gone, 2: gone}, contracts={1: 71, 2: 72}, prices={72: 6.0})
    decision = Decision("why", extras=(2,), ends=1)
    assert ordered(world.stack(), decision, NOW).leases == {2: gone}


def test_memory_outlives_the_process_and_what_is_none_is_no_memory(tmp_path):
    path = tmp_path / "scale" / "dev.json"
    assert load(path) == Memory()
    memory = played(FakeWorld(waiting=9)).memory
    save(path, memory)
    assert load(path) == memory
    assert [one.name for one in path.parent.iterdir()] == ["dev.json"]
    for text in ("", "{}x", '{"readings": [{"at": NaN}]}', '{"more": 1}', "1" * (MOST_BYTES + 1)):
        path.write_text(text)
        assert load(path) == Memory()


def test_memory_forgets_what_is_old_and_what_has_not_happened_yet():
    def reading(at: float) -> Reading:
        return Reading(at=at, waiting=0.0, running=0.0, serving=1)

    known = Memory(readings=(reading(NOW - 7201), reading(NOW - 7200), reading(NOW + 9)))
    assert [one.at for one in known.with_reading(reading(NOW), NOW).readings] == [NOW - 7200, NOW]


def test_a_disk_that_takes_nothing_costs_the_history_alone(tmp_path):
    (tmp_path / "file").write_text("")
    save(tmp_path / "file" / "dev.json", Memory())
    assert load(tmp_path / "file" / "dev.json") == Memory()


@pytest.mark.parametrize("hours", [0.1, 1.9])
def test_lines_name_the_moment_and_the_number(hours):
    world = FakeWorld(clock=VirtualClock(NOW + hours * HOUR))
    assert played(world, turns=1).line.startswith("2027-01-15 ")
