"""A served model in a state, and the world that it is served in: a host, an endpoint, a market."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import pytest

from components.core.errors import StackError
from components.core.keys import digest, machine_key
from components.core.property_bag import Properties
from components.machine.ssh_commands import check_relative
from components.machine.ssh_types import HostAddress, HostUnreachable, Result
from components.resources.context import Context, using
from components.resources.server import ServerProvider
from components.vast.api.models import Instance
from components.vast.boot_notes import ServerStart
from components.vast.quarantine import quarantine_reason
from components.vllm.client_types import (
    ANSWER_TIMEOUT,
    ModelInfo,
    Traffic,
    Unreachable,
)
from components.vllm.server_state import READY
from tests.helpers.fake_endpoint import FakeEndpoint
from tests.helpers.fake_host import read_on
from tests.helpers.fake_instances import FakeInstances
from tests.helpers.fakes import VirtualClock
from tests.helpers.offers import instance

MODEL = "org/model"
LENGTH = 4096
SCOPE = "vast-vllm/vast-vllm/dev/"
LABEL = f"{SCOPE}x/ab12"
KEY, NEXT_KEY = (machine_key(stack_key, SCOPE, 7) for stack_key in ("the-key", "new-key"))
KEY_OF_ANOTHER_MACHINE = machine_key("the-key", SCOPE, 8)
OLD_KEY, NEW_KEY, OLDER_KEY, OLDEST_KEY = digest(KEY), digest(NEXT_KEY), "c" * 64, "d" * 64
GOOD_KEYS = {"the-key", KEY, NEXT_KEY, KEY_OF_ANOTHER_MACHINE}
COMMIT, OTHER_COMMIT = "c" * 40, "d" * 40
BROKEN = HostUnreachable(HostAddress("203.0.113.1", 22), "closed")
STARTS = "== supervise.sh: server start\n"
LISTENS = "INFO:     Application startup complete.\n"


class Killed(BaseException):
    """The end of the process: nothing is caught, nothing undone."""


class FakeHost:
    """A host with files, a supervisor and a server that has read serve.yaml at its last start."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.files: dict[str, str] = {}
        self.runs: str | None = None
        self.restarts: list[str] = []
        self.phase = "serving"
        self.draining = False
        self.commands: list[str] = []
        """What the supervisor was told, in order."""
        self.log = ""
        self.started_at = 0
        self.breaks_at: Callable[[str], bool] = lambda _: False
        self.unreachable = False
        self.resolved = COMMIT
        self.listed = ""
        self.error: BaseException = BROKEN

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def put(self, files: Mapping[str, tuple[bytes, int]]) -> None:
        for name in files:
            check_relative(name)
        written = {name: content.decode() for name, (content, _) in files.items()}
        self._reach(f"put {' '.join(f'{name}={text}' for name, text in written.items())}")
        self.files |= written

    def read_log(self, name: str, offset: int) -> tuple[str, int]:
        self._reach(f"read {name}")
        text = self.log if name == "vllm.log" else self.files.get(name, "")
        return read_on(text, offset)

    def status(self) -> dict[str, str]:
        self._reach("status")
        if self.runs is None:
            return {"supervisor": "stopped", "phase": "stopped"}
        return {
            "supervisor": "running",
            "phase": self.phase,
            "phase_since": str(self.started_at),
            "draining": "yes" if self.draining else "",
            "restarts": "0",
            "config_digest": hashlib.sha256(self.runs.encode()).hexdigest(),
            "resolved_revision": self.resolved,
            "companion_revisions": f"org/head@{COMMIT} ",
        }

    def run(self, command: str, *, stdin: bytes | str | None = None, timeout: float = 0) -> Result:
        del stdin, timeout
        self._reach(command)
        told = command.rsplit(maxsplit=1)[-1]
        self.commands.append(told)
        self.draining = told in {"drain", "stop"} or (self.draining and told != "undrain")
        if told == "restart":
            self.draining = False
            self.serve(self.files["serve.yaml"])
            self.restarts.append(self.runs or "")
        return Result(0, self.listed if command.endswith("files") else "", "")

    def serve(self, serve_yaml: str) -> None:
        """Start a server, as the supervisor does."""
        self.runs = serve_yaml
        self.log += STARTS + LISTENS
        self.started_at = int(self._clock.epoch())

    def keys(self) -> list[str]:
        """Digests that the gate takes now."""
        return [line.split()[0] for line in self.files["allowed_keys"].splitlines()]

    def _reach(self, doing: str) -> None:
        if self.unreachable or self.breaks_at(doing):
            raise self.error


def own_endpoint(clock: VirtualClock) -> FakeEndpoint:
    """An endpoint that knows all keys of the scene."""
    return FakeEndpoint(clock, ModelInfo((MODEL,), LENGTH, MODEL), GOOD_KEYS)


class Scene:
    """A served model in a state, and the world that it is served in."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.host = FakeHost(self.clock)
        self.endpoint = own_endpoint(self.clock)
        self.endpoint_at: Callable[[str, str], FakeEndpoint] = lambda _url, _pem: self.endpoint
        self.given: list[float] = []
        """Seconds for an answer, of each client of the endpoint."""
        self.hears: Callable[[str], object] = print
        self.market = FakeInstances(Instance.from_json(instance(id=7, label=LABEL, dph_total=1.0)))
        self.starts: list[ServerStart] = []
        """What was noted of the server's starts."""
        self.olds: Properties = {}
        self.interrupted_at = math.inf
        """When somebody presses Ctrl-C, in seconds of the clock."""

    def note_start(self, start: ServerStart) -> None:
        """Take a note, as `BootNotes` does."""
        self.starts.append(start)

    def context(self) -> Context:
        """The context of its operations."""
        return SceneContext(
            clock=self.clock,
            say=self._hear,
            is_asked_to_end=lambda: self.clock.passed >= self.interrupted_at,
            scene=self,
        )

    def _hear(self, line: str) -> None:
        self.hears(line)

    def serve(self) -> None:
        """Bring the server up, and forget how."""
        self.olds = ServerProvider().create(inputs()).outs or {}
        self.host.restarts.clear()
        self.endpoint.asked.clear()
        self.given.clear()

    @property
    def marks(self) -> list[str]:
        """Why machines were marked as unfit."""
        reasons = [quarantine_reason(text) for what, text in self.market.did if what == "label"]
        return [reason.replace(" ", "_") for reason in reasons]

    def update(self, **news: Any) -> Properties:
        return ServerProvider().update("x", self.olds, inputs(**news)).outs or {}

    def fails(self, **news: Any) -> StackError:
        with pytest.raises(StackError) as caught:
            self.update(**news)
        return caught.value

    def refresh(self) -> str:
        self.olds = ServerProvider().read("x", self.olds).outs or {}
        return str(self.olds["status"])


def made_of(stack_key: str) -> Properties:
    """A stack's key as its server gets it."""
    return {"stack_key": stack_key, "stack_key_digest": digest(stack_key)}


ROTATED = made_of("new-key") | {"key_generation": 2}


def inputs(**changed: Any) -> Properties:
    return {
        "instance_id": 7,
        "public_ip": "203.0.113.1",
        "host_port": 40000,
        "ssh_port": 40022,
        "host_key": "",
        "private_key": "",
        **made_of("the-key"),
        "previous_key_digest": "",
        "key_scope": SCOPE,
        "key_generation": 1,
        "shared_api_key": False,
        "model": MODEL,
        "max_model_len": LENGTH,
        "download_gb": 1.0,
        "image_gb": 30.0,
        "disk_gb": 60.0,
        "serve_yaml": "max-num-seqs: 64\n",
        "model_env": "",
        "key_grace_minutes": 10.0,
        "max_request_mib": 32,
        "environment": "",
        "agent": "1",
        "tls": False,
        "ready_minutes": 45.0,
        "drain_minutes": None,
        **changed,
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class SceneContext(Context):
    """Clients of the scene's own host and endpoint; nobody asks a market."""

    scene: Scene

    def market(self, *, patient: bool = True) -> Any:
        del patient
        return self.scene.market

    def boot_notes(self) -> Any:
        return self.scene

    def host(self, *_: object, **__: object) -> Any:
        return self.scene.host

    def endpoint(
        self,
        url: str,
        certificate: str,
        answer_timeout: float = ANSWER_TIMEOUT,
        identity: str = "",
    ) -> Any:
        del identity
        self.scene.given.append(answer_timeout)
        return self.scene.endpoint_at(url, certificate)


NEW = {"serve_yaml": "max-num-seqs: 8\n"}
TIMED_OUT = Unreachable("timed_out")
BILLED = "the machine stays and is billed until an `up` that works, or `pulumi destroy`"


def own_scene() -> Any:
    """A fixture `scene`: a server that is up, for the tests of a file."""

    @pytest.fixture
    def scene() -> Iterator[Scene]:
        one = Scene()
        with using(one.context()):
            one.serve()
            yield one

    return scene


def first_start_fails(scene: Scene, **given: Any) -> str:
    scene.host.files.clear()
    with pytest.raises(StackError) as caught:
        ServerProvider().create(inputs(**given))
    return str(caught.value)


def standing() -> Traffic:
    return Traffic(under_way=3, ended=7, tokens=900)


def hangs(scene: Scene) -> None:
    """Lists its models and completes nothing, until it is started anew."""
    restarts = len(scene.host.restarts)
    scene.endpoint.counters = standing
    scene.endpoint.completion = lambda: "Yes" if len(scene.host.restarts) > restarts else TIMED_OUT


def doubted(scene: Scene) -> None:
    """Found not ready by one look, as when our own network failed."""
    found, scene.endpoint.found = scene.endpoint.found, Unreachable("closed")
    assert scene.refresh() != READY
    scene.endpoint.found = found


def moving() -> Callable[[], Traffic]:
    tokens = itertools.count(900)
    return lambda: Traffic(50, 7, next(tokens))


def late_twice(scene: Scene) -> None:
    """Busy with others for as long as two questions are waited for."""
    scene.endpoint.counters = moving()
    answers: list[str | Unreachable] = [TIMED_OUT, TIMED_OUT]
    scene.endpoint.completion = lambda: answers.pop() if answers else "Yes"
