"""F28: a host rehearses its start while the weights come.

What the rehearsal finds is told before the weights are there. Whatever goes wrong with it, and
whoever dies meanwhile: the server comes up, or the machine is given back.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from pathlib import Path

import psutil

from tests.faults.cell import Act, Book, Part
from tests.faults.faults_of_hosts import machines
from tests.faults.kills import REHEARSING, Strike, crawl
from tests.faults.world import Running, World, assert_plain, assert_says
from tests.helpers.polling import eventually

BOOK = Book()
cell = BOOK.cell

A_FEW_FILES = 500e6
"""Bytes: half of the weights, and more than what crawls in meanwhile on a busy computer."""

LOGS = 50e6
"""Bytes that a rehearsal's logs may take, all together, while it floods them."""

MARKED = "is marked unfit"
EARLY = "found early, by a rehearsal beside the download"


def container(world: World) -> Path:
    """The directory of the one container that there is."""
    (one,) = world.account.alive()
    return world.account.home / "containers" / str(one["id"])


# ----------------------------------------------------------------- what a rehearsal finds


def found(fault: str, *said: str, **params: str | int) -> Act:
    """A fault of the configuration, which no other machine cures."""

    def act(world: World) -> str:
        crawl(world, until="never")
        world.account.arm(fault, **params)
        world.fails("up", EARLY, *said)
        assert len(machines(world)) == 1, "another host was tried in vain"
        fetched = int((container(world) / "traffic").read_text())
        assert fetched < A_FEW_FILES, "it was told after the weights"
        world.succeeds("destroy")
        return "fails while the weights come, names the cause; destroyed"

    return act


def another_machine(world: World) -> None:
    """Bring the stack up on a second machine, after the first one was marked."""
    world.succeeds("up")
    rented = machines(world)
    assert len(rented) == 2, f"{len(rented)} machines instead of two"
    assert rented[0] != rented[1], "the machine was not excluded"


def found_of_a_host(fault: str, *said: str, **params: str | int) -> Act:
    """A fault of one machine that another one does not have."""

    def act(world: World) -> str:
        crawl(world, until="never")
        world.account.arm(fault, **params)
        world.fails("up", EARLY, MARKED, *said)
        fetched = int((container(world) / "traffic").read_text())
        assert fetched < A_FEW_FILES, "it was told after the weights"
        world.account.disarm()
        another_machine(world)
        return "fails while the weights come; the next `up` rents another machine"

    return act


cell("F28", "bad_flag, rehearsed", "up, destroy", part="whole")(
    found("bad_flag", "--tensor-parallel-size", flag="--tensor-parallel-size")
)
cell("F28", "class_missing, rehearsed", "up, destroy", part="whole")(
    found("class_missing", "the image's vLLM has no class for the model")
)
cell("F28", "engine_oom, rehearsed", "up, destroy", part="whole")(
    found("engine_oom", "ran out of memory")
)
cell("F28", "kv_too_small, rehearsed", "up, destroy")(found("kv_too_small", "KV cache"))
cell("F28", "cuda_dead, rehearsed", "up, up", leaves="running", part="whole")(
    found_of_a_host("cuda_dead", "802", late="true")
)


# ----------------------------------------------------------------- what goes wrong with it


def comes_up(world: World) -> str:
    """Nothing that the rehearsal does keeps the server from its start."""
    world.succeeds("up")
    assert len(machines(world)) == 1
    return "the start comes up"


def comes_up_or_goes(world: World) -> str:
    """Never a third thing."""
    done = world.command("up")
    if done.status == 0:
        return "the start comes up"
    assert_plain(done)
    assert_says(done, MARKED)
    world.account.disarm()
    another_machine(world)
    return "marked; the next `up` rents another machine"


@cell("F28", "nothing is wrong", "up", leaves="running", part="whole")
def a_rehearsal_that_serves_is_ended(world: World) -> str:
    crawl(world, until="rehearsed")
    outcome = comes_up(world)
    assert rehearsed_as(world) == "served"
    return outcome


@cell("F28", "rehearsal_hang", "up", leaves="running")
def a_hanging_rehearsal_ends_with_the_download(world: World) -> str:
    crawl(world, until="rehearsing")
    world.account.arm("rehearsal_hang", at="profile")
    outcome = comes_up(world)
    assert rehearsed_as(world) == "ended"
    return outcome


@cell("F28", "rehearsal_flood", "up", leaves="running", part="whole")
def a_flood_stays_within_its_size(world: World) -> str:
    crawl(world, until="rehearsing")
    world.account.arm("rehearsal_flood")
    outcome = comes_up(world)
    logs = (container(world) / "root/serving").glob("rehearsal.log*")
    sizes = [log.stat().st_size for log in logs]
    assert 0 < sum(sizes) < LOGS, sizes
    return outcome


@cell("F28", "rehearsal_leaves, a process", "up", leaves="running", part="whole")
def a_process_that_holds_nothing_is_no_matter(world: World) -> str:
    crawl(world, until="rehearsed")
    world.account.arm("rehearsal_leaves")
    return comes_up(world)


@cell("F28", "rehearsal_leaves, a process with its memory", "up", leaves="running", part="whole")
def a_process_that_holds_memory_is_ended_or_told(world: World) -> str:
    crawl(world, until="rehearsed")
    world.account.arm("rehearsal_leaves", memory="true")
    return comes_up_or_goes(world)


@cell("F28", "rehearsal_keeps_memory", "up, up", leaves="running", part="whole")
def memory_that_does_not_come_back_is_the_hosts_fault(world: World) -> str:
    crawl(world, until="rehearsed")
    world.account.arm("rehearsal_keeps_memory")
    world.fails("up", MARKED, "memory")
    world.account.disarm()
    another_machine(world)
    return "marked; the next `up` rents another machine"


@cell("F28", "rehearsal_keeps_memory, for five seconds", "up", leaves="running", part="whole")
def memory_that_comes_back_late_is_waited_for(world: World) -> str:
    crawl(world, until="rehearsed")
    world.account.arm("rehearsal_keeps_memory", seconds=5)
    return comes_up(world)


def rehearsed_as(world: World) -> str:
    """How the host's rehearsal came out, in its own word."""
    return (container(world) / "root/serving/state/rehearsal_phase").read_text().split()[0]


# ----------------------------------------------------------------- who dies meanwhile


def dies(name: str) -> Strike:
    """A process of the host, as its supervisor has written it down under `name`."""

    def strike(world: World, running: Running) -> None:
        del running
        with contextlib.suppress(FileNotFoundError, IndexError, psutil.NoSuchProcess):
            noted(world, name).kill()

    return strike


def dies_whole(name: str) -> Strike:
    """The same, with what it has started: two downloads at once would halve the way to the end."""

    def strike(world: World, running: Running) -> None:
        del running
        with contextlib.suppress(FileNotFoundError, IndexError, psutil.NoSuchProcess):
            first = noted(world, name)
            for process in (first, *first.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()

    return strike


def noted(world: World, name: str) -> psutil.Process:
    """The process of the host that its supervisor has written down under `name`."""
    note = container(world) / "root/serving/state" / name
    return psutil.Process(int(note.read_text().split()[0]))


def reboots(world: World, running: Running) -> None:
    """The host, with everything on it."""
    del running
    (one,) = world.account.alive()
    world.account.arm("container_exits", id=one["id"], seconds=600)
    eventually(lambda: world.account.alive()[0]["actual_status"] != "running")


ON_THE_HOST: dict[str, tuple[Strike, str, tuple[str, ...]]] = {
    "the supervisor": (dies("supervisor"), "rehearsed", REHEARSING.moments),
    # Its vLLM goes on alone, and so there is nothing to wait for.
    "who rehearses": (dies("rehearsal"), "rehearsing", REHEARSING.moments),
    # At the very beginning it has not even said that it is there.
    "the rehearsal's vLLM": (dies("rehearsal_server"), "rehearsed", REHEARSING.moments[1:]),
    "the download": (dies_whole("prefetch"), "rehearsed", REHEARSING.moments),
    "the host, by a reboot,": (reboots, "rehearsed", REHEARSING.moments),
}
"""Who dies, until when the weights crawl then, and at which moments."""

_IN_THE_WHOLE = "it holds the GPUs"


def _add(victim: str, strike: Strike, moment: str, until: str) -> None:
    course = dataclasses.replace(REHEARSING, prepare=functools.partial(crawl, until=until))
    part: Part = "whole" if moment == _IN_THE_WHOLE else "more"
    cell("F28", f"{victim} dies: {moment}", course.name, leaves="running", part=part)(
        course.struck_by(strike, moment, "up")
    )


for _victim, (_strike, _until, _moments) in ON_THE_HOST.items():
    for _moment in _moments:
        _add(_victim, _strike, _moment, _until)
