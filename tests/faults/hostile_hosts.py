"""The rented host answers as it likes (F27): no command may break on it, and `destroy` ends it."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import threading
import time

import psutil

from tests.faults.cell import Act, Book, Part
from tests.faults.world import World, assert_plain, assert_says
from tests.helpers.polling import eventually
from tests.helpers.stack_world import Done

BOOK = Book()
cell = BOOK.cell

MODES = ("shape", "drip", "flood", "lies")

MOST_MEMORY = 300e6
"""Bytes of a provider process, whatever a host sends it."""

LONGER = 60.0
"""Seconds that a destroy may take longer than one of an honest host."""

_honest: list[float] = []
_measuring = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Watched:
    """What came of a command, and what it took."""

    done: Done
    seconds: float
    megabytes: float
    """Of the largest provider process, at the most."""

    def describe(self) -> str:
        return f"{self.seconds:.0f} s, {self.megabytes:.0f} MB"


def watched(world: World, command: str) -> Watched:
    """Run a command to its end, with an eye on the memory of its provider processes."""
    began = time.monotonic()
    running = world.stack.start(command)
    most = 0
    while not running.ended():
        for process in running.providers():
            with contextlib.suppress(psutil.Error):
                most = max(most, process.memory_info().rss)
        threading.Event().wait(0.1)
    done = running.wait()
    assert_plain(done)
    assert 0 < most < MOST_MEMORY, f"{most / 1e6:.0f} MB: {done.outcome()}"
    return Watched(done, time.monotonic() - began, most / 1e6)


def honest_seconds(world: World) -> float:
    """How long a destroy of an honest host takes, measured once; what stood stands again."""
    with _measuring:
        if not _honest:
            stands = bool(world.account.alive())
            if not stands:
                world.succeeds("up")
            _honest.append(watched(world, "destroy").seconds)
            if stands:
                world.succeeds("up")
    return _honest[0]


def turn(world: World, mode: str, over: str) -> None:
    """Let the one machine that runs be hostile from now on."""
    (one,) = world.account.alive()
    world.account.arm("hostile", mode=mode, over=over, id=one["id"])
    eventually(lambda: not world.account.status()["faults"])


def destroyed(world: World, honest: float, drain: float = 0.0) -> str:
    """End everything, in time; say what that took. `drain` is what a wait for clients may take."""
    took = watched(world, "destroy")
    assert took.done.status == 0, took.done.outcome()
    assert world.account.alive() == [], "the contract is alive"
    limit = honest + drain + LONGER
    assert took.seconds < limit, f"{took.seconds:.0f} s, and {limit:.0f} s were allowed"
    waits = f" and {drain:.0f} s for clients" if drain else ""
    return f"destroyed ({took.describe()}; honest {honest:.0f} s{waits})"


def is_seen_and_ended(mode: str, over: str) -> Act:
    """It turns while it runs: a refresh says so in words, and a destroy ends it."""

    def act(world: World) -> str:
        honest = honest_seconds(world)
        turn(world, mode, over)
        looked = watched(world, "refresh")
        assert looked.done.status == 0, looked.done.outcome()
        return f"refresh says it ({looked.describe()}); {destroyed(world, honest)}"

    return act


def drains_and_ends(mode: str) -> Act:
    """It turns before a destroy that waits for clients first."""

    def act(world: World) -> str:
        honest = honest_seconds(world)
        world.fresh(world.settings)
        world.configure(replacement="create-first", drainMinutes=1)
        world.succeeds("up")
        turn(world, mode, "both")
        # Its clients are waited for as long as was said, and a host may claim that they stay.
        return destroyed(world, honest, drain=60)

    return act


def is_given_back(mode: str) -> Act:
    """The first machine's shell is hostile from its first second, and it never serves."""

    def act(world: World) -> str:
        world.account.arm("hostile", mode=mode, over="ssh")
        took = watched(world, "up")
        assert took.done.status == 0, took.done.outcome()
        assert_says(took.done, "given back")
        assert len(world.account.rents()) > 1, "no other machine was rented"
        return f"given back, the next machine serves ({took.describe()})"

    return act


def fails_and_ends(mode: str) -> Act:
    """What the first machine serves is hostile: nobody believes it, and a destroy ends it."""

    def act(world: World) -> str:
        honest = honest_seconds(world)
        world.fresh(world.settings)
        world.configure(readyMinutes=3)
        world.account.arm("hostile", mode=mode, over="http")
        took = watched(world, "up")
        assert took.done.status != 0, took.done.outcome()
        return f"fails in words ({took.describe()}); {destroyed(world, honest)}"

    return act


for _mode, _over in itertools.product(MODES, ("http", "ssh")):
    _part: Part = "short" if (_mode, _over) in {("drip", "http"), ("flood", "ssh")} else "whole"
    cell("F27", f"hostile, {_mode}, over {_over}", "refresh, destroy", needs="running", part=_part)(
        is_seen_and_ended(_mode, _over)
    )

for _mode in MODES:
    cell("F27", f"hostile, {_mode}", "destroy with a drain", part="whole")(drains_and_ends(_mode))
    cell("F27", f"hostile, {_mode}, over ssh", "up", leaves="running", part="whole")(
        is_given_back(_mode)
    )
    cell("F27", f"hostile, {_mode}, over http", "up, destroy", part="whole")(fails_and_ends(_mode))


@cell("F27", "hostile, shape, over ssh", "refresh, up, up", leaves="running", part="whole")
def a_host_that_says_what_cannot_be_is_replaced(world: World) -> str:
    world.succeeds("up")
    (before,) = world.account.alive()
    turn(world, "shape", "ssh")
    world.succeeds("refresh")
    failed = watched(world, "up")
    assert failed.done.status != 0, failed.done.outcome()
    assert_says(failed.done, "marked unfit")
    world.succeeds("up")
    (after,) = world.account.alive()
    assert after["id"] != before["id"]
    return "marked unfit; the next `up` replaces it"
