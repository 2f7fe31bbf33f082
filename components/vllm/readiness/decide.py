"""What the wait does next, from what it knows and what it has just seen. Pure.

`decide` takes the state and one observation, and returns the next state with one step: wait, ask
the endpoint, stop the server, fail, or ready. Ready means answered: the right model and length, an
authenticated completion, and no answer without the key; `/health` alone means nothing. Each stage
has its own limit, and what the log or the supervisor knows to be the end is the end at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TypeGuard

from components.core.errors import HostError
from components.core.progress import duration, size
from components.machine.agent_answers import read_revisions, whole
from components.machine.ssh_types import Nonsense
from components.vllm.client_types import ModelInfo, Refused, Unreachable
from components.vllm.errors import OtherWeights
from components.vllm.hub_commits import Held
from components.vllm.readiness import causes, rehearsal
from components.vllm.readiness.boot_events import Stage
from components.vllm.readiness.diagnosis import Diagnosis, is_sure
from components.vllm.readiness.log_parser import diagnose_prefetch
from components.vllm.readiness.plan import ReadinessPlan, StageName
from components.vllm.readiness.state import (
    REFUSALS,
    Ask,
    CompletionAnswer,
    Decision,
    Fail,
    HostLost,
    HostSeen,
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

ASK_ANYWAY = 30.0
"""Seconds after which the endpoint is asked though the log does not say that it listens: a log can
be rotated, or another version's. The first look asks as well, since the server may be up already.
"""

MOST_PIECES = 32
"""Pieces of a log that are read one after the other: it begins anew long before it has so many."""

BUSY = frozenset({408, 429, 503})
"""HTTP statuses that say "later": the server is there and has too much to do. vLLM's own one, with
`max-num-queued-reqs`, is 503 (vllm-project/vllm#58192)."""

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


def decide(plan: ReadinessPlan, state: State, seen: Observation) -> Decision:
    """Return what is known after `seen`, and what to do next."""
    state = dataclasses.replace(state, now=seen.now, lines=())
    match seen:
        case HostLost():
            return _without_host(plan, state, seen.error)
        case HostSeen():
            return _after_look(plan, state, seen)
        case ModelAnswer():
            return _after_model(plan, state, seen.answer)
        case CompletionAnswer():
            return _after_completion(plan, state, seen.answer)
        case RefusalAnswer():
            return _after_refusal(plan, state, seen.asked, seen.answer)
        case Stopped():
            asked, stopped = seen.asked, seen.is_stopped
            found = causes.open_route(asked.path, seen.status, asked.who, stopped=stopped)
            return _fail(plan, state, found)


def host_complaint(held: Held | None, status: Mapping[str, str]) -> str:
    """Say which commit a host's status names wrongly; empty if it names none wrongly.

    Until all is fetched, the status names what the host fetched before.
    """
    if held is None or status.get("phase") not in {"serving", "waiting"}:
        return ""
    companions = read_revisions(status.get("companion_revisions", ""))
    return held.complaint(status.get("resolved_revision", ""), companions)


# --------------------------------------------------------------------------- the host


def _without_host(plan: ReadinessPlan, state: State, error: HostError) -> Decision:
    """Tolerate a short absence of SSH."""
    state, away = _away(state)
    if away > plan.outage:
        if isinstance(error, Nonsense):
            return _fail(plan, state, causes.host_nonsense(error))
        return state, Fail(error)
    return _wait(plan, state.tell("wait", f"no look at the host: {error}"))


def _after_look(plan: ReadinessPlan, state: State, seen: HostSeen) -> Decision:
    moved_at = state.moved_at if seen.log.place == state.log.place else state.now
    is_there = seen.status.get("supervisor") == "running"
    is_behind = seen.log.is_behind
    state = dataclasses.replace(
        state,
        status=seen.status,
        log=seen.log,
        moved_at=moved_at,
        caught_up=state.caught_up or not is_behind,
        pieces_behind=state.pieces_behind + 1 if is_behind else 0,
        away_since=None if is_there and not is_behind else state.away_since,
    )
    if is_behind:
        return _behind(plan, state)
    if not is_there:
        return _without_supervisor(plan, state)
    if state.status.get("phase") == "prefetch":
        return _download(plan, state, seen)
    return _boot(plan, _past_download(state))


def _behind(plan: ReadinessPlan, state: State) -> Decision:
    """Read on: until its end was read, the log tells of earlier runs alone."""
    if state.pieces_behind > MOST_PIECES:
        return _fail(plan, state, causes.log_flood())
    return _wait(plan, state.tell("wait", "reading what the server has logged so far"))


def _without_supervisor(plan: ReadinessPlan, state: State) -> Decision:
    """Tolerate its absence for as long as a reboot takes."""
    supervisor = state.status.get("supervisor", "")
    if supervisor == "gave_up":
        return _given_up(plan, state)
    state, away = _away(state)
    if away > plan.outage:
        return _fail(plan, state, causes.supervisor_gone(supervisor))
    text = "the host's supervisor is not running, as after a reboot"
    return _wait(plan, state.tell("wait", text))


def _away(state: State) -> tuple[State, float]:
    """Return since how many seconds there is no supervisor to be seen."""
    since = state.now if state.away_since is None else state.away_since
    return dataclasses.replace(state, away_since=since), state.now - since


def _given_up(plan: ReadinessPlan, state: State) -> Decision:
    log, code = state.log, state.status.get("last_exit", "")
    if state.status.get("reason") == "prefetch":
        found = diagnose_prefetch(log.prefetch) or causes.prefetch_failed(code)
        return _fail(plan, state, found)
    if state.status.get("reason") == "rehearsal_memory":
        return _fail(plan, state, causes.rehearsal_memory(), is_rehearsed=True)
    state = _past_download(state)
    ended = log.fatal or log.earlier_fatal or log.ended or log.stalled
    restarts = state.status.get("restarts", "0")
    return _fail(plan, state, causes.after_restarts(ended, restarts))


# --------------------------------------------------------------------------- download and boot


def _download(plan: ReadinessPlan, state: State, seen: HostSeen) -> Decision:
    size_there = (whole(state.status.get("downloaded_kb", "")) or 0) * 1024
    state = state.enter("download")
    meter = state.meter.look(state.now, size_there)
    state = dataclasses.replace(state, meter=meter, moved_at=state.now)
    if meter.quiet > plan.stall:
        found = diagnose_prefetch(state.log.prefetch) or causes.download_hang(meter)
        return _fail(plan, state, found)
    state, early = rehearsal.judged(state, seen)
    if early:
        return _fail(plan, state, early, is_rehearsed=True)
    there, left = causes.progress_of(meter), meter.remaining
    if left is None:
        return _wait(plan, state.tell("measure", f"fetching the weights, {there}"))
    rate = f"{size(meter.rate)}/s, {duration(left)} left"
    state = state.tell("measure", f"fetching the weights, {there} at {rate}")
    allowed = min(plan.limit("download") - state.elapsed, _left(plan, state))
    if meter.measured >= plan.measuring and left > allowed:
        elapsed = state.elapsed
        slow = causes.download_slow(meter, elapsed=elapsed, left=left, allowed=allowed)
        return _fail(plan, state, slow)
    return _wait(plan, state)


def _past_download(state: State) -> State:
    """Note that a server was started, however short its life may have been."""
    return state.enter("load") if state.stage in {None, "download"} else state


def _boot(plan: ReadinessPlan, state: State) -> Decision:
    complaint = host_complaint(plan.held, state.status)
    if complaint:
        # Whatever it answers, it serves other weights.
        text = f"{complaint}: it is not believed, and another host may do"
        return state, Fail(OtherWeights(text))
    state, end = _fatal_end(state)
    if end:
        return _fail(plan, state, end)
    if state.status.get("phase") == "waiting":
        state = _asking_for_the_model(state)
        exit_code = state.status.get("last_exit")
        text = f"the server ended (exit {exit_code}) and is started again"
        return _wait(plan, state.tell("wait", text))
    return _follow_log(plan, state)


def _fatal_end(state: State) -> tuple[State, Diagnosis | None]:
    """Find the end in the log: a root cause at once, a consequence if a later look is no better.

    The lines of a failure come within a moment, and a look can fall between them. A server that is
    up is asked first: what a single request came to can read like an end.
    """
    fatal = _fatal(state)
    if fatal is None:
        known = state.suspected_at is not None
        return dataclasses.replace(state, suspected_at=None) if known else state, None
    suspected = state.now if state.suspected_at is None else state.suspected_at
    state = dataclasses.replace(state, suspected_at=suspected)
    is_up = state.log.stage is Stage.SERVING and state.status.get("phase") == "serving"
    if is_up and state.asked_at < suspected:
        return _asking_for_the_model(state), None
    return state, fatal if is_sure(fatal, state.now - suspected) else None


def _fatal(state: State) -> Diagnosis | None:
    """Return what the log knows to be the end: of a server that served before, only what is new.

    What its log had before this wait counts as soon as the server is not there any more.
    """
    if state.status.get("phase") == "waiting" or _is_gone(state.last_answer):
        return state.log.fatal
    return state.log.new_fatal


def _follow_log(plan: ReadinessPlan, state: State) -> Decision:
    log, in_talks = state.log, state.stage in _TALKS
    if log.runs != state.asked_run:
        # What another run has answered proves nothing of this one.
        state = _asking_for_the_model(state)
    if log.stage is Stage.SERVING:
        return _ask(state if in_talks else state.enter("server"))
    if in_talks and log.runs == state.asked_run:
        return _ask(state)
    state = _asking_for_the_model(state).enter(_BY_LOG[log.stage])
    state = state.tell("measure", f"{log.doing}, {duration(state.elapsed)} in this stage")
    if state.now - state.moved_at > plan.stall:
        return _fail(plan, state, _excused(plan, state, log.stalled))
    if state.now - state.asked_at >= ASK_ANYWAY:
        return _ask(state)
    return _wait(plan, state)


def _asking_for_the_model(state: State) -> State:
    return state if state.asks == "model" else dataclasses.replace(state, asks="model")


# --------------------------------------------------------------------------- the endpoint


def _ask(state: State) -> Decision:
    """Ask on from where the last try failed."""
    return _next_question(dataclasses.replace(state, asked_at=state.now))


def _next_question(state: State) -> Decision:
    match state.asks:
        case "model":
            return dataclasses.replace(state, asked_run=state.log.runs), Ask("model")
        case "completion":
            return state.enter("completion"), Ask("completion")
        case "refusals":
            return state.enter("refusals"), Ask(REFUSALS[0])


def _after_model(
    plan: ReadinessPlan, state: State, answer: ModelInfo | Refused | Unreachable
) -> Decision:
    state = dataclasses.replace(state, last_answer=answer)
    if isinstance(answer, Unreachable):
        if state.log.stage is Stage.SERVING:
            state = state.tell("wait", f"the server is up, {answer}")
        return _wait(plan, state)
    state = state.enter("model")
    if isinstance(answer, Refused):
        return _wait(plan, state.tell("wait", str(answer)))
    if plan.model not in answer.ids or answer.max_model_len != plan.max_model_len:
        return _fail(plan, state, causes.wrong_model(answer, plan.model, plan.max_model_len))
    return _next_question(dataclasses.replace(state, asks="completion"))


def _after_completion(
    plan: ReadinessPlan, state: State, answer: str | Refused | Unreachable
) -> Decision:
    if isinstance(answer, str):
        return _next_question(dataclasses.replace(state, asks="refusals"))
    is_busy = isinstance(answer, Refused) and answer.status in BUSY
    state = dataclasses.replace(state, last_answer=answer, is_busy=is_busy)
    if _is_final(answer):
        return _fail(plan, state, causes.completion_refused(answer))
    return _wait(plan, state.tell("wait", f"no completion yet: {answer}"))


def _after_refusal(
    plan: ReadinessPlan, state: State, asked: Refusal, answer: int | Unreachable
) -> Decision:
    if isinstance(answer, Unreachable) or answer in BUSY:
        text = str(answer) if isinstance(answer, Unreachable) else f"the endpoint answers {answer}"
        state = dataclasses.replace(state, last_answer=text, is_busy=answer in BUSY)
        return _wait(plan, state.tell("wait", f"no refusal yet: {text}"))
    if answer not in asked.wanted:
        return state, Stop(asked, answer)
    following = REFUSALS[REFUSALS.index(asked) + 1 :]
    return state, Ask(following[0]) if following else Ready()


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


# --------------------------------------------------------------------------- limits and ends


def _wait(plan: ReadinessPlan, state: State) -> Decision:
    """Wait on, unless a stage or the whole has used up its time."""
    stage = state.stage
    if stage is not None and state.elapsed > plan.limit(stage):
        return _late(plan, state, plan.limit(stage))
    if _left(plan, state) <= 0:
        return _late(plan, state, plan.deadline)
    downloads = stage in {None, "download"}
    return state, Wait(plan.poll_seconds if downloads else plan.boot_poll_seconds)


def _left(plan: ReadinessPlan, state: State) -> float:
    return plan.deadline - (state.now - state.started)


def _late(plan: ReadinessPlan, state: State, limit: float) -> Decision:
    late = causes.late(
        state.stage,
        limit,
        meter=state.meter,
        doing=state.log.doing,
        last_answer=state.last_answer,
    )
    return _fail(plan, state, _excused(plan, state, late))


def _excused(plan: ReadinessPlan, state: State, late: Diagnosis) -> Diagnosis:
    """Take the blame off the machine of a server that served before, or says it is busy."""
    if plan.served_before:
        return causes.busy_or_hangs(late, state.log.fatal)
    return causes.asked_too_much(late) if state.is_busy else late


def _fail(
    plan: ReadinessPlan, state: State, found: Diagnosis, *, is_rehearsed: bool = False
) -> Decision:
    why = causes.not_blamed(found) if plan.served_before else found
    return state, Fail(why, is_rehearsed)
