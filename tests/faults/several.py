"""F18 with several machines: somebody dies while their number or their options change.

Clients ask the router all the time, and repeat nothing. After the death a person does what a person
does: takes the lock away, and runs `up` again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable

import httpx
import psutil

from components.core.bounded_http import trust
from tests.faults.cell import Act, Book, Standing
from tests.faults.kills import Strike, pulumi_dies, the_provider_dies
from tests.faults.moments import OF_ROLLOUT, OF_SCALE_IN, OF_SCALE_OUT, when
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

NOBODY = "nobody dies"


def the_router_dies(world: World, running: Running) -> None:
    """Master and workers at once, on a computer without systemd: the next `up` starts it again."""
    del running
    found = [one for one in processes_of(world.stack.folder) if _is_router(one)]
    assert found, "no router runs"
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


VICTIMS: dict[str, Strike] = {
    "pulumi": pulumi_dies,
    "its providers": the_provider_dies,
    "the router": the_router_dies,
}

HARMLESS = frozenset({"pulumi", "its providers"})
"""Whose death no client may notice."""


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

    def act(self, victim: str, moment: str) -> Act:
        """Let somebody die at a moment of it, and run `up` again; or nobody, without a moment."""

        def act(world: World) -> str:
            endpoint = router_of(world)
            before = world.stack.instance_ids()
            with Streams(endpoint, clients=CLIENTS, request=REQUEST) as clients:
                began = time.monotonic()
                self.change(world)
                ended = self._struck(world, victim, moment)
                outcome = _how(ended)
                if moment:
                    outcome = f"{outcome}; {self._aftermath(world, before)}"
                clients.await_answers()
                records = clients.records()
            self._judge(world, victim, begun_after(records, began))
            return outcome

        return act

    def _struck(self, world: World, victim: str, moment: str) -> Done:
        since = world.account.last_request()
        running = world.stack.start("up")
        if not moment:
            return running.wait()
        when(world, running, moment, since)
        VICTIMS[victim](world, running)
        ended = running.wait()
        if ended.status > 0:
            assert_plain(ended)
        return ended

    def _aftermath(self, world: World, before: set[int]) -> str:
        alive = {int(one["id"]) for one in world.account.alive()}
        rented = len(world.account.rents())
        if world.stack.is_locked():
            cancelled = world.stack.cancel()
            assert cancelled.status == 0, cancelled.outcome()
        world.succeeds("up")
        eventually(lambda: not orphans_of(world))
        now = world.stack.instance_ids()
        if not now - before:
            return "then goes on with the same machines"
        again = len(world.account.rents()) - rented
        assert again == len(now - alive), "rented twice"
        return "then rents the machine" if again else "then has the machine that was rented"

    def _judge(self, world: World, victim: str, records: list[Record]) -> None:
        found = tally(records)
        world.requests = f"{found.failed} of {found.made}"
        assert len(world.stack.instance_ids()) == self.machines
        assert all(world.answers(server) for server in servers(world)), "a machine does not answer"
        status = models(router_of(world))
        assert status == httpx.codes.OK, f"the router answers {status}"
        if victim in HARMLESS | {NOBODY}:
            assert found.failed == 0, f"requests failed: {dict(found.problems)}"


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
)


def _matrix() -> None:
    for course in COURSES:
        cell = BOOK.cell(
            "F18", NOBODY, course.name, needs=course.needs, leaves=course.leaves, part="several"
        )
        cell(course.act(NOBODY, ""))
        for victim in VICTIMS:
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
