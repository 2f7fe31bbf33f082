"""Measure the router: `make router-benchmark`, or `python -m toolchain.scale_out.benchmark`.

A real HAProxy with the rendered file stands in front of three members on loopback. Milliseconds are
this computer's. What is compared is measured in turns, and compared within each round. A busy
moment meets all of a round alike, and a busy computer makes the interval wider, not the ratio.
Status 1 if an aim is missed, 2 if something could not be measured or one is undecided.
"""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from components.core.keys import digest, scope_of
from components.router import config
from components.router.inputs import KeyDigest, Member, RouterInputs
from components.router.routes import own_gate
from components.tls.authorities import Authority
from toolchain.scale_out import affinity, aims, latency, page, throughput
from toolchain.scale_out.aims import Aim
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

COMMAND = "make router-benchmark"

CONTRACTS = (41, 42, 43)
SCOPE = scope_of("vast-vllm", "benchmark")
STACK_KEY = "5e" * 24
BY_CONVERSATION = "conversation"
LEAST = "least-connections"

ROUNDS = 400
"""Requests to each target."""

CLIENTS = 50

PAIRED = 25
"""Rounds of two targets that are compared for an aim. The interval goes from the eighth to the
eighteenth of their ratios."""

SHOWN = 9
"""Rounds of targets that are compared without an aim."""

LEAST_ANSWER = 0.05
"""Seconds of the shortest answers that are worth a router: 8 tokens of one client on two H200."""

MANY = 45
"""Requests in flight while conversations are played: most of them."""

FEW = 10
"""With few in flight, a member's share of them is a small whole number."""

GAIN = 0.05
"""Of the share of blocks that are cached, at least: by conversation, against least connections."""


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
        self,
        members: Sequence[Member],
        routing: str,
        threads: int = 1,
        environment: Mapping[str, str] = config.ENVIRONMENT,
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
            with LoopbackRouter(folder, inputs, self.program, environment) as router:
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
        measured = [*delays(world), *rates(world), *caches(world)]
    except NotMeasured as error:
        console.print(f"[red]{error}[/red]")
        return 2
    table = Table("aim", "measured (95 % interval)", "")
    for aim in measured:
        table.add_row(aim.what, aim.measured, aim.verdict)
    console.print(table)
    text = page.DOCUMENT.read_text(encoding="utf-8")
    text = page.written(text, COMMAND, aims.markdown(measured))
    page.DOCUMENT.write_text(text, encoding="utf-8")
    return aims.status(measured)


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
    table = Table("one client, ms", "p50", "p99", "added p99")
    for one in (direct, *through):
        numbers = (one.p50, one.p99, one.p99 - direct.p99)
        table.add_row(one.target, *(f"{number:.2f}" for number in numbers))
    world.console.print(table)
    table = Table(f"{CLIENTS} streams", "pieces", "merged", "delay p50, ms", "p99")
    for pieces in (alone, streamed):
        late = (f"{pieces.p50:.2f}", f"{pieces.p99:.2f}")
        table.add_row(pieces.target, str(pieces.sent), str(pieces.merged), *late)
    world.console.print(table)
    each = used / streamed.sent * 1e6
    world.console.print(f"a piece takes {each:.0f} µs of the router's CPU, connections included")
    return [
        *(aims.adds_little(one.target, one.added_to(direct)) for one in through),
        aims.is_none("no piece of a stream is merged", streamed.merged),
    ]


def rates(world: World) -> list[Aim]:
    """Measure requests a second: where the proxy is all that works, and where answers take time."""
    clients = f"{throughput.CONNECTIONS} clients"
    _shown(world, f"{clients}, instant answers", _saturated(world))
    alike = _shown(world, "the same, a bare HAProxy first", _as_run(world))
    slow = f"answers of {LEAST_ANSWER * 1000:.0f} ms"
    busy = _shown(world, f"{clients}, {slow}", _answering(world))
    return [
        *_within("as `up` runs it, against a bare HAProxy with its file", *alike),
        *_within(f"{slow}, against none", *busy),
    ]


def _shown(world: World, title: str, series: list[throughput.Series]) -> list[throughput.Series]:
    table = Table(title, "requests/s", "of the first", "p50, ms", "proxy's CPU, µs a request")
    for one in series:
        share = one.rate_against(series[0])
        table.add_row(
            one.name,
            f"{statistics.median(one.rates):.0f} ({min(one.rates):.0f} to {max(one.rates):.0f})",
            f"{share.median:.2f} ({share.low:.2f} to {share.high:.2f})",
            f"{statistics.median(one.p50s):.2f}",
            f"{one.cpu:.0f}" if one.cpu else "",
        )
    world.console.print(table)
    return series


def _within(what: str, first: throughput.Series, second: throughput.Series) -> list[Aim]:
    return aims.is_within(what, second.rate_against(first), second.p50_against(first))


def _saturated(world: World) -> list[throughput.Series]:
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
                targets = [
                    (direct, []),
                    (forwards, [plain]),
                    (least, _workers(second)),
                    (by_conversation, _workers(first)),
                ]
                return throughput.in_turns(folder, targets, rounds=SHOWN, answer=0.0)


def _as_run(world: World) -> list[throughput.Series]:
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
            world.router([member], BY_CONVERSATION, state.threads, {}) as (bare, target),
        ):
            targets = [
                (dataclasses.replace(target, name="bare HAProxy"), _workers(bare)),
                (world.target("router as `up` runs it", number, STACK_KEY), [int(own.worker())]),
            ]
            return throughput.in_turns(folder, targets, rounds=PAIRED, answer=0.0)


def _answering(world: World) -> list[throughput.Series]:
    """Compare where answers take the time that a model takes."""
    with (
        tempfile.TemporaryDirectory() as name,
        world.members() as machines,
        world.router([machines[0].member], BY_CONVERSATION) as (router, target),
    ):
        targets = [(world.direct(machines[0]), []), (target, _workers(router))]
        return throughput.in_turns(Path(name), targets, rounds=PAIRED, answer=LEAST_ANSWER)


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
            aims.is_none(f"{one.name}: no conversation on several members", one.spread)
            for one in kept
        ),
        Aim(
            f"by conversation, {GAIN:.0%} of the blocks more are cached",
            f"{gain:+.1%}",
            "met" if gain >= GAIN else "MISSED",
        ),
        aims.is_none("removing a member moves none of the others' conversations", moved),
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
