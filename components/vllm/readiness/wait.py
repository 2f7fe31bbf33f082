"""The staged wait until a server has answered, and refused, as it should.

Ready means answered: the right model and length, an authenticated completion, and no answer
without the key; `/health` alone means nothing. On the way each stage has its own limit, and what
the log or the supervisor knows to be the end is the end at once, with its cause.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, TypeGuard

from components.core.clock import Clock
from components.core.progress import Progress, duration, size
from components.core.redaction import redacted
from components.machine.agent_answers import moment, read_revisions, whole
from components.machine.ssh_types import (
    LOG_PIECE,
    CommandFailed,
    HostDoor,
    HostUnreachable,
    LoginRefused,
    Nonsense,
)
from components.vllm.client_types import EndpointDoor, Refused, Unreachable
from components.vllm.errors import (
    OtherWeights,
    ServerFailed,
    ServerHostFailed,
    ServerMisconfigured,
    ServerPlatformFailed,
)
from components.vllm.hub_commits import Held
from components.vllm.readiness.diagnosis import Diagnosis, Fault, Rank, diagnose
from components.vllm.readiness.download_rate import DownloadMeter
from components.vllm.readiness.log_parser import BootLog, Stage, diagnose_prefetch
from components.vllm.readiness.log_patterns import SERVER

StageName = Literal[
    "download", "load", "compile", "graphs", "server", "model", "completion", "refusals"
]

SHARES: Mapping[StageName, float] = MappingProxyType(
    {
        "download": 0.85,
        "load": 0.5,
        "compile": 0.4,
        "graphs": 0.3,
        "server": 0.15,
        "model": 0.05,
        "completion": 0.15,
        "refusals": 0.05,
    }
)
"""What each stage may take of the whole deadline, unless the plan says otherwise. Of the 45 minutes
that the reference counts with: 38 for the download, 18 to compile, 7 for a first token."""

DOWNLOAD_SHARE = SHARES["download"]
"""Of the deadline: a host whose link needs longer is turned away before anything is downloaded."""

STALL_SHARE = 0.2
"""Of the deadline, without a new byte or a step ahead in the log: 9 of 45 minutes. Not a new line:
a hanging worker lets the others warn every minute."""

MEASURING_SHARE = 0.05
"""Of the deadline, before a download is judged by its rate: 2 of 45 minutes."""

OUTAGE_SHARE = 0.05
"""Of the deadline, without SSH or without a supervisor, as when a host reboots."""

LEAST = 20.0
"""Seconds that any of these is at least: a short deadline leaves time for a look or two."""

LEAST_MEASURING = 10.0

ASK_ANYWAY = 30.0
"""Seconds after which the endpoint is asked though the log does not say that it listens: a log can
be rotated, or another version's. The first look asks as well, since the server may be up already.
"""

A_MOMENT = 3.0
"""Seconds within which a failing server has logged the cause as well."""

MOST_PIECES = 32
"""Pieces of a log that are read one after the other: it begins anew long before it has so many."""

TAIL = 40
"""Lines of log that a failure shows."""

LONGEST_LINE = 500

BUSY = frozenset({408, 429, 503})
"""HTTP statuses that say "later": the server is there and has too much to do. vLLM's own one, with
`max-num-queued-reqs`, is 503 (vllm-project/vllm#58192)."""

WRONG_KEY = "this-is-not-a-key-of-the-endpoint"

STOP = 'sh "$HOME/serving/supervise.sh" stop'

_BUSY_OR_HANGS = (
    "it served before and was not restarted, so it is busy or hangs: run `pulumi up` again when "
    "less is asked of it; one that hangs is found by the refresh before, and restarted"
)

_STARTS_ANEW = (
    "it served before and was not restarted, so its machine is not blamed: run `pulumi up` again, "
    "which restarts it unless it answers by then"
)

_ASKED_TOO_MUCH = "it is asked more than it can answer: run `pulumi up` again when that is over"

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

_TALKS: frozenset[StageName] = frozenset({"model", "completion", "refusals"})

_BY_LOG: Mapping[Stage, StageName] = {
    Stage.STARTING: "load",
    Stage.CONFIG: "load",
    Stage.ENGINE: "load",
    Stage.WORKERS: "load",
    Stage.NCCL: "load",
    Stage.LOAD: "load",
    Stage.SHARDS: "load",
    Stage.PROFILE: "compile",
    Stage.COMPILE: "compile",
    Stage.KV: "compile",
    Stage.TUNING: "compile",
    Stage.GRAPHS: "graphs",
    Stage.SERVER: "server",
    Stage.SERVING: "server",
}


@dataclasses.dataclass(frozen=True)
class ReadinessPlan:
    """What is waited for, and for how long. Times in seconds."""

    model: str
    """The name that clients use."""
    max_model_len: int
    api_key: str = dataclasses.field(repr=False)
    download_bytes: float
    """Expected size of the weights; 0 if unknown."""
    deadline: float
    """For everything together."""
    limits: Mapping[StageName, float] = dataclasses.field(default_factory=dict)
    """Of single stages; a stage that is not named gets its share of the deadline."""
    poll_seconds: float = 3.0
    """Between two looks at a download, whose files are counted at each."""
    boot_poll_seconds: float = 1.0
    """Between two looks at a server that starts, which may take no longer than some of them."""
    served_before: bool = False
    """Whether this very server, not restarted since, was found ready before. If it keeps us waiting
    then, it is busy or hangs, which is no word about its machine; and an error that its log had
    before this wait is one that it may have got over, so the endpoint is asked first."""
    secrets: tuple[str, ...] = dataclasses.field(default=(), repr=False)
    """What must not show in log lines, beside the key."""
    held: Held | None = None
    """The commits that the host has to name as soon as it has fetched them."""

    def limit(self, stage: StageName) -> float:
        """Seconds that a stage may take."""
        return self.limits.get(stage, max(self.deadline * SHARES[stage], LEAST))

    @property
    def stall(self) -> float:
        """Seconds of standstill that are called one."""
        return max(self.deadline * STALL_SHARE, LEAST)

    @property
    def measuring(self) -> float:
        """Seconds before a download is judged by its rate."""
        return max(self.deadline * MEASURING_SHARE, LEAST_MEASURING)

    @property
    def outage(self) -> float:
        """Seconds without SSH or supervisor that are borne."""
        return max(self.deadline * OUTAGE_SHARE, LEAST)


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
    host: HostDoor, endpoint: EndpointDoor, plan: ReadinessPlan, clock: Clock, progress: Progress
) -> ReadinessReport:
    """Wait until the server on `host` has answered at `endpoint`, saying what happens.

    Raises:
        NotReady: one of its three kinds, by whose fault it is.
        OtherWeights: the host names other commits than it was told to fetch.
        HostUnreachable: no SSH for longer than the plan bears.
        LoginRefused: the same.
        CommandFailed: the same.
        HostKeyChanged: at once.
        Interrupted: somebody asked to end; the host goes on with what it does.
    """
    return _Wait(host, endpoint, plan, clock, progress).run()


class _Stages:
    """Which stage it is, since when, and how long the others took."""

    def __init__(self, clock: Clock, progress: Progress) -> None:
        self._clock = clock
        self._progress = progress
        self._entered = clock.monotonic()
        self._seconds: dict[str, float] = {}
        self.current: StageName | None = None

    def enter(self, stage: StageName) -> None:
        if stage == self.current:
            return
        self._close()
        self.current = stage
        self._progress.say(_DOING[stage])

    def elapsed(self) -> float:
        return self._clock.monotonic() - self._entered

    def finish(self) -> dict[str, float]:
        self._close()
        return dict(self._seconds)

    def _close(self) -> None:
        if self.current is not None:
            before = self._seconds.get(self.current, 0.0)
            self._seconds[self.current] = before + self.elapsed()
        self._entered = self._clock.monotonic()


class LogFollower:
    """A log on the host, followed."""

    def __init__(self, host: HostDoor, name: str) -> None:
        self._host = host
        self._name = name
        self._offset = 0
        self.behind = False
        """Whether the last piece was a full one, so that there is more to read."""

    def news(self) -> str:
        """What it says since the last look; one piece, since a host may write without an end."""
        text, offset = self._host.read_log(self._name, self._offset)
        grown, self._offset = offset - self._offset, offset
        self.behind = grown >= LOG_PIECE // 2
        return text


class _Wait:
    """One wait. Looks at the host, then asks the endpoint, and again."""

    def __init__(
        self,
        host: HostDoor,
        endpoint: EndpointDoor,
        plan: ReadinessPlan,
        clock: Clock,
        progress: Progress,
    ) -> None:
        self._host = host
        self._endpoint = endpoint
        self._plan = plan
        self._clock = clock
        self._progress = progress
        self._started = clock.monotonic()
        self._stages = _Stages(clock, progress)
        self._meter = DownloadMeter(plan.download_bytes)
        self._status: dict[str, str] = {}
        self._log = BootLog()
        self._server_log = LogFollower(host, "vllm.log")
        self._prefetch_log = LogFollower(host, "prefetch.log")
        self._prefetch_text = ""
        self._moved_at = self._started
        self._away_since: float | None = None
        self._suspected_at: float | None = None
        self._asked: StageName = "model"
        self._asked_at = -math.inf
        self._asked_run = 0
        self._caught_up = False
        self._pieces_behind = 0
        self._last_answer: object = "has not been asked yet"
        self._busy = False

    def run(self) -> ReadinessReport:
        while True:
            if self._reached_host() and self._serves() and self._answers():
                return self._report()
            self._check_limits()
            self._progress.go_on("the wait for the model")
            downloads = self._stages.current in {None, "download"}
            plan = self._plan
            self._clock.sleep(plan.poll_seconds if downloads else plan.boot_poll_seconds)

    # ----------------------------------------------------------------- the host

    def _reached_host(self) -> bool:
        """Read status and logs; bear a short absence of SSH."""
        try:
            self._status = self._host.status()
            news = self._server_log.news()
            prefetch_news = self._prefetch_log.news()
        except (HostUnreachable, LoginRefused, CommandFailed) as error:
            if self._away_for() > self._plan.outage:
                if isinstance(error, Nonsense):
                    raise self._fail(_lies(error)) from None
                raise
            self._progress.waiting(f"no look at the host: {error}")
            return False
        before = self._where()
        self._log.feed(news)
        if self._plan.served_before and not self._caught_up:
            # All of it is of before this wait.
            self._log.ignore_errors_so_far()
        if self._where() != before:
            self._moved_at = self._clock.monotonic()
        self._prefetch_text = (self._prefetch_text + prefetch_news)[-LOG_PIECE:]
        return self._read_to_the_end() and self._supervised()

    def _read_to_the_end(self) -> bool:
        """Whether the log was read up to now: before that it tells of earlier runs alone."""
        if not self._server_log.behind:
            self._caught_up = True
            self._pieces_behind = 0
            return True
        self._pieces_behind += 1
        if self._pieces_behind > MOST_PIECES:
            raise self._fail(
                Diagnosis(
                    pattern="log_flood",
                    sentence="the server's log grows faster than it can be read",
                    fault="host",
                    remedy="another host may do",
                )
            )
        self._progress.waiting("reading what the server has logged so far")
        return False

    def _where(self) -> tuple[int, Stage, str]:
        return self._log.runs, self._log.stage, self._log.progress

    def _supervised(self) -> bool:
        """Whether the supervisor runs; bear its absence for as long as a reboot takes."""
        supervisor = self._status.get("supervisor", "")
        if supervisor == "gave_up":
            if self._status.get("reason") != "prefetch":
                self._past_download()
            raise self._fail(self._why_given_up())
        if supervisor == "running":
            self._away_since = None
            return True
        if self._away_for() > self._plan.outage:
            raise self._fail(
                Diagnosis(
                    pattern="supervisor_gone",
                    sentence=f"the host's supervisor is not running ({supervisor or 'no status'})",
                    fault="platform",
                    remedy="run `pulumi up` again, which starts it",
                )
            )
        self._progress.waiting("the host's supervisor is not running, as after a reboot")
        return False

    def _away_for(self) -> float:
        now = self._clock.monotonic()
        if self._away_since is None:
            self._away_since = now
        return now - self._away_since

    def _why_given_up(self) -> Diagnosis:
        code = self._status.get("last_exit", "")
        if self._status.get("reason") == "prefetch":
            return diagnose_prefetch(self._prefetch_text) or Diagnosis(
                pattern="prefetch_failed",
                sentence=f"the download of the weights failed (exit {code})",
                fault="platform",
                remedy="run `pulumi up` again; the log's last lines are all there is",
            )
        ended = self._log.ended(whole(code))
        if self._log.fatal is None and self._log.earlier_fatal is not None:
            ended = self._log.earlier_fatal
        restarts = self._status.get("restarts", "0")
        if restarts in {"", "0"}:
            return ended
        return dataclasses.replace(
            ended, sentence=f"the server ended again after {restarts} restarts: {ended.sentence}"
        )

    # ----------------------------------------------------------------- from download to server

    def _serves(self) -> bool:
        """Whether the endpoint is worth asking."""
        phase = self._status.get("phase")
        if phase == "prefetch":
            self._stages.enter("download")
            self._moved_at = self._clock.monotonic()
            self._watch_download()
            return False
        self._past_download()
        self._hold_to_commits()
        self._end_if_fatal()
        if phase == "waiting":
            self._asked = "model"
            self._progress.waiting(
                f"the server ended (exit {self._status.get('last_exit')}) and is started again"
            )
            return False
        return self._watch_boot()

    def _hold_to_commits(self) -> None:
        """End at once where other weights are served, whatever they answer."""
        complaint = host_complaint(self._plan.held, self._status)
        if complaint:
            raise OtherWeights(f"{complaint}: it is not believed, and another host may do")

    def _past_download(self) -> None:
        """A server was started, however short its life may have been."""
        if self._stages.current in {None, "download"}:
            self._stages.enter("load")

    def _watch_download(self) -> None:
        now = self._clock.monotonic()
        meter = self._meter
        meter.look(now, (whole(self._status.get("downloaded_kb", "")) or 0) * 1024)
        expected = self._plan.download_bytes
        there = f"{size(meter.size)} of {size(expected)}"
        if meter.quiet > self._plan.stall:
            raise self._fail(
                diagnose_prefetch(self._prefetch_text)
                or Diagnosis(
                    pattern="download_hang",
                    sentence=f"the download stands still at {there} for {duration(meter.quiet)}",
                    fault="host",
                    remedy="another host may do",
                )
            )
        left = meter.remaining
        if left is None:
            self._progress.measuring(f"fetching the weights, {there}")
            return
        self._progress.measuring(
            f"fetching the weights, {there} at {size(meter.rate)}/s, {duration(left)} left"
        )
        allowed = min(self._plan.limit("download") - self._stages.elapsed(), self._left())
        if meter.measured >= self._plan.measuring and left > allowed:
            raise self._fail(
                Diagnosis(
                    pattern="download_slow",
                    sentence=(
                        f"the download is too slow: {there} after "
                        f"{duration(self._stages.elapsed())} at {size(meter.rate)}/s would take "
                        f"{duration(left)} more, and {duration(max(allowed, 0))} are left"
                    ),
                    fault="host",
                    remedy="another host may do, or a longer ready_minutes",
                )
            )

    def _end_if_fatal(self) -> None:
        """End at a fatal line; at one that follows from another, when a later look is no better.

        The lines of a failure come within a moment, and a look can fall between them. A server
        that is up is asked first: what a single request came to can read like an end.
        """
        fatal = self._fatal()
        if fatal is None:
            self._suspected_at = None
            return
        now = self._clock.monotonic()
        if self._suspected_at is None:
            self._suspected_at = now
        is_up = self._log.stage is Stage.SERVING and self._status.get("phase") == "serving"
        if is_up and self._asked_at < self._suspected_at:
            self._asked = "model"
            return
        if fatal.rank is Rank.ROOT or now - self._suspected_at >= A_MOMENT:
            raise self._fail(fatal)

    def _fatal(self) -> Diagnosis | None:
        """Find what the log knows to be the end: of a server that served before, only what is new.

        What its log had before this wait counts as soon as the server is not there any more.
        """
        if self._status.get("phase") == "waiting" or _is_gone(self._last_answer):
            return self._log.fatal
        return self._log.new_fatal

    def _watch_boot(self) -> bool:
        """Follow the log; whether the server can be asked."""
        now = self._clock.monotonic()
        in_talks = self._stages.current in _TALKS
        if self._log.stage is Stage.SERVING:
            if not in_talks:
                self._stages.enter("server")
            return True
        if in_talks and self._log.runs == self._asked_run:
            return True
        self._asked = "model"
        self._stages.enter(_BY_LOG[self._log.stage])
        took = duration(self._stages.elapsed())
        self._progress.measuring(f"{self._log.progress}, {took} in this stage")
        if now - self._moved_at > self._plan.stall:
            raise self._fail(self._charged(self._log.stalled()))
        return now - self._asked_at >= ASK_ANYWAY

    # ----------------------------------------------------------------- the endpoint

    def _answers(self) -> bool:
        """Ask on from where the last try failed; whether all has been answered."""
        self._asked_at = self._clock.monotonic()
        steps = {"model": self._right_model, "completion": self._completes}
        while self._asked in steps:
            if not steps[self._asked]():
                return False
            self._asked = "completion" if self._asked == "model" else "refusals"
        return self._refuses()

    def _right_model(self) -> bool:
        self._asked_run = self._log.runs
        found = self._endpoint.models(self._plan.api_key)
        self._last_answer = found
        if isinstance(found, Unreachable):
            if self._log.stage is Stage.SERVING:
                self._progress.waiting(f"the server is up, {found}")
            return False
        self._stages.enter("model")
        if isinstance(found, Refused):
            self._progress.waiting(str(found))
            return False
        if self._plan.model not in found.ids or found.max_model_len != self._plan.max_model_len:
            raise self._fail(
                Diagnosis(
                    pattern="wrong_model",
                    sentence=(
                        f"the endpoint serves {', '.join(found.ids)} with {found.max_model_len} "
                        f"tokens, and {self._plan.model} with {self._plan.max_model_len} was meant"
                    ),
                    fault="configuration",
                    remedy="correct served_model_name and max_model_len in the profile",
                )
            )
        return True

    def _completes(self) -> bool:
        self._stages.enter("completion")
        answer = self._endpoint.complete(self._plan.api_key, self._plan.model)
        if isinstance(answer, str):
            return True
        self._last_answer = answer
        self._busy = isinstance(answer, Refused) and answer.status in BUSY
        if _is_final(answer):
            raise self._fail(
                diagnose(answer.text, SERVER, serving=True)
                or Diagnosis(
                    pattern="completion_refused",
                    sentence=f"the model is there and completes nothing: {self._last_answer}",
                    fault="configuration",
                    remedy="take another image, or correct the vLLM options",
                )
            )
        self._progress.waiting(f"no completion yet: {self._last_answer}")
        return False

    def _refuses(self) -> bool:
        self._stages.enter("refusals")
        ask = self._endpoint.status_of
        for path, method, key, wanted in (
            ("/v1/models", "GET", WRONG_KEY, {401}),
            ("/v1/models", "GET", None, {401}),
            ("/v1/chat/completions", "POST", None, {401}),
            ("/invocations", "POST", None, {401, 404}),
            ("/invocations", "POST", self._plan.api_key, {404}),
        ):
            status = ask(path, key, method=method)
            if isinstance(status, Unreachable) or status in BUSY:
                self._busy = status in BUSY
                self._last_answer = _said(status)
                self._progress.waiting(f"no refusal yet: {self._last_answer}")
                return False
            if status not in wanted:
                raise self._open_door(path, status, key)
        return True

    def _open_door(self, path: str, status: int, key: str | None) -> NotReady:
        """Stop what answers to whom it should not, then say so."""
        who = {None: "no key", WRONG_KEY: "a wrong key"}.get(key, "the key")
        try:
            stopped = self._host.run(STOP, timeout=self._plan.outage + 60).exit_status == 0
        except (HostUnreachable, LoginRefused, CommandFailed):
            stopped = False
        fate = "it was stopped" if stopped else "it could not be stopped"
        return self._fail(
            Diagnosis(
                pattern="open_route",
                sentence=f"the endpoint answers {path} with {status} to {who}, so {fate}",
                fault="platform",
                remedy=(
                    "run `pulumi up` again, which pushes the key gate anew"
                    if stopped
                    else "run `pulumi destroy` at once"
                ),
            )
        )

    # ----------------------------------------------------------------- limits and ends

    def _left(self) -> float:
        return self._plan.deadline - (self._clock.monotonic() - self._started)

    def _check_limits(self) -> None:
        stage = self._stages.current
        if stage is not None and self._stages.elapsed() > self._plan.limit(stage):
            raise self._fail(self._charged(self._late(stage, self._plan.limit(stage))))
        if self._left() <= 0:
            raise self._fail(self._charged(self._late(stage, self._plan.deadline)))

    def _charged(self, late: Diagnosis) -> Diagnosis:
        """Take the blame off the machine of a server that served before, or says it is busy."""
        if self._plan.served_before:
            fatal = self._log.fatal
            hint = f" (its log has an error: {fatal.sentence})" if fatal else ""
            return dataclasses.replace(
                late, sentence=late.sentence + hint, fault="platform", remedy=_BUSY_OR_HANGS
            )
        if self._busy:
            return dataclasses.replace(late, fault="platform", remedy=_ASKED_TOO_MUCH)
        return late

    def _late(self, stage: StageName | None, limit: float) -> Diagnosis:
        within = f"within {duration(limit)}"
        fault: Fault = "host"
        if stage is None:
            sentence = "no server was started"
        elif stage == "download":
            there = f"{size(self._meter.size)} of {size(self._plan.download_bytes)}"
            sentence = f"the weights were not there {within} ({there})"
        elif stage in {"load", "compile", "graphs"}:
            sentence = f"not done {within}, still {self._log.progress}"
        elif stage == "model":
            sentence, fault = f"no list of models {within}: {self._last_answer}", "platform"
        else:
            what = {"server": "no answer", "completion": "no completion"}.get(stage, "no refusal")
            sentence = f"{what} {within}: {self._last_answer}"
        return Diagnosis(
            pattern=f"{stage or 'host'}_late",
            sentence=sentence,
            fault=fault,
            remedy="another host may do, or a longer ready_minutes",
        )

    def _fail(self, diagnosis: Diagnosis) -> NotReady:
        if self._plan.served_before and diagnosis.fault == "host":
            diagnosis = dataclasses.replace(diagnosis, fault="platform", remedy=_STARTS_ANEW)
        stage = self._stages.current or "host"
        took = duration(self._clock.monotonic() - self._started)
        text = self._clean(
            f"{self._plan.model} is not ready after {took} (stage {stage}): {diagnosis.text}"
        )
        tail = tuple(self._clean(line)[:LONGEST_LINE] for line in self._tail())
        if tail:
            self._progress.say("the log's last lines:")
        for line in tail:
            self._progress.say(f"| {line}")
        return _ERRORS[diagnosis.fault](text, stage=stage, cause=diagnosis.pattern, log_tail=tail)

    def _tail(self) -> list[str]:
        if self._stages.current in {None, "download"}:
            return self._prefetch_text.splitlines()[-TAIL:]
        return self._log.tail(TAIL)

    def _clean(self, text: str) -> str:
        return redacted(text, (self._plan.api_key, *self._plan.secrets))

    def _report(self) -> ReadinessReport:
        since = moment(self._status.get("phase_since", ""))
        return ReadinessReport(
            seconds=self._stages.finish(),
            resolved_revision=self._status.get("resolved_revision", ""),
            companion_revisions=read_revisions(self._status.get("companion_revisions", "")),
            started_at=in_utc(self._clock.epoch() if since is None else since),
        )


def _lies(error: Nonsense) -> Diagnosis:
    return Diagnosis(
        pattern="host_nonsense",
        sentence=str(error),
        fault="host",
        remedy="it is not what was set up there, so another host is needed",
    )


def host_complaint(held: Held | None, status: Mapping[str, str]) -> str:
    """Say in which commit a host's status differs from what it was told; empty if in none.

    Until all is fetched, what it names is of what it fetched before.
    """
    if held is None or status.get("phase") not in {"serving", "waiting"}:
        return ""
    companions = read_revisions(status.get("companion_revisions", ""))
    return held.complaint(status.get("resolved_revision", ""), companions)


def in_utc(epoch: float) -> str:
    """Write seconds since 1970 as outputs have them: UTC, ISO 8601."""
    return dt.datetime.fromtimestamp(epoch, dt.UTC).isoformat(timespec="seconds")


def _is_final(answer: Refused | Unreachable) -> TypeGuard[Refused]:
    """Whether the same question would be answered the same way later."""
    if isinstance(answer, Unreachable) or answer.status in BUSY:
        return False
    return 400 <= answer.status < 500  # noqa: PLR2004  (HTTP)


def _is_gone(answer: object) -> bool:
    """Whether no server answers, or one that has failed; neither busy nor late."""
    if isinstance(answer, Refused):
        return answer.status >= 500 and answer.status not in BUSY  # noqa: PLR2004  (HTTP)
    return isinstance(answer, Unreachable) and answer != Unreachable("timed_out")


def _said(status: int | Unreachable) -> str:
    return f"the endpoint answers {status}" if isinstance(status, int) else str(status)
