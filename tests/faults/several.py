"""F18 with several machines: somebody dies while they, their number or their options change.

Clients ask the router all the time, and repeat nothing. After the death a person does what a person
does: takes the lock away, and runs `up` again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil

from components.core.bounded_http import trust
from emulator.running import container_processes
from tests.faults.cell import Act, Book, Standing
from tests.faults.kills import Strike, pulumi_dies, the_provider_dies
from tests.faults.moments import (
    OF_REPLACING_ALL,
    OF_ROLLOUT,
    OF_SCALE_IN,
    OF_SCALE_OUT,
    when,
)
from tests.faults.world import Running, World, assert_plain, orphans_of
from tests.helpers.polling import eventually
from tests.helpers.processes import processes_of
from tests.helpers.stack_world import Done
from toolchain.load_client import Endpoint
from toolchain.scale_out.streams import Record, Streams, begun_after, tally

BOOK = Book()

CLIENTS = 8
REQUEST = {"max_tokens": 10, "vllm_xargs": {"emulator_pause_seconds": 0.1}}
"""Streams of a second, whatever the emulator's speed is."""

AFTER_FAILURE = 0.5
"""Seconds until a client asks again where nobody answers. Several worlds share the cores."""

NOBODY = "nobody dies"


def the_router_dies(world: World, running: Running) -> None:
    """Master and workers at once, on a computer without systemd: the next `up` starts it again."""
    del running
    found = [one for one in processes_of(world.stack.folder) if _is_router(one)]
    assert found, "no router runs"
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def a_replica_dies(world: World, running: Running) -> None:
    """vLLM alone, on a machine without which the endpoint can do; its supervisor starts it again.

    That is the oldest one of several that take requests, else the one that has left the router.
    """
    del running
    containers = world.account.home / "containers"
    ids = [int(one["id"]) for one in world.account.alive()]
    asked = [id_ for id_ in ids if not (containers / f"{id_}/root/serving/draining").exists()]
    (chosen,) = asked[:1] if len(asked) > 1 else [id_ for id_ in ids if id_ not in asked]
    for process in eventually(lambda: _servers(containers, chosen), within=60):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


OF_COMMAND: dict[str, Strike] = {"pulumi": pulumi_dies, "its providers": the_provider_dies}
"""Whose death no client may notice."""

OF_SERVICE: dict[str, Strike] = {"the router": the_router_dies, "a replica": a_replica_dies}

VICTIMS = {**OF_COMMAND, **OF_SERVICE}


@dataclasses.dataclass(frozen=True)
class Course:
    """A change of a stack with several machines."""

    name: str
    moments: tuple[str, ...]
    needs: Standing
    leaves: Standing
    machines: int
    """That there are afterwards."""
    change: Callable[[World], None]
    victims: tuple[str, ...] = tuple(VICTIMS)

    def act(self, victim: str, moment: str) -> Act:
        """Let somebody die at a moment of it, and run `up` again; or nobody, without a moment."""

        def act(world: World) -> str:
            endpoint = router_of(world)
            before = world.stack.instance_ids()
            with Streams(
                endpoint, clients=CLIENTS, request=REQUEST, after_failure=AFTER_FAILURE
            ) as clients:
                began = time.monotonic()
                self.change(world)
                ended, died = self._struck(world, victim, moment)
                outcome = _how(ended)
                if moment:
                    outcome = f"{outcome}; {self._aftermath(world, before)}"
                clients.await_answers()
                records = clients.records()
            self._judge(world, victim, begun_after(records, began), died)
            return outcome

        return act

    def _struck(self, world: World, victim: str, moment: str) -> tuple[Done, float]:
        """How the command ends, and when somebody died in it."""
        since = world.account.last_request()
        running = world.stack.start("up")
        if not moment:
            ended = running.wait()
            assert ended.status == 0, ended.outcome()
            return ended, time.monotonic()
        when(world, running, moment, since)
        VICTIMS[victim](world, running)
        died = time.monotonic()
        ended = running.wait()
        if ended.status > 0:
            assert_plain(ended)
        # What such an `up` asks of the market is asked before it ends.
        eventually(lambda: not orphans_of(world))
        return ended, died

    def _aftermath(self, world: World, before: set[int]) -> str:
        alive = {int(one["id"]) for one in world.account.alive()}
        rented = len(world.account.rents())
        if world.stack.is_locked():
            cancelled = world.stack.cancel()
            assert cancelled.status == 0, cancelled.outcome()
        world.succeeds("up")
        eventually(lambda: not orphans_of(world))
        now = world.stack.instance_ids()
        again = len(world.account.rents()) - rented
        assert again == len(now - alive), "rented twice"
        return _what_up_did(len(now - before), again)

    def _judge(self, world: World, victim: str, records: list[Record], died: float) -> None:
        found = tally(records)
        world.requests = f"{found.failed} of {found.made}"
        assert len(world.stack.instance_ids()) == self.machines
        assert all(world.answers(server) for server in servers(world)), "a machine does not answer"
        status = models(router_of(world))
        assert status == httpx.codes.OK, f"the router answers {status}"
        if victim not in OF_SERVICE:
            assert found.failed == 0, f"requests failed: {dict(found.problems)}"
        if victim == "a replica":
            later = tally(begun_after(records, died))
            assert later.failed == 0, f"requests that began later failed: {dict(later.problems)}"


def router_of(world: World) -> Endpoint:
    """What clients of the stack call."""
    router, key = world.stack.resource("router:Router"), world.stack.resource("vllm:ApiKey")
    server = world.stack.resource("vllm:Server")
    assert router, "there is no router"
    assert key
    assert server
    (clear,) = world.api_keys(key["outputs"])
    outs = router["outputs"]
    url = str(outs["endpoint_url"]).removesuffix("/v1")
    return Endpoint(url, clear, str(server["outputs"]["model"]), str(outs["ca_certificate"]))


def servers(world: World) -> list[dict[str, object]]:
    """Those of the state."""
    return [one for one in world.stack.resources() if str(one["type"]).endswith("vllm:Server")]


def models(endpoint: Endpoint) -> int:
    """The status of a harmless question to the router."""
    with httpx.Client(verify=trust(endpoint.certificate), trust_env=False) as client:
        headers = {"Authorization": f"Bearer {endpoint.key}"}
        return client.get(f"{endpoint.url}/v1/models", headers=headers, timeout=20).status_code


def _is_router(process: psutil.Process) -> bool:
    try:
        return "haproxy" in process.name()
    except psutil.Error:
        return False


def _servers(containers: Path, contract: int) -> list[psutil.Process]:
    found = container_processes(containers, contract)
    return [one for one in found if "emulator.standins.vllm" in _words(one)]


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _what_up_did(new: int, again: int) -> str:
    """Say how many of the machines that are new since the change it has rented."""
    if not new:
        return "then goes on with the same machines"
    them, were = ("machine", "was") if new == 1 else ("machines", "were")
    if not again:
        return f"then has the {them} that {were} rented"
    if again == new:
        return f"then rents the {them}"
    return f"then has {new - again} of {new} machines, and rents {again}"


def _how(ended: Done) -> str:
    if ended.status < 0:
        return "killed"
    return "fails" if ended.status else "succeeds"


def _to(machines: int) -> Callable[[World], None]:
    return lambda world: world.change(replicas=machines)


def _another_option(world: World) -> None:
    world.sequences += 1
    world.change(vllmOverrides={"max-num-seqs": world.sequences})


COURSES = (
    Course("up, 2 to 3", OF_SCALE_OUT, "two", "three", 3, _to(3)),
    Course("up, 3 to 2", OF_SCALE_IN, "three", "two", 2, _to(2)),
    Course("up, another option", OF_ROLLOUT, "two", "two", 2, _another_option),
    Course(
        "up, all replaced",
        OF_REPLACING_ALL,
        "two, create-first",
        "two, create-first",
        2,
        World.another_disk,
        tuple(OF_COMMAND),
    ),
)


def _matrix() -> None:
    for course in COURSES:
        cell = BOOK.cell(
            "F18", NOBODY, course.name, needs=course.needs, leaves=course.leaves, part="several"
        )
        cell(course.act(NOBODY, ""))
        for victim in course.victims:
            for moment in course.moments:
                BOOK.cell(
                    "F18",
                    f"{victim} dies: {moment}",
                    course.name,
                    needs=course.needs,
                    leaves=course.leaves,
                    part="several",
                )(course.act(victim, moment))


_matrix()
