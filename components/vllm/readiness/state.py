"""What the wait sees, does and knows, as frozen types. Pure.

Moments are seconds of the wait's own clock.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal

from components.core.errors import HostError, StackError
from components.vllm.client_types import ModelInfo, Refused, Unreachable
from components.vllm.readiness.boot_events import Stage
from components.vllm.readiness.diagnosis import Diagnosis
from components.vllm.readiness.download_rate import DownloadMeter
from components.vllm.readiness.plan import ReadinessPlan, StageName

_DOING: Mapping[StageName, str] = {
    "download": "fetching the weights",
    "load": "vLLM starts and loads the weights",
    "compile": "compiling and measuring memory",
    "graphs": "capturing CUDA graphs",
    "server": "the engine is up, the HTTP server starts",
    "model": "the endpoint answers, asking which model it serves",
    "completion": "asking for a completion",
    "refusals": "checking that it refuses whoever has no key",
}


# --------------------------------------------------------------------------- what is seen


@dataclasses.dataclass(frozen=True)
class LogSeen:
    """What vLLM's log says by now, of its last run."""

    stalled: Diagnosis
    """What it would most likely mean if nothing more came."""
    runs: int = 0
    """Starts of the server in this log."""
    stage: Stage = Stage.STARTING
    doing: str = "starting vLLM"
    """For people: `loading shards 5 of 9 (56%)`."""
    fatal: Diagnosis | None = None
    """Why this run ends."""
    new_fatal: Diagnosis | None = None
    """The same by what came since the wait began."""
    earlier_fatal: Diagnosis | None = None
    """Why the previous run ended."""
    ended: Diagnosis | None = None
    """What to say of a server that the supervisor has given up; None while it has not."""
    prefetch: str = ""
    """The last part of what the download printed."""
    is_behind: bool = False
    """Whether there is more of it to read."""

    @property
    def place(self) -> tuple[int, Stage, str]:
        """How far the server is: what changes with each step ahead."""
        return self.runs, self.stage, self.doing


@dataclasses.dataclass(frozen=True)
class HostSeen:
    """A look at the host. `now` is in seconds of the wait's clock, here and below."""

    now: float
    status: Mapping[str, str]
    """What the supervisor says, by its own names."""
    log: LogSeen
    rehearsal: LogSeen | None = None
    """What the log of a rehearsal says; None if none runs or has failed beside the download."""


@dataclasses.dataclass(frozen=True)
class HostLost:
    """A look that failed."""

    now: float
    error: HostError


@dataclasses.dataclass(frozen=True)
class Refusal:
    """A request that has to be refused."""

    path: str
    method: str
    key: Literal["none", "wrong", "right"]
    wanted: frozenset[int]
    """HTTP statuses."""

    @property
    def who(self) -> str:
        """Who asks, for people."""
        return {"none": "no key", "wrong": "a wrong key"}.get(self.key, "the key")


REFUSALS = (
    Refusal("/v1/models", "GET", "wrong", frozenset({401})),
    Refusal("/v1/models", "GET", "none", frozenset({401})),
    Refusal("/v1/chat/completions", "POST", "none", frozenset({401})),
    Refusal("/invocations", "POST", "none", frozenset({401, 404})),
    Refusal("/invocations", "POST", "right", frozenset({404})),
)
"""In the order in which they are asked for."""


@dataclasses.dataclass(frozen=True)
class ModelAnswer:
    """What the endpoint says that it serves."""

    now: float
    answer: ModelInfo | Refused | Unreachable


@dataclasses.dataclass(frozen=True)
class CompletionAnswer:
    """A completion, or none."""

    now: float
    answer: str | Refused | Unreachable


@dataclasses.dataclass(frozen=True)
class RefusalAnswer:
    """The HTTP status of a request that has to be refused."""

    now: float
    asked: Refusal
    answer: int | Unreachable


@dataclasses.dataclass(frozen=True)
class Stopped:
    """What came of stopping the server that answered `asked` with `status`."""

    now: float
    asked: Refusal
    status: int
    is_stopped: bool


Observation = HostSeen | HostLost | ModelAnswer | CompletionAnswer | RefusalAnswer | Stopped


# --------------------------------------------------------------------------- what is done


@dataclasses.dataclass(frozen=True)
class Wait:
    """Look at the host again after `seconds`."""

    seconds: float


@dataclasses.dataclass(frozen=True)
class Ask:
    """Ask the endpoint."""

    question: Literal["model", "completion"] | Refusal


@dataclasses.dataclass(frozen=True)
class Stop:
    """Stop the server, since it answered `asked` with `status`."""

    asked: Refusal
    status: int


@dataclasses.dataclass(frozen=True)
class Fail:
    """End the wait: with a diagnosis, or with the error that was met."""

    why: Diagnosis | StackError
    is_rehearsed: bool = False
    """Whether a rehearsal has found it, whose log says more."""


@dataclasses.dataclass(frozen=True)
class Ready:
    """End the wait: all has been answered."""


Step = Wait | Ask | Stop | Fail | Ready


@dataclasses.dataclass(frozen=True)
class Line:
    """Something to tell: `say` once, `wait` until it changes, `measure` now and then."""

    how: Literal["say", "wait", "measure"]
    text: str


# --------------------------------------------------------------------------- what is known


@dataclasses.dataclass(frozen=True)
class RehearsalKnown:
    """What the wait knows of the rehearsal beside the download."""

    place: tuple[int, Stage, str] = (0, Stage.STARTING, "")
    """How far its log was at the last look."""
    moved_at: float = 0.0
    """When its last step ahead was seen."""
    suspected_at: float | None = None
    """Since when its log has a line that may be the end; None while it has none."""
    course: str = ""
    """What was told of it last, as the host's status names it."""


@dataclasses.dataclass(frozen=True)
class State:
    """What the wait knows. Moments are seconds of the wait's clock."""

    log: LogSeen
    meter: DownloadMeter
    started: float
    now: float
    """Of the last observation."""
    lines: tuple[Line, ...] = ()
    """What the last observation gives to tell."""
    status: Mapping[str, str] = dataclasses.field(default_factory=dict)
    stage: StageName | None = None
    """None before anything runs on the host."""
    entered: float = 0.0
    """When the stage began."""
    seconds: Mapping[StageName, float] = dataclasses.field(default_factory=dict)
    """How long the earlier stages took; a stage passed twice counts both times."""
    moved_at: float = 0.0
    """When the last step ahead was seen."""
    away_since: float | None = None
    """Since when there is no supervisor to be seen; None while there is."""
    suspected_at: float | None = None
    """Since when the log has a line that may be the end; None while it has none."""
    asks: Literal["model", "completion", "refusals"] = "model"
    """Where the questions go on."""
    asked_at: float = -math.inf
    asked_run: int = 0
    """The run of the server that was asked last."""
    caught_up: bool = False
    """Whether the log was read to its end once."""
    pieces_behind: int = 0
    rehearsal: RehearsalKnown = RehearsalKnown()
    last_answer: ModelInfo | Refused | Unreachable | str = "has not been asked yet"
    is_busy: bool = False
    """Whether the endpoint said so last."""

    @classmethod
    def begin(cls, plan: ReadinessPlan, now: float, log: LogSeen) -> State:
        """Know nothing yet, at the moment `now`; `log` is an empty one."""
        meter = DownloadMeter(plan.download_bytes)
        return cls(log=log, meter=meter, started=now, now=now, entered=now, moved_at=now)

    @property
    def elapsed(self) -> float:
        """Seconds in this stage."""
        return self.now - self.entered

    def enter(self, stage: StageName) -> State:
        """Begin a stage, and say so; nothing changes if it is the present one."""
        if stage == self.stage:
            return self
        entered = dataclasses.replace(self, stage=stage, seconds=self.finished(), entered=self.now)
        return entered.tell("say", _DOING[stage])

    def finished(self) -> dict[StageName, float]:
        """Seconds of all stages, with the present one."""
        if self.stage is None:
            return {}
        return {**self.seconds, self.stage: self.seconds.get(self.stage, 0.0) + self.elapsed}

    def tell(self, how: Literal["say", "wait", "measure"], text: str) -> State:
        """Add a line to tell."""
        return dataclasses.replace(self, lines=(*self.lines, Line(how, text)))


Decision = tuple[State, Step]
