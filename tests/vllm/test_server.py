from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
import shlex
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import pytest

from components.core.errors import StackError
from components.core.interruption import Interrupted
from components.core.property_bag import Properties
from components.machine.ssh_types import HostAddress, HostUnreachable, Result
from components.plan import MODELS
from components.resources import server
from components.resources.context import Context, using
from components.resources.server import ServerProvider
from components.vast import quarantine
from components.vllm import deployment, health
from components.vllm.agent_files import model_env
from components.vllm.client_types import (
    ANSWER_TIMEOUT,
    PATIENT_TIMEOUT,
    ModelInfo,
    Refused,
    Traffic,
    Unreachable,
)
from components.vllm.errors import ChangeFailed
from components.vllm.machine_key import digest, machine_key
from components.vllm.profile import load_profile
from components.vllm.pushed_configuration import pushed_digest
from components.vllm.readiness.wait import in_utc
from components.vllm.server_access import Limits
from components.vllm.server_state import READY, ServerInputs
from tests.fakes import VirtualClock

MODEL = "org/model"
LENGTH = 4096
SCOPE = "vast-vllm/vast-vllm/dev/"
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
        written = {name: content.decode() for name, (content, _) in files.items()}
        self._reach(f"put {' '.join(f'{name}={text}' for name, text in written.items())}")
        self.files |= written

    def read_log(self, name: str, offset: int) -> tuple[str, int]:
        self._reach(f"read {name}")
        text = self.log if name == "vllm.log" else self.files.get(name, "")
        return text[offset:], len(text)

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


class FakeEndpoint:
    """An endpoint that answers what a test says; what does not answer takes its time."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.found: ModelInfo | Refused | Unreachable = ModelInfo((MODEL,), LENGTH, MODEL)
        self.completion: Callable[[], str | Refused | Unreachable] = lambda: "Yes"
        self.counters: Callable[[], Traffic | Refused | Unreachable] = lambda: Traffic(0, 0)
        self.asked: list[str] = []
        self.counted_with: list[str] = []

    def models(self, key: str) -> ModelInfo | Refused | Unreachable:
        del key
        self.asked.append("models")
        self._spend(self.found)
        return self.found

    def complete(self, key: str, model: str) -> str | Refused | Unreachable:
        del key, model
        self.asked.append("complete")
        answer = self.completion()
        self._spend(answer)
        return answer

    def traffic(self, key: str) -> Traffic | Refused | Unreachable:
        self.counted_with.append(key)
        self.asked.append("traffic")
        return self.counters()

    def status_of(self, path: str, key: str | None, *, method: str = "GET") -> int | Unreachable:
        del method
        return 404 if path == "/invocations" and key in GOOD_KEYS else 401

    def _spend(self, answer: object) -> None:
        if answer == Unreachable("timed_out"):
            self._clock.sleep(12)


class Scene:
    """A served model in a state, and the world that it is served in."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = VirtualClock()
        self.host = FakeHost(self.clock)
        self.endpoint = FakeEndpoint(self.clock)
        self.endpoint_at: Callable[[str, str], FakeEndpoint] = lambda _url, _pem: self.endpoint
        self.given: list[float] = []
        """Seconds for an answer, of each client of the endpoint."""
        self.hears: Callable[[str], object] = print
        self.marks: list[str] = []
        monkeypatch.setattr(quarantine, "quarantine", self._mark)
        self.olds: Properties = {}
        self.interrupted_at = math.inf
        """When somebody presses Ctrl-C, in seconds of the clock."""

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

    def _mark(self, _api: object, instance_id: int, why: str) -> str:
        self.marks.append(why)
        return f"instance {instance_id} is marked unfit"

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


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    one = Scene(monkeypatch)
    with using(one.context()):
        one.serve()
        yield one


# --------------------------------------------------------------------------- what the host is told


def test_the_host_is_told_of_every_repository_and_its_files() -> None:
    told = dict(
        word.split("=", 1)
        for word in shlex.split(model_env(load_profile("mistral-small-4-fp8-2xh200-eagle", MODELS)))
    )
    assert told["MODEL"] == "mistralai/Mistral-Small-4-119B-2603"
    assert told["FILES"].splitlines()[0] == "consolidated*"
    name, revision, *files = told["COMPANIONS"].split()
    assert (name, revision) == ("mistralai/Mistral-Small-4-119B-2603-eagle", "main")
    assert files[0] == "consolidated*"


def test_a_model_alone_has_no_companions() -> None:
    told = model_env(load_profile("qwen2.5-0.5b-1x4090", MODELS))
    assert "COMPANIONS=''\n" in told


# --------------------------------------------------------------------------- changes


NEW = {"serve_yaml": "max-num-seqs: 8\n"}


def test_a_changed_option_restarts_the_server_with_it(scene: Scene) -> None:
    outs = scene.update(**NEW)
    assert scene.host.restarts == [NEW["serve_yaml"]]
    assert outs["status"] == READY


def test_what_a_running_server_need_not_read_restarts_nothing(scene: Scene) -> None:
    scene.update(ready_minutes=60.0)
    assert scene.host.restarts == []


def test_a_disk_alone_changes_nothing(scene: Scene) -> None:
    """As in a state that was written before servers knew of it."""
    del scene.olds["disk_gb"], scene.olds["image_gb"]
    assert not ServerProvider().diff("x", scene.olds, inputs()).changes


def test_a_connection_that_breaks_behind_the_restart_certifies_nothing(scene: Scene) -> None:
    """The host runs the new configuration then, while the state still says the old one."""
    broken: list[str] = []

    def after_the_restart(doing: str) -> bool:
        if scene.host.restarts and not broken:
            broken.append(doing)
        return bool(broken)

    scene.host.breaks_at = after_the_restart
    error = scene.fails(**NEW)
    assert "the host may serve either of them" in str(error)
    assert scene.marks == []
    assert scene.host.runs == NEW["serve_yaml"]

    scene.host.breaks_at = lambda _: False
    assert "another configuration" in scene.refresh()
    scene.update()
    assert scene.host.runs == scene.olds["serve_yaml"]


def test_a_connection_that_breaks_once_is_gone_back_from(scene: Scene) -> None:
    broken: list[str] = []

    def once_after_the_restart(doing: str) -> bool:
        if not scene.host.restarts or broken:
            return False
        broken.append(doing)
        return True

    scene.host.breaks_at = once_after_the_restart
    error = scene.fails(**NEW)
    assert isinstance(error, ChangeFailed)
    assert "the previous configuration serves again" in str(error)
    assert scene.host.runs == scene.olds["serve_yaml"]
    assert scene.refresh() == READY


@pytest.mark.parametrize("broken_at", ["put serve.yaml", "put pushed=", "restart"])
def test_a_death_at_any_moment_of_a_push_is_mended_by_the_next_one(
    scene: Scene, broken_at: str
) -> None:
    scene.host.breaks_at = lambda doing: broken_at in doing
    scene.host.error = Killed()
    with pytest.raises(Killed):
        scene.update(**NEW)

    scene.host.breaks_at = lambda _: False
    scene.update()
    assert scene.host.runs == scene.olds["serve_yaml"]


def test_a_server_that_was_started_with_another_configuration_is_found(scene: Scene) -> None:
    assert scene.refresh() == READY
    scene.host.serve("max-num-seqs: 9\n")
    assert "started with another configuration" in scene.refresh()
    scene.update()
    assert scene.host.restarts == [scene.olds["serve_yaml"]]


def test_a_host_that_cannot_be_asked_is_no_news_of_its_server(scene: Scene) -> None:
    scene.host.unreachable = True
    assert scene.refresh() == READY


def test_while_the_weights_come_the_digest_is_of_the_server_before(scene: Scene) -> None:
    scene.host.runs = "max-num-seqs: 9\n"
    scene.host.phase = "prefetch"
    assert scene.refresh() == READY


# --------------------------------------------------------------------------- keys


def test_the_next_machine_takes_a_key_of_its_own_alone(scene: Scene) -> None:
    assert scene.host.keys() == [OLD_KEY]
    outs = ServerProvider().create(inputs(instance_id=8)).outs or {}
    assert outs["api_key"] == KEY_OF_ANOTHER_MACHINE
    assert scene.host.keys() == [digest(outs["api_key"])]
    assert not {OLD_KEY, digest("the-key")} & {*scene.host.keys()}


def test_a_machine_of_an_older_release_keeps_its_key_until_the_generation_rises(
    scene: Scene,
) -> None:
    seen, fresh = made_of("the-key"), made_of("never-seen")
    for name in (*seen, "previous_key_digest", "key_scope", "key_generation", "shared_api_key"):
        del scene.olds[name]
    scene.olds |= {"api_key": "the-key", "key_digest": digest("the-key")}
    news = fresh | {"previous_key_digest": digest("the-key")}

    assert ServerProvider().diff("x", scene.olds, inputs(**news)).changes
    scene.olds = scene.update(**news)
    assert scene.host.keys() == [digest("the-key")]
    assert scene.host.restarts == []
    assert not ServerProvider().diff("x", scene.olds, inputs(**news)).changes

    outs = scene.update(**ROTATED)
    assert scene.host.keys() == [NEW_KEY, digest("the-key")]
    assert list(outs["replaced_keys"]) == [digest("the-key")]
    assert scene.host.restarts == []


def test_a_refresh_comes_by_with_the_inputs_that_an_older_release_has_recorded(
    scene: Scene,
) -> None:
    recorded = inputs(api_key="the-key", key_digest=digest("the-key"))
    for name in ("stack_key", "stack_key_digest", "previous_key_digest", "key_scope"):
        del recorded[name], scene.olds[name]
    for name in ("key_generation", "shared_api_key"):
        del recorded[name], scene.olds[name]
    scene.olds |= {"api_key": "the-key", "key_digest": digest("the-key")}
    assert not ServerProvider().diff("x", scene.olds, recorded).changes


def test_a_shared_key_is_the_stacks_own_and_the_one_that_it_replaces_has_its_grace(
    scene: Scene,
) -> None:
    outs = scene.update(shared_api_key=True)
    assert outs["api_key"] == "the-key"
    assert scene.host.keys() == [digest("the-key"), OLD_KEY]


def test_going_back_leaves_replaced_keys_their_grace(scene: Scene) -> None:
    grace_ends = scene.clock.epoch() + 86_400
    scene.olds["replaced_keys"] = {OLDER_KEY: grace_ends}
    scene.endpoint.completion = lambda: (
        Refused(400, "no") if scene.host.runs == NEW["serve_yaml"] else "Yes"
    )
    error = scene.fails(**NEW, **ROTATED)
    assert "the previous configuration serves again" in str(error)
    assert scene.host.files["allowed_keys"] == f"{OLD_KEY}\n{OLDER_KEY} until {grace_ends:.0f}\n"


def test_the_grace_of_a_replaced_key_begins_when_the_new_one_is_proven(scene: Scene) -> None:
    began = scene.clock.epoch()
    scene.olds["replaced_keys"] = {OLDER_KEY: began + 86_400, OLDEST_KEY: began + 60}
    meanwhile: list[str] = []

    def slow() -> str | Refused:
        if scene.clock.epoch() < began + 300:
            return Refused(503, "queue full")
        meanwhile.append(scene.host.files["allowed_keys"])
        return "Yes"

    scene.endpoint.completion = slow
    outs = scene.update(**NEW, **ROTATED)

    proven = scene.clock.epoch()
    assert proven >= began + 300
    assert f"{OLD_KEY} until {began + 600 + 45 * 60:.0f}\n" in meanwhile[0]
    assert outs["replaced_keys"] == {OLD_KEY: proven + 600, OLDER_KEY: began + 86_400}
    assert scene.host.files["allowed_keys"] == (
        f"{NEW_KEY}\n{OLD_KEY} until {proven + 600:.0f}\n{OLDER_KEY} until {began + 86_400:.0f}\n"
    )


def test_it_is_said_until_when_a_key_that_was_replaced_works(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = in_utc(scene.clock.epoch() + 600)
    scene.olds = scene.update(**ROTATED)
    said = capsys.readouterr().out
    assert f"the previous key works until {ends}" in said
    assert "run `pulumi up` again before then" in said

    scene.update(**ROTATED)
    assert "the previous key" not in capsys.readouterr().out


def test_a_key_without_a_grace_is_said_to_be_refused_at_once(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    scene.update(**ROTATED, key_grace_minutes=0.0)
    assert "the previous key is refused from now on" in capsys.readouterr().out


def test_a_key_is_replaced_though_the_log_has_an_error_of_long_ago(scene: Scene) -> None:
    scene.host.log += "ERROR 11-23 09:10:00 [x.py:1] OSError: [Errno 28] No space left on device\n"
    scene.update(**ROTATED)
    assert scene.host.keys() == [NEW_KEY, OLD_KEY]
    assert scene.host.restarts == []


TIMED_OUT = Unreachable("timed_out")


@pytest.mark.parametrize("answer", [TIMED_OUT, Refused(429, "queue full")])
def test_a_key_that_changes_on_a_busy_server_marks_no_machine(
    scene: Scene, answer: Refused | Unreachable
) -> None:
    scene.endpoint.completion = lambda: answer
    error = scene.fails(**ROTATED)
    assert isinstance(error, ChangeFailed)
    assert "the previous keys hold again, and the server runs on as it was" in str(error)
    assert "nothing serves" not in str(error)
    assert scene.host.restarts == []
    assert scene.host.keys() == [OLD_KEY]
    assert scene.marks == []


def test_a_change_that_nothing_answers_to_and_its_undoing_mark_the_machine(scene: Scene) -> None:
    scene.endpoint.completion = lambda: TIMED_OUT
    error = scene.fails(**NEW)
    assert scene.host.restarts == [NEW["serve_yaml"], scene.olds["serve_yaml"]]
    assert "nothing serves" in str(error)
    assert scene.marks == ["completion_late"]


def test_a_server_with_clients_is_given_longer_to_answer(scene: Scene) -> None:
    scene.update(**NEW)
    assert scene.given == [ANSWER_TIMEOUT]
    scene.olds["serve_yaml"] = NEW["serve_yaml"]
    scene.update(**NEW, **ROTATED)
    assert scene.given[-1] == PATIENT_TIMEOUT


def test_a_change_that_is_interrupted_goes_on_and_is_not_undone(scene: Scene) -> None:
    scene.endpoint.completion = lambda: TIMED_OUT
    scene.interrupted_at = scene.clock.passed + 60
    error = scene.fails(**NEW)
    assert isinstance(error, Interrupted)
    assert str(error) == (
        "the wait for the model was ended by Ctrl-C; the host goes on with the change, and the "
        "machine stays and is billed until an `up` that works, or `pulumi destroy`"
    )
    assert scene.host.restarts == [NEW["serve_yaml"]]
    assert scene.marks == []
    scene.interrupted_at, scene.endpoint.completion = math.inf, lambda: "Yes"
    assert scene.update(**NEW)["status"] == READY


# --------------------------------------------------------------------------- a first start


def first_start_fails(scene: Scene, **given: Any) -> str:
    scene.host.files.clear()
    with pytest.raises(StackError) as caught:
        ServerProvider().create(inputs(**given))
    return str(caught.value)


BILLED = "the machine stays and is billed until an `up` that works, or `pulumi destroy`"


def test_a_first_start_that_fails_says_that_the_machine_is_billed_on(scene: Scene) -> None:
    scene.endpoint.completion = lambda: Refused(400, "no")
    assert first_start_fails(scene).endswith(BILLED)
    scene.host.unreachable = True
    assert first_start_fails(scene).endswith(BILLED)


def test_where_it_was_marked_or_another_serves_on_that_says_it(scene: Scene) -> None:
    scene.endpoint.completion = lambda: TIMED_OUT
    assert first_start_fails(scene).endswith("instance 7 is marked unfit")
    scene.endpoint.completion = lambda: Refused(400, "no")
    said = first_start_fails(scene, drain_minutes=10.0)
    assert said.endswith(deployment.UNTOUCHED)
    assert BILLED not in said


# --------------------------------------------------------------------------- green but dead


def standing() -> Traffic:
    return Traffic(under_way=3, ended=7, tokens=900)


def hangs(scene: Scene) -> None:
    """Lists its models and completes nothing, until it is started anew."""
    restarts = len(scene.host.restarts)
    scene.endpoint.counters = standing
    scene.endpoint.completion = lambda: "Yes" if len(scene.host.restarts) > restarts else TIMED_OUT


def test_a_server_that_hangs_is_found_and_restarted(scene: Scene) -> None:
    hangs(scene)
    assert scene.refresh() == "hangs: no completion and not one token within 45 s"

    outs = scene.update()
    assert scene.host.restarts == [scene.olds["serve_yaml"]]
    assert outs["status"] == READY
    assert scene.marks == []


def test_one_that_hangs_after_its_restart_too_marks_its_machine(scene: Scene) -> None:
    hangs(scene)
    scene.refresh()
    scene.endpoint.completion = lambda: TIMED_OUT
    scene.fails()
    assert len(scene.host.restarts) == 1
    assert scene.marks == ["completion_late"]


@pytest.mark.parametrize(
    ("later", "said"),
    [
        (Traffic(3, 7, 901), READY),
        # Clients that give up are counted as ended.
        (Traffic(2, 8, 900), "hangs: no completion and not one token within 45 s"),
    ],
)
def test_a_busy_server_that_is_late_is_ready(scene: Scene, later: Traffic, said: str) -> None:
    scene.endpoint.completion = lambda: TIMED_OUT
    looks = itertools.chain([standing()], itertools.repeat(later))
    scene.endpoint.counters = lambda: next(looks)
    assert scene.refresh() == said


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            Refused(500, "EngineDeadError"),
            "completes nothing: the endpoint answers 500: EngineDeadError",
        ),
        (
            Unreachable("closed"),
            "completes nothing: the endpoint breaks the connection off",
        ),
    ],
)
def test_a_refresh_asks_for_a_completion(
    scene: Scene, answer: Refused | Unreachable, said: str
) -> None:
    scene.endpoint.completion = lambda: answer
    assert scene.refresh() == said


@pytest.mark.parametrize("status", [408, 429, 503])
@pytest.mark.parametrize(
    ("moves", "said"),
    [(True, READY), (False, "hangs: no completion and not one token within 45 s")],
)
def test_a_server_that_turns_requests_away_is_busy_while_its_counters_move(
    scene: Scene, status: int, said: str, *, moves: bool
) -> None:
    scene.endpoint.completion = lambda: Refused(status, "queue full")
    looks = itertools.count(900)
    scene.endpoint.counters = lambda: Traffic(3, 7, next(looks) if moves else 900)
    assert scene.refresh() == said
    assert scene.clock.passed <= 48


@pytest.mark.parametrize(
    ("counters", "said"),
    [
        (Refused(404, "no"), READY),
        (Traffic(0, 0, None), READY),
        (TIMED_OUT, "the endpoint does not answer in time"),
    ],
)
def test_without_counters_lateness_proves_nothing(
    scene: Scene, counters: Traffic | Refused | Unreachable, said: str
) -> None:
    scene.endpoint.completion = lambda: TIMED_OUT
    scene.endpoint.counters = lambda: counters
    assert scene.refresh() == said


def test_a_server_that_is_still_starting_is_left_to_go_on(scene: Scene) -> None:
    """As after an `up` that was interrupted, or a crash that the supervisor sees to."""
    scene.clock.sleep(3600)
    scene.host.serve(str(scene.olds["serve_yaml"]))
    scene.host.log = scene.host.log.removesuffix(LISTENS)
    answers: list[str | Unreachable] = [Unreachable("refused")]
    scene.endpoint.completion = lambda: answers.pop() if answers else "Yes"
    scene.olds["status"] = "the endpoint refuses the connection"
    scene.update()
    assert scene.host.restarts == []


@pytest.mark.parametrize("log", ["INFO:     a line of long after its start\n", STARTS + LISTENS])
def test_one_that_was_up_and_is_not_ready_is_restarted(scene: Scene, log: str) -> None:
    scene.host.log = log
    hangs(scene)
    scene.olds["status"] = "the endpoint does not answer in time"
    scene.update()
    assert len(scene.host.restarts) == 1


def test_one_that_came_up_again_and_is_not_ready_is_restarted(scene: Scene) -> None:
    scene.clock.sleep(3600)
    scene.host.serve(str(scene.olds["serve_yaml"]))
    hangs(scene)
    scene.olds["status"] = "the endpoint does not answer in time"
    scene.update()
    assert len(scene.host.restarts) == 1


def test_one_that_answers_again_by_now_is_not_restarted(scene: Scene) -> None:
    scene.olds["status"] = "the endpoint does not answer in time"
    assert scene.update()["status"] == READY
    assert scene.host.restarts == []


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


def test_a_busy_server_that_one_look_found_not_ready_is_not_restarted(scene: Scene) -> None:
    doubted(scene)
    late_twice(scene)
    assert scene.update()["status"] == READY
    assert scene.host.restarts == []


def test_nor_is_its_machine_blamed_while_it_stays_busy(scene: Scene) -> None:
    doubted(scene)
    scene.endpoint.counters = moving()
    scene.endpoint.completion = lambda: TIMED_OUT
    assert "so it is busy or hangs" in str(scene.fails())
    assert scene.host.restarts == []
    assert scene.marks == []


def test_nor_is_an_error_believed_that_its_log_had_before(scene: Scene) -> None:
    scene.host.log += "ERROR 11-23 09:10:00 [x.py:1] OSError: [Errno 28] No space left on device\n"
    doubted(scene)
    late_twice(scene)
    assert scene.update()["status"] == READY
    assert scene.host.restarts == []


def test_one_that_came_back_under_other_ports_is_asked_there(scene: Scene) -> None:
    """With the key that it knows, since a new one is not pushed before."""
    scene.clock.sleep(3600)
    scene.host.serve(str(scene.olds["serve_yaml"]))
    gone = FakeEndpoint(scene.clock)
    gone.found = Unreachable("refused")
    gone.completion = lambda: Unreachable("refused")
    scene.endpoint_at = lambda url, _: scene.endpoint if url.endswith(":41111") else gone
    assert scene.refresh() == "the endpoint refuses the connection: nothing listens there"
    scene.update(host_port=41111, **ROTATED)
    assert scene.endpoint.counted_with == [KEY]
    assert scene.host.restarts == []


def with_tls(scene: Scene, *, takes_up: bool = True) -> Properties:
    """Let a server with a certificate run, and give what it is to have next.

    Certificates are words here: the authority's is `CA`, and the server shows what it read last.
    """
    shown = {"authorities": "CA", "leaf": "first"}
    scene.olds |= {**shown, "tls": True, "ca_certificate": "CA", "former_certificate": ""}
    scene.host.files["pushed"] = pushed_digest(ServerInputs.from_bag(inputs(tls=True)))
    refused = FakeEndpoint(scene.clock)
    refused.found = Unreachable("certificate")
    refused.completion = lambda: Unreachable("certificate")
    refused.status_of = lambda *_, **__: Unreachable("certificate")  # type: ignore[method-assign]

    def shows() -> str:
        has_read = scene.host.restarts or (takes_up and "certify" in scene.host.commands)
        return scene.host.files["tls/pushed.pem"] if has_read else "first"

    # The first one has ended: whoever trusts the authority refuses it.
    scene.endpoint_at = lambda _, pem: (
        scene.endpoint if shows() == "next" and pem in {"CA", "next"} else refused
    )
    return {**shown, "tls": True, "leaf": "next"}


def test_one_whose_certificate_had_ended_takes_up_the_next_one_without_a_restart(
    scene: Scene,
) -> None:
    news = with_tls(scene)
    assert scene.refresh() == "the endpoint shows another certificate than the pinned one"
    outs = scene.update(**news)
    assert (outs["status"], outs["leaf"], outs["ca_certificate"]) == (READY, "next", "CA")
    assert scene.host.restarts == []


def test_one_that_does_not_take_it_up_is_restarted(scene: Scene) -> None:
    news = with_tls(scene, takes_up=False)
    assert scene.update(**news)["status"] == READY
    assert len(scene.host.restarts) == 1


def test_one_that_gives_no_answer_is_not_taken_for_one_that_did_not(scene: Scene) -> None:
    news = with_tls(scene)
    silent = FakeEndpoint(scene.clock)
    silent.status_of = lambda *_, **__: Unreachable("timed_out")  # type: ignore[method-assign]
    usual = scene.endpoint_at
    scene.endpoint_at = lambda url, pem: silent if pem == "next" else usual(url, pem)
    assert scene.update(**news)["status"] == READY
    assert scene.host.restarts == []


def test_a_change_that_fails_is_undone_though_one_look_failed_before(scene: Scene) -> None:
    doubted(scene)
    scene.endpoint.completion = lambda: (
        Refused(400, "no") if scene.host.runs == NEW["serve_yaml"] else "Yes"
    )
    assert "the previous configuration serves again" in str(scene.fails(**NEW))
    assert scene.host.runs == scene.olds["serve_yaml"]
    assert scene.marks == []


def test_so_are_the_keys_of_a_server_that_is_busy(scene: Scene) -> None:
    doubted(scene)
    scene.endpoint.counters = moving()
    scene.endpoint.completion = lambda: TIMED_OUT
    assert "the previous keys hold again" in str(scene.fails(**ROTATED))
    assert scene.host.keys() == [OLD_KEY]


@pytest.mark.parametrize("counters", [moving, lambda: standing])
def test_one_whose_log_was_begun_anew_since_its_start_was_up(
    scene: Scene, counters: Callable[[], Callable[[], Traffic]]
) -> None:
    """Busy it is left alone, hanging it is restarted; its machine is blamed for neither."""
    scene.clock.sleep(3600)
    scene.host.serve(str(scene.olds["serve_yaml"]))
    scene.host.log = "INFO:     a line of long after its start\n"
    doubted(scene)
    hangs(scene)
    scene.endpoint.counters = counters()
    if counters is moving:
        scene.fails()
    else:
        scene.update()
    assert len(scene.host.restarts) == (0 if counters is moving else 1)
    assert scene.marks == []


def test_one_that_is_asked_for_long_is_said_to_be(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "LIMITS", Limits(look_every=0.01))
    doubted(scene)
    said = threading.Event()
    doing = "asking for a completion, to tell a server that hangs"
    scene.hears = lambda line: said.set() if doing in line else None
    scene.endpoint.completion = lambda: "Yes" if said.wait(5) else Refused(400, "nothing was said")
    scene.update()
    assert scene.host.restarts == []


# --------------------------------------------------------------------------- the end


@pytest.mark.parametrize("looks", [doubted, lambda scene: scene.olds.pop("ca_certificate")])
def test_clients_are_waited_for_whatever_the_state_says(
    scene: Scene, looks: Callable[[Scene], object]
) -> None:
    scene.olds["drain_minutes"] = 10.0
    looks(scene)
    scene.clock.sleep(1200)
    began = scene.clock.passed
    tokens = itertools.count(1000)
    scene.endpoint.counters = lambda: Traffic(
        int(scene.clock.passed < began + 100), 7, next(tokens)
    )
    ServerProvider().delete("x", scene.olds)
    assert scene.clock.passed - began >= 100


def test_clients_are_asked_to_leave_before_they_are_waited_for(scene: Scene) -> None:
    scene.olds["drain_minutes"] = 10.0
    seen: list[bool] = []

    def look() -> Traffic:
        seen.append(scene.host.draining)
        return Traffic(0, 7)

    scene.endpoint.counters = look
    scene.host.commands.clear()
    ServerProvider().delete("x", scene.olds)
    assert seen
    assert all(seen)
    assert scene.host.commands == ["drain", "stop"]


def test_a_ctrl_c_while_clients_are_waited_for_ends_neither_them_nor_the_machine(
    scene: Scene,
) -> None:
    scene.olds["drain_minutes"] = 10.0
    tokens = itertools.count(1000)
    scene.endpoint.counters = lambda: Traffic(1, 7, next(tokens))
    scene.host.commands.clear()
    scene.interrupted_at = scene.clock.passed + 30
    with pytest.raises(Interrupted, match="the machine stays and is billed"):
        ServerProvider().delete("x", scene.olds)
    assert scene.host.commands == ["drain"]
    assert scene.refresh() == health.DRAINING


def test_a_host_that_cannot_ask_them_is_no_reason_to_stay(scene: Scene) -> None:
    """It runs an older release's scripts, or is not reached."""
    said: list[str] = []
    scene.hears = said.append
    scene.olds["drain_minutes"] = 10.0
    scene.host.breaks_at = lambda doing: doing.endswith(" drain")
    scene.host.commands.clear()
    ServerProvider().delete("x", scene.olds)
    assert scene.host.commands == ["stop"]
    assert any("asking clients to leave failed, its host goes anyway" in line for line in said)


def test_an_end_that_was_begun_and_not_gone_through_with_is_taken_back(scene: Scene) -> None:
    scene.host.draining = True
    assert scene.refresh() == health.DRAINING
    assert scene.update()["status"] == READY
    assert not scene.host.draining
    assert scene.host.restarts == []


def test_what_a_request_may_have_is_told_without_a_restart(scene: Scene) -> None:
    assert scene.host.files["body_limit"] == f"{32 * 1024 * 1024}\n"
    assert scene.update(max_request_mib=2)["max_request_mib"] == 2
    assert scene.host.files["body_limit"] == f"{2 * 1024 * 1024}\n"
    assert scene.host.restarts == []


def test_a_state_without_that_limit_is_gone_back_to(scene: Scene) -> None:
    del scene.olds["max_request_mib"]
    scene.host.breaks_at = lambda doing: "allowed_keys" in doing and NEW_KEY in doing
    assert "previous keys hold again" in str(scene.fails(**ROTATED))


def test_nobody_is_waited_for_where_nothing_takes_over(scene: Scene) -> None:
    scene.endpoint.counters = lambda: Traffic(1, 7, 1000)
    ServerProvider().delete("x", scene.olds)
    assert scene.endpoint.counted_with == []


# --------------------------------------------------------------------------- the Hub's commits

AT_HUB = [{"name": "weights", "bytes": 5, "digest": "sha256:" + "0" * 64}]
LISTED = f"5 {'0' * 64} weights\n"
OF_THE_HUB: dict[str, Any] = {
    "model_env": "FILES='weights*'\nMODEL=org/model\nREVISION=main\n",
    "serve_yaml": "model: org/model\nrevision: main\n",
    "commits": {MODEL: COMMIT},
    "hub_files": {MODEL: AT_HUB},
}


def of_the_hub(scene: Scene) -> None:
    """Bring up a server that is held to the Hub."""
    scene.host.listed = LISTED
    scene.olds = ServerProvider().create(inputs(**OF_THE_HUB)).outs or {}
    scene.host.restarts.clear()


def test_a_host_is_told_the_hubs_commit_and_held_to_it(scene: Scene) -> None:
    of_the_hub(scene)
    assert scene.host.files["model.env"].endswith(f"REVISION={COMMIT}\n")
    assert scene.host.files["serve.yaml"] == f"model: org/model\nrevision: {COMMIT}\n"
    assert scene.olds["files_compared"] == [MODEL]
    assert scene.olds["files"] == AT_HUB
    assert scene.refresh() == READY
    assert not ServerProvider().diff("x", scene.olds, inputs(**OF_THE_HUB)).changes


def test_a_host_that_names_another_commit_at_its_first_start_is_marked(scene: Scene) -> None:
    scene.host.resolved = OTHER_COMMIT
    said = first_start_fails(scene, **OF_THE_HUB)
    assert (
        f"the host names commit {OTHER_COMMIT} of {MODEL}, and was told to fetch {COMMIT}" in said
    )
    assert "instance 7 is marked unfit" in said
    assert scene.marks == ["other_weights"]
    assert scene.endpoint.asked == []


def test_a_host_that_names_another_commit_later_is_found_and_marked(scene: Scene) -> None:
    of_the_hub(scene)
    scene.host.resolved = OTHER_COMMIT
    assert f"the host names commit {OTHER_COMMIT}" in scene.refresh()
    assert ServerProvider().diff("x", scene.olds, inputs(**OF_THE_HUB)).changes
    error = scene.fails(**OF_THE_HUB)
    assert f"the host names commit {OTHER_COMMIT}" in str(error)
    assert scene.marks == ["other_weights"]
    assert scene.host.restarts == []


def test_a_change_on_a_host_that_names_another_commit_is_not_undone_but_ended(scene: Scene) -> None:
    of_the_hub(scene)
    scene.host.resolved = OTHER_COMMIT
    changed = f"{OF_THE_HUB['serve_yaml']}max-num-seqs: 8\n"
    error = scene.fails(**{**OF_THE_HUB, "serve_yaml": changed})
    assert f"the host names commit {OTHER_COMMIT}" in str(error)
    assert scene.marks == ["other_weights"]
    assert len(scene.host.restarts) == 1


@pytest.mark.parametrize(
    "listed", ["", f"6 {'0' * 64} weights\n", f"5 {'1' * 64} weights\n", f"{LISTED}1 {COMMIT} x\n"]
)
def test_a_host_with_other_files_than_the_hub_is_marked(scene: Scene, listed: str) -> None:
    scene.host.listed = listed
    assert "is marked unfit" in first_start_fails(scene, **OF_THE_HUB)
    assert scene.marks == ["other_weights"]


def test_files_that_the_hub_did_not_list_are_a_claim(scene: Scene) -> None:
    scene.host.listed = LISTED
    outs = ServerProvider().create(inputs(**{**OF_THE_HUB, "hub_files": {}})).outs or {}
    assert outs["files_compared"] == []
    assert outs["files"] == AT_HUB


def of_an_older_release(scene: Scene) -> None:
    """Bring up a server that was told a branch, as releases before this one did."""
    older = {key: OF_THE_HUB[key] for key in ("model_env", "serve_yaml")}
    scene.host.listed = LISTED
    scene.olds = ServerProvider().create(inputs(**older)).outs or {}
    scene.host.restarts.clear()


def test_what_an_older_release_serves_is_checked_without_a_restart(scene: Scene) -> None:
    of_an_older_release(scene)
    said: list[str] = []
    scene.hears = said.append
    assert ServerProvider().diff("x", scene.olds, inputs(**OF_THE_HUB)).changes
    assert any("restarts on the same host only if it runs others" in line for line in said)

    outs = scene.update(**OF_THE_HUB)
    assert scene.host.restarts == []
    assert outs["files_compared"] == [MODEL]
    assert not ServerProvider().diff("x", outs, inputs(**OF_THE_HUB)).changes


def test_an_older_host_that_lists_no_files_is_not_blamed(scene: Scene) -> None:
    of_an_older_release(scene)
    scene.host.listed = ""
    assert scene.update(**OF_THE_HUB)["files_compared"] == []
    assert scene.marks == []


def test_another_commit_than_the_hubs_in_a_state_is_served_no_more(scene: Scene) -> None:
    """A host's earlier word may be a lie, or a branch may have moved: the Hub's is taken."""
    of_an_older_release(scene)
    scene.olds["model_revision"] = OTHER_COMMIT
    scene.host.resolved = OTHER_COMMIT
    said: list[str] = []
    scene.hears = said.append
    ServerProvider().diff("x", scene.olds, inputs(**OF_THE_HUB))
    assert any("other commits than it runs: those of the Hub" in line for line in said)

    def fetched(doing: str) -> bool:
        scene.host.resolved = COMMIT if doing.endswith("restart") else scene.host.resolved
        return False

    scene.host.breaks_at = fetched
    assert scene.update(**OF_THE_HUB)["model_revision"] == COMMIT
    assert scene.host.restarts == [f"model: org/model\nrevision: {COMMIT}\n"]
    assert scene.marks == []


def test_naming_the_commit_that_is_served_says_and_restarts_nothing(scene: Scene) -> None:
    of_the_hub(scene)
    named = {
        **OF_THE_HUB,
        "model_env": OF_THE_HUB["model_env"].replace("main", COMMIT),
        "serve_yaml": OF_THE_HUB["serve_yaml"].replace("main", COMMIT),
    }
    said: list[str] = []
    scene.hears = said.append
    ServerProvider().diff("x", scene.olds, inputs(**named))
    assert said == []
    scene.update(**named)
    assert scene.host.restarts == []


def test_the_files_of_a_companion_are_compared_too(scene: Scene) -> None:
    head = "org/head"
    told = {
        **OF_THE_HUB,
        "model_env": f"COMPANIONS='{head} main *'\n{OF_THE_HUB['model_env']}",
        "commits": {MODEL: COMMIT, head: COMMIT},
        "hub_files": {MODEL: AT_HUB, head: AT_HUB},
    }
    scene.host.listed = LISTED
    assert f"weights is at the Hub and not on the host ({head}" in first_start_fails(scene, **told)
    assert scene.marks == ["other_weights"]
