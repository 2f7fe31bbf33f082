"""Several servers behind one router, and what the router makes of their answers."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from components.core.progress import Progress
from components.machine.ssh_types import Result
from components.vllm import deployment, health
from components.vllm.client_types import ModelInfo, Refused, Unreachable
from components.vllm.server_access import ServerAccess
from components.vllm.server_state import ServerInputs, ServerState
from tests.helpers.fake_endpoint import FakeEndpoint
from tests.helpers.interleaved import Interleaved
from tests.helpers.server_scene import GOOD_KEYS, LENGTH, MODEL, FakeHost, inputs

GROUP = "vast-vllm/dev/chat"
BAD = "max-num-seqs: 666\n"
"""A configuration that never comes up."""

BOOT = 90.0
"""Seconds from a restart until the server answers."""

SEES_AFTER = 2.0
"""Seconds of good answers after which the router sends requests again: two checks."""


class MemberHost(FakeHost):
    """A host whose server needs its time to start, and which others see change."""

    def __init__(self, clock: Interleaved) -> None:
        super().__init__(clock)
        self.interleaved = clock
        self.up_at = 0.0
        self.boot = 0.0
        """Seconds from a restart until the server answers: none while the scene is set."""
        self.drained_at = -1.0
        self.cut: list[float] = []
        """Seconds between the drain and each restart of a server that served."""

    def run(self, command: str, *, stdin: bytes | str | None = None, timeout: float = 0) -> Result:
        served = self.serves
        was_draining = self.draining
        now = self.interleaved.passed
        result = super().run(command, stdin=stdin, timeout=timeout)
        if self.draining and not was_draining:
            self.drained_at = now
        if command.endswith(("restart", "stop")):
            if served:
                self.cut.append(now - self.drained_at if was_draining else 0.0)
            self.up_at = now + self.boot
        if command.endswith("stop"):
            self.runs = None
        return result

    @property
    def serves(self) -> bool:
        """Whether its server answers clients."""
        return self.runs not in {None, BAD} and self.interleaved.passed >= self.up_at

    def _reach(self, doing: str) -> None:
        super()._reach(doing)
        self.interleaved.moment()


class MemberEndpoint(FakeEndpoint):
    """The endpoint of such a host."""

    def __init__(self, host: MemberHost) -> None:
        super().__init__(host.interleaved, ModelInfo((MODEL,), LENGTH, MODEL), GOOD_KEYS)
        self.host = host
        self.breaks = False
        """Whether a look at it fails, for a reason that is none of its own."""

    def status_of(self, path: str, key: str | None, *, method: str = "GET") -> int | Unreachable:
        found = super().status_of(path, key, method=method)
        return 404 if found == 200 and path == "/health" and self.host.draining else found

    def _is_up(self) -> bool:
        if self.breaks:
            raise RuntimeError("the look failed")
        return self.host.runs is not None and self.host.interleaved.passed >= self.host.up_at

    def _spend(self, answer: object) -> None:
        self.host.interleaved.moment()
        super()._spend(answer)


@dataclasses.dataclass
class SharedContent:
    """The notes, as they stand."""

    values: dict[str, Any]
    saved: dict[str, Any]

    def save(self) -> None:
        self.saved.clear()
        self.saved.update(copy.deepcopy(self.values))


class FakeRollout:
    """`RolloutFiles` without a disk. The end of a process frees the turn, as a file's lock."""

    def __init__(self) -> None:
        self.saved: dict[str, Any] = {}
        self.is_held = False

    @contextlib.contextmanager
    def turn(self) -> Iterator[bool]:
        if self.is_held:
            yield False
            return
        self.is_held = True
        try:
            yield True
        finally:
            self.is_held = False

    @contextlib.contextmanager
    def notes(self) -> Iterator[SharedContent]:
        yield SharedContent(copy.deepcopy(self.saved), self.saved)


class Member:
    """One server of the fleet, in a state."""

    def __init__(self, scene: FleetScene, number: int) -> None:
        self.scene = scene
        self.number = number
        self.host = MemberHost(scene.clock)
        self.endpoint = MemberEndpoint(self.host)
        self.endpoint.completion = self._completes
        self.state: ServerState | None = None
        self.healthy_since = 0.0
        self.said: list[str] = []

    def inputs(self, **changed: Any) -> ServerInputs:
        place = {"replica": self.number, "replicas": list(range(self.scene.replicas))}
        own = {"rollout": GROUP, **place, "drain_minutes": 10.0, "instance_id": 7}
        return ServerInputs.from_bag(inputs(**{**own, **changed}))

    def access(self) -> ServerAccess:
        scene = self.scene
        return ServerAccess(
            connect=lambda _host: self.host,
            ask=lambda *_: self.endpoint,
            clock=scene.clock,
            progress=Progress(
                "server",
                scene.clock,
                self.said.append,
                lambda: scene.clock.passed >= scene.ctrl_c_at,
            ),
            quarantine=lambda _contract, why: f"marked ({why})",
            rollout=lambda _group: scene.files,
        )

    def create(self, **changed: Any) -> None:
        self.state = deployment.create(self.inputs(**changed), self.access())

    def refresh(self) -> None:
        assert self.state is not None
        self.endpoint.breaks = self.number in self.scene.unseen
        self.state = health.refreshed(self.state, self.access())
        self.endpoint.breaks = False

    def update(self, **changed: Any) -> None:
        assert self.state is not None
        self.state = deployment.update(self.state, self.inputs(**changed), self.access())

    def needs_update(self, serve_yaml: str) -> bool:
        """What Pulumi's diff comes to."""
        assert self.state is not None
        return self.state.inputs.serve_yaml != serve_yaml or not self.state.is_ready

    @property
    def is_healthy(self) -> bool:
        return self.host.serves and not self.host.draining

    def _completes(self) -> str | Refused:
        return Refused(400, "no") if self.host.runs == BAD else "Yes"


class FleetScene:
    """A fleet that is up, and its router's view."""

    def __init__(self, replicas: int, choose: Callable[[int], int] = lambda _count: 0) -> None:
        self.replicas = replicas
        self.unseen: set[int] = set()
        """Members at which the looks of a refresh fail."""
        self.ctrl_c_at = float("inf")
        self.files = FakeRollout()
        self.away: list[int] = []
        """At each moment, how many members the router could not use."""
        self.clock = Interleaved(choose, self._watch)
        self.members = [Member(self, number) for number in range(replicas)]
        for member in self.members:
            member.create()
            member.host.boot = BOOT
        self.clock.sleep(600)
        self.away.clear()

    def up(self, serve_yaml: str) -> list[BaseException | None]:
        """Refresh all members, then change those that differ, at once."""
        for member in self.members:
            member.refresh()
        return self.clock.run(
            *(
                lambda member=member: member.update(serve_yaml=serve_yaml)
                for member in self.members
                if member.needs_update(serve_yaml)
            )
        )

    def _watch(self) -> None:
        now = self.clock.passed
        away = 0
        for member in self.members:
            if not member.is_healthy:
                member.healthy_since = float("inf")
            elif member.healthy_since == float("inf"):
                member.healthy_since = now
            away += now - member.healthy_since < SEES_AFTER
        self.away.append(away)
