"""Measure the router: `make router-benchmark`, or `python -m toolchain.scale_out.benchmark`.

A real HAProxy with the rendered file stands in front of three members on loopback. Milliseconds are
this computer's. What is compared is measured in turns, so that a busy moment meets all alike.
Status 1 if an aim is missed, 2 if something could not be measured.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from components.core.keys import digest, scope_of
from components.router.inputs import KeyDigest, Member, RouterInputs
from components.router.routes import own_gate
from components.tls.authorities import Authority
from toolchain.scale_out import affinity, latency, throughput
from toolchain.scale_out.connection import Target
from toolchain.scale_out.installed import installed
from toolchain.scale_out.loopback import (
    LOOPBACK,
    LoopbackRouter,
    NotMeasured,
    haproxy_program,
    reserved,
    router_folder,
)
from toolchain.scale_out.members import Machine, serving

CONTRACTS = (41, 42, 43)
SCOPE = scope_of("vast-vllm", "benchmark")
STACK_KEY = "5e" * 24
BY_CONVERSATION = "conversation"
LEAST = "least-connections"

ROUNDS = 400
"""Requests to each target."""

CLIENTS = 50
SECONDS = 4
"""Of each measurement with wrk."""

TURNS = 3

LEAST_ANSWER = 0.05
"""Seconds of the shortest answers that are worth a router: 8 tokens of one client on two H200."""

ADDED_P50 = 0.5
"""Milliseconds at most."""

WITHIN = 0.10
"""A router costs at most this share of requests a second, and of p50."""

MANY = 45
"""Requests in flight while conversations are played: most of them."""

FEW = 10
"""With few in flight, a member's share of them is a small whole number."""

GAIN = 0.05
"""Of the share of blocks that are cached, at least: by conversation, against least connections."""


@dataclasses.dataclass(frozen=True)
class Aim:
    """A promise, and what was measured."""

    what: str
    measured: str
    is_met: bool


@dataclasses.dataclass(frozen=True)
class World:
    """Where routers and members are made."""

    program: str
    authority: Authority
    console: Console

    @contextlib.contextmanager
    def members(self) -> Iterator[list[Machine]]:
        """Three members whose caches are empty."""
        with (
            tempfile.TemporaryDirectory() as folder,
            serving(
                Path(folder), self.authority, CONTRACTS, stack_key=STACK_KEY, scope=SCOPE
            ) as machines,
        ):
            yield machines

    @contextlib.contextmanager
    def router(
        self, members: Sequence[Member], routing: str, threads: int = 1
    ) -> Iterator[tuple[LoopbackRouter, Target]]:
        """A router in front of them."""
        with router_folder(self.authority) as folder, reserved() as port:
            inputs = RouterInputs.model_validate(
                {
                    "listen": LOOPBACK,
                    "port": port.getsockname()[1],
                    "folder": str(folder),
                    "scope": SCOPE,
                    "key_digests": (KeyDigest(digest=digest(STACK_KEY)),),
                    "gate": own_gate(),
                    "members": tuple(members),
                    "routing": routing,
                    "threads": threads,
                }
            )
            with LoopbackRouter(folder, inputs, self.program) as router:
                yield router, self.target(f"router, {routing}", inputs.port, STACK_KEY)

    def direct(self, machine: Machine) -> Target:
        """A member without a router."""
        return self.target("direct", machine.port, machine.key)

    def target(self, name: str, port: int, key: str) -> Target:
        """What listens at a port."""
        return Target(name, port, key, self.authority.certificate)


def main() -> int:
    """Measure everything, print it, and give the command's status."""
    console = Console()
    try:
        throughput.wrk()
        world = World(haproxy_program(), Authority.made(time.time()), console)
        aims = [*delays(world), *rates(world), *caches(world)]
    except NotMeasured as error:
        console.print(f"[red]{error}[/red]")
        return 2
    table = Table("aim", "measured", "")
    for aim in aims:
        table.add_row(aim.what, aim.measured, "met" if aim.is_met else "MISSED")
    console.print(table)
    return 0 if all(aim.is_met for aim in aims) else 1


def delays(world: World) -> list[Aim]:
    """Measure what the router adds to one request, and to the pieces of streams."""
    with (
        world.members() as machines,
        world.router([one.member for one in machines], BY_CONVERSATION) as (router, target),
        world.router([one.member for one in machines], LEAST) as (_, least),
    ):
        targets = [world.direct(machines[0]), target, least]
        direct, *through = latency.latencies(targets, rounds=ROUNDS, seconds=0.0)
        alone = latency.streams(targets[0], clients=CLIENTS)
        used = router.cpu_seconds()
        streamed = latency.streams(target, clients=CLIENTS)
        used = router.cpu_seconds() - used
    table = Table("one client, ms", "p50", "p99", "added p50", "added p99")
    for one in (direct, *through):
        added = (one.p50 - direct.p50, one.p99 - direct.p99)
        table.add_row(one.target, *(f"{number:.2f}" for number in (one.p50, one.p99, *added)))
    world.console.print(table)
    table = Table(f"{CLIENTS} streams", "pieces", "merged", "delay p50, ms", "p99")
    for pieces in (alone, streamed):
        numbers = (f"{pieces.p50:.2f}", f"{pieces.p99:.2f}")
        table.add_row(pieces.target, str(pieces.sent), str(pieces.merged), *numbers)
    world.console.print(table)
    each = used / streamed.sent * 1e6
    world.console.print(f"a piece takes {each:.0f} µs of the router's CPU, connections included")
    return [
        *(
            Aim(
                f"{one.target}: added p50 at most {ADDED_P50} ms",
                f"{one.p50 - direct.p50:.2f} ms",
                one.p50 - direct.p50 <= ADDED_P50,
            )
            for one in through
        ),
        Aim("no piece of a stream is merged", str(streamed.merged), streamed.merged == 0),
    ]


def rates(world: World) -> list[Aim]:
    """Measure requests a second: where the proxy is all that works, and where answers take time."""
    saturated = list(_saturated(world).values())
    alike = list(_as_run(world).values())
    busy = list(_answering(world).values())
    for title, results in (
        (f"{throughput.CONNECTIONS} clients, instant answers", saturated),
        ("the same, a bare HAProxy first", alike),
        (f"{throughput.CONNECTIONS} clients, answers of {LEAST_ANSWER * 1000:.0f} ms", busy),
    ):
        table = Table(title, "requests/s", "of the first", "p50, ms", "proxy's CPU, µs a request")
        for one in results:
            cpu = f"{one.cpu:.0f}" if one.cpu else ""
            share = f"{one.per_second / results[0].per_second:.2f}"
            table.add_row(one.name, f"{one.per_second:.0f}", share, f"{one.p50:.2f}", cpu)
        world.console.print(table)
    return [
        *_within("the router as `up` runs it, against a bare HAProxy with its file", *alike),
        *_within(f"answers of {LEAST_ANSWER * 1000:.0f} ms, router against direct", *busy),
    ]


def _within(what: str, first: throughput.Throughput, second: throughput.Throughput) -> list[Aim]:
    slower = 1 - second.per_second / first.per_second
    later = second.p50 / first.p50 - 1
    return [
        Aim(f"{what}: requests/s within {WITHIN:.0%}", f"{-slower:+.1%}", slower <= WITHIN),
        Aim(f"{what}: p50 within {WITHIN:.0%}", f"{later:+.1%}", later <= WITHIN),
    ]


def _saturated(world: World) -> dict[str, throughput.Throughput]:
    """Compare with a HAProxy that only forwards, each on one core."""
    with tempfile.TemporaryDirectory() as name, router_folder(world.authority) as beside:
        folder = Path(name)
        with (
            throughput.instant_member(world.program, folder, world.authority, 41) as (member, _),
            world.router([member], BY_CONVERSATION) as (first, by_conversation),
            world.router([member], LEAST) as (second, least),
            reserved() as port,
        ):
            number = port.getsockname()[1]
            text = throughput.forwarding(beside, number, [member])
            with throughput.running(world.program, folder / "plain.cfg", text, number) as plain:
                direct = world.target("direct", member.port, STACK_KEY)
                forwards = world.target("HAProxy that only forwards", number, STACK_KEY)
                return _in_turns(
                    folder,
                    0.0,
                    (direct, []),
                    (forwards, [plain]),
                    (least, _workers(second)),
                    (by_conversation, _workers(first)),
                )


def _as_run(world: World) -> dict[str, throughput.Throughput]:
    """Compare a bare HAProxy that has the rendered file with the router as `up` runs it."""
    with tempfile.TemporaryDirectory() as name, reserved() as port:
        folder = Path(name)
        number = port.getsockname()[1]
        with (
            throughput.instant_member(world.program, folder, world.authority, 41) as (member, _),
            installed(world.authority, [member], port=number, stack_key=STACK_KEY, scope=SCOPE) as (
                own,
                state,
            ),
            world.router([member], BY_CONVERSATION, state.threads) as (bare, target),
        ):
            return _in_turns(
                folder,
                0.0,
                (dataclasses.replace(target, name="bare HAProxy"), _workers(bare)),
                (world.target("router as `up` runs it", number, STACK_KEY), [int(own.worker())]),
            )


def _answering(world: World) -> dict[str, throughput.Throughput]:
    """Compare where answers take the time that a model takes."""
    with (
        tempfile.TemporaryDirectory() as name,
        world.members() as machines,
        world.router([machines[0].member], BY_CONVERSATION) as (router, target),
    ):
        direct = world.direct(machines[0])
        return _in_turns(Path(name), LEAST_ANSWER, (direct, []), (target, _workers(router)))


def _in_turns(
    folder: Path, answer_seconds: float, *targets: tuple[Target, list[int]]
) -> dict[str, throughput.Throughput]:
    """Measure each target `TURNS` times, one after the other, and keep the best of each."""
    results = [
        throughput.measured(
            target, folder, seconds=SECONDS, answer_seconds=answer_seconds, proxies=processes
        )
        for _ in range(TURNS)
        for target, processes in targets
    ]
    return dict(throughput.table_of(results))


def _workers(router: LoopbackRouter) -> list[int]:
    return [one.pid for one in psutil.Process(router.pid).children()]


def caches(world: World) -> list[Aim]:
    """Play conversations by both ways of routing, and take a member away."""
    least = _played(world, LEAST, MANY)
    kept = [_played(world, BY_CONVERSATION, at_once) for at_once in (FEW, MANY)]
    table = Table("60 conversations", "blocks cached", "on several members", "requests by member")
    for one in (least, *kept):
        counts = "/".join(str(count) for count in one.requests.values())
        table.add_row(one.name, f"{one.share:.1%}", str(one.spread), counts)
    world.console.print(table)
    gain = kept[-1].share - least.share
    moved = _moved(world)
    return [
        *(
            Aim(f"{one.name}: none on several members", str(one.spread), one.spread == 0)
            for one in kept
        ),
        Aim(
            f"by conversation, {GAIN:.0%} of the blocks more are cached",
            f"{gain:+.1%}",
            gain >= GAIN,
        ),
        Aim("removing a member moves none of the others' conversations", str(moved), moved == 0),
    ]


def _played(world: World, routing: str, at_once: int) -> affinity.Affinity:
    """Play all conversations against empty caches."""
    with (
        world.members() as machines,
        world.router([one.member for one in machines], routing) as (_, target),
    ):
        return affinity.play(f"{routing}, {at_once} in flight", target, at_once=at_once)


def _moved(world: World) -> int:
    """Count conversations of the other members that move when one is removed."""
    with world.members() as machines:
        members = tuple(one.member for one in machines)
        with world.router(members, BY_CONVERSATION) as (router, target):
            before = affinity.play("with all", target, at_once=MANY)
            router.take(router.inputs.model_copy(update={"members": members[1:]}))
            then = affinity.play("without one", target, at_once=MANY)
    return before.moved(then, members[0].contract)


if __name__ == "__main__":
    sys.exit(main())
