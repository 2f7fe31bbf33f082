"""The staged wait until a server has answered, and refused, as it should.

It looks at the host, asks the endpoint and sleeps; `decide` says what to do next. The person who
waits sees each stage and each number.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Mapping

from components.core.clock import Clock
from components.core.display import redacted
from components.core.errors import StackError
from components.core.progress import Progress, duration
from components.machine.agent_answers import moment, read_revisions, whole
from components.machine.ssh_types import (
    LOG_PIECE,
    CommandFailed,
    HostClient,
    HostUnreachable,
    LoginRefused,
)
from components.vllm.client_types import EndpointClient
from components.vllm.errors import (
    ServerFailed,
    ServerHostFailed,
    ServerMisconfigured,
    ServerPlatformFailed,
)
from components.vllm.readiness.boot_events import Stage
from components.vllm.readiness.course import Course, RehearsalWatch
from components.vllm.readiness.decide import decide
from components.vllm.readiness.diagnosis import Diagnosis, Fault
from components.vllm.readiness.log_parser import BootLog
from components.vllm.readiness.plan import ReadinessPlan
from components.vllm.readiness.state import (
    Ask,
    CompletionAnswer,
    Fail,
    HostLost,
    HostSeen,
    Line,
    LogSeen,
    ModelAnswer,
    Observation,
    Ready,
    Refusal,
    RefusalAnswer,
    State,
    Stop,
    Stopped,
    Wait,
)

TAIL = 40
"""Lines of log that a failure shows."""

LONGEST_LINE = 500
"""Characters of each of them."""

WRONG_KEY = "this-is-not-a-key-of-the-endpoint"

STOP = 'sh "$HOME/serving/supervise.sh" stop'


@dataclasses.dataclass(frozen=True)
class ReadinessReport:
    """What was found when it was ready."""

    seconds: dict[str, float]
    """By stage, those that were gone through; a stage passed twice counts both times."""
    resolved_revision: str
    """The commit of the weights."""
    companion_revisions: dict[str, str]
    """The same of further repositories, by name."""
    started_at: str
    """When the server's process was started: UTC, ISO 8601, by the host's clock."""


class NotReady(ServerFailed):
    """The wait ended badly.

    `stage` is where, `cause` a word for what it was, `log_tail` the log's last lines, redacted.
    """

    def __init__(
        self, message: str, *, stage: str = "", cause: str = "", log_tail: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message)
        self.stage = stage
        self.cause = cause
        self.log_tail = log_tail


class NotReadyMisconfigured(NotReady, ServerMisconfigured):
    """No host would do."""


class NotReadyHost(NotReady, ServerHostFailed):
    """Another host may do."""


class NotReadyPlatform(NotReady, ServerPlatformFailed):
    """Another time may do."""


_ERRORS: Mapping[Fault, type[NotReady]] = {
    "configuration": NotReadyMisconfigured,
    "host": NotReadyHost,
    "platform": NotReadyPlatform,
}


def wait_until_ready(
    host: HostClient,
    endpoint: EndpointClient,
    plan: ReadinessPlan,
    clock: Clock,
    progress: Progress,
    *,
    note: Callable[[Course], None] = lambda _: None,
) -> ReadinessReport:
    """Wait until the server on `host` has answered at `endpoint`, saying what happens.

    `note` receives how a start went, also one that failed. A server that runs already starts not.

    Raises:
        NotReady: one of its three kinds, by whose fault it is.
        OtherWeights: the host names other commits than it was asked to fetch.
        HostUnreachable: no SSH for longer than the plan tolerates.
        LoginRefused: the same.
        CommandFailed: the same.
        HostKeyChanged: at once.
        Interrupted: somebody asked to end; the host goes on with what it does.
    """
    return _Wait(host, endpoint, plan, clock, progress, note=note).run()


class LogFollower:
    """A log on the host, followed."""

    def __init__(self, host: HostClient, name: str) -> None:
        self._host = host
        self._name = name
        self._offset = 0
        self.behind = False
        """Whether the last piece was a full one, so that there is more to read."""

    def news(self) -> str:
        """Read what came since the last look; one piece, since a host may write without an end."""
        text, offset = self._host.read_log(self._name, self._offset)
        grown, self._offset = offset - self._offset, offset
        self.behind = grown >= LOG_PIECE // 2
        return text


class _Logs:
    """What the logs on a host have said."""

    def __init__(self, host: HostClient) -> None:
        self._server = LogFollower(host, "vllm.log")
        self._prefetch = LogFollower(host, "prefetch.log")
        self._rehearsal = LogFollower(host, "rehearsal.log")
        self._boot = BootLog()
        self._rehearsed = BootLog()
        self._prefetch_text = ""

    def read(self, status: Mapping[str, str], *, ignore_errors: bool) -> LogSeen:
        """Read on; an error in what comes is no end of the server if `ignore_errors`."""
        # Each piece is kept at once: the read of the other log may fail.
        self._boot.feed(self._server.news())
        if ignore_errors:
            self._boot.ignore_errors_so_far()
        self._prefetch_text = (self._prefetch_text + self._prefetch.news())[-LOG_PIECE:]
        return self.seen(status)

    def seen(self, status: Mapping[str, str]) -> LogSeen:
        """Sum up what was read; `status` tells whether more is to come."""
        ended = None
        if status.get("supervisor") == "gave_up" and not self._server.behind:
            ended = self._boot.ended(whole(status.get("last_exit", "")))
        seen = _seen(self._boot, self._server, ended)
        return dataclasses.replace(seen, prefetch=self._prefetch_text)

    def rehearsal(self, status: Mapping[str, str]) -> LogSeen | None:
        """Read the log of a rehearsal on; None where none runs or has failed."""
        course = status.get("rehearsal")
        if status.get("phase") != "prefetch" or course not in {"running", "failed"}:
            return None
        self._rehearsed.feed(self._rehearsal.news())
        ended = None
        if course == "failed" and not self._rehearsal.behind:
            ended = self._rehearsed.ended()
        return _seen(self._rehearsed, self._rehearsal, ended)

    @property
    def rehearsed(self) -> Mapping[Stage, float | None]:
        """The stages that the log of a rehearsal has reached, as far as it was read."""
        return self._rehearsed.reached

    def tail(self, *, of_download: bool, of_rehearsal: bool) -> list[str]:
        """Return the last lines of one of the logs."""
        if of_rehearsal:
            return self._rehearsed.tail(TAIL)
        return self._prefetch_text.splitlines()[-TAIL:] if of_download else self._boot.tail(TAIL)


def _seen(log: BootLog, follower: LogFollower, ended: Diagnosis | None) -> LogSeen:
    return LogSeen(
        stalled=log.stalled(),
        runs=log.runs,
        stage=log.stage,
        doing=log.progress,
        fatal=log.fatal,
        new_fatal=log.new_fatal,
        earlier_fatal=log.earlier_fatal,
        ended=ended,
        is_behind=follower.behind,
    )


class _Wait:
    """One wait: does what `decide` says, and observes what comes of it."""

    def __init__(
        self,
        host: HostClient,
        endpoint: EndpointClient,
        plan: ReadinessPlan,
        clock: Clock,
        progress: Progress,
        *,
        note: Callable[[Course], None],
    ) -> None:
        self._note = note
        self._rehearsal = RehearsalWatch(clock.monotonic())
        self._host = host
        self._endpoint = endpoint
        self._plan = plan
        self._clock = clock
        self._progress = progress
        self._logs = _Logs(host)

    def run(self) -> ReadinessReport:
        state = State.begin(self._plan, self._clock.monotonic(), self._logs.seen({}))
        seen = self._look(state)
        while True:
            state, step = decide(self._plan, state, seen)
            for line in state.lines:
                self._tell(line)
            match step:
                case Ready():
                    self._note_course(state)
                    return self._report(state)
                case Fail():
                    error = self._error(state, step)
                    self._note_course(state, error)
                    raise error
                case Wait():
                    self._progress.go_on("the wait for the model")
                    self._clock.sleep(step.seconds)
                    seen = self._look(state)
                case Ask():
                    seen = self._ask(step)
                case Stop():
                    seen = self._stop(step)

    def _look(self, state: State) -> Observation:
        ignore_errors = self._plan.served_before and not state.caught_up
        try:
            status = self._host.status()
            log = self._logs.read(status, ignore_errors=ignore_errors)
            rehearsal = self._logs.rehearsal(status)
            self._rehearsal.look(self._clock.monotonic(), status.get("rehearsal", ""))
        except (HostUnreachable, LoginRefused, CommandFailed) as error:
            return HostLost(self._clock.monotonic(), error)
        return HostSeen(self._clock.monotonic(), status, log, rehearsal)

    def _ask(self, step: Ask) -> Observation:
        plan, endpoint, now = self._plan, self._endpoint, self._clock.monotonic
        match step.question:
            case "model":
                found = endpoint.models(plan.api_key)
                return ModelAnswer(now(), found)
            case "completion":
                answer = endpoint.complete(plan.api_key, plan.model)
                return CompletionAnswer(now(), answer)
            case Refusal() as asked:
                key = {"none": None, "wrong": WRONG_KEY, "right": plan.api_key}[asked.key]
                status = endpoint.status_of(asked.path, key, method=asked.method)
                return RefusalAnswer(now(), asked, status)

    def _stop(self, step: Stop) -> Stopped:
        """Stop what answers to whom it should not."""
        try:
            stopped = self._host.run(STOP, timeout=self._plan.outage + 60).exit_status == 0
        except (HostUnreachable, LoginRefused, CommandFailed):
            stopped = False
        return Stopped(self._clock.monotonic(), step.asked, step.status, is_stopped=stopped)

    def _tell(self, line: Line) -> None:
        tell = {
            "say": self._progress.say,
            "wait": self._progress.waiting,
            "measure": self._progress.measuring,
        }
        tell[line.how](line.text)

    def _note_course(self, state: State, error: StackError | None = None) -> None:
        """Hand over how the start went; a server that ran before was not started now."""
        if self._plan.served_before:
            return
        passed = self._clock.monotonic() - state.started
        self._note(
            Course(
                began_at=self._clock.epoch() - passed,
                seconds={str(stage): seconds for stage, seconds in state.finished().items()},
                rehearsal=self._rehearsal.seen(self._logs.rehearsed),
                failed_in="" if error is None else state.stage or "host",
                cause=error.cause if isinstance(error, NotReady) else "",
            )
        )

    def _error(self, state: State, step: Fail) -> StackError:
        """Make the error of a failure; show the log's last lines with a diagnosis."""
        if isinstance(step.why, StackError):
            return step.why
        found = step.why
        stage = state.stage or "host"
        took = duration(self._clock.monotonic() - state.started)
        text = self._clean(
            f"{self._plan.model} is not ready after {took} (stage {stage}): {found.text}"
        )
        in_download = state.stage in {None, "download"}
        lines = self._logs.tail(of_download=in_download, of_rehearsal=step.is_rehearsed)
        tail = tuple(self._clean(line)[:LONGEST_LINE] for line in lines)
        if tail:
            self._progress.say("the log's last lines:")
        for line in tail:
            self._progress.say(f"| {line}")
        return _ERRORS[found.fault](text, stage=stage, cause=found.pattern, log_tail=tail)

    def _clean(self, text: str) -> str:
        return redacted(text, (self._plan.api_key, *self._plan.secrets))

    def _report(self, state: State) -> ReadinessReport:
        since = moment(state.status.get("phase_since", ""))
        companions = read_revisions(state.status.get("companion_revisions", ""))
        return ReadinessReport(
            seconds={str(stage): seconds for stage, seconds in state.finished().items()},
            resolved_revision=state.status.get("resolved_revision", ""),
            companion_revisions=companions,
            started_at=in_utc(self._clock.epoch() if since is None else since),
        )


def in_utc(epoch: float) -> str:
    """Write seconds since 1970 as outputs have them: UTC, ISO 8601."""
    return dt.datetime.fromtimestamp(epoch, dt.UTC).isoformat(timespec="seconds")
