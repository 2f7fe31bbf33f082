"""The decisions of the wait, one by one and against any order of looks and answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.machine.ssh_types import HostAddress, HostUnreachable, Nonsense
from components.vllm.client_types import ModelInfo, Refused, Unreachable
from components.vllm.errors import OtherWeights
from components.vllm.hub_commits import Held
from components.vllm.readiness.boot_events import Stage
from components.vllm.readiness.decide import BUSY, MOST_PIECES, decide
from components.vllm.readiness.diagnosis import Diagnosis, Fault, Rank
from components.vllm.readiness.plan import ReadinessPlan
from components.vllm.readiness.state import (
    REFUSALS,
    Ask,
    CompletionAnswer,
    Decision,
    Fail,
    HostLost,
    HostSeen,
    LogSeen,
    ModelAnswer,
    Observation,
    Ready,
    Refusal,
    RefusalAnswer,
    State,
    Step,
    Stop,
    Stopped,
    Wait,
)

MODEL = "org/model"
LENGTH = 4096
PLAN = ReadinessPlan(
    model=MODEL, max_model_len=LENGTH, api_key="the-key", download_bytes=100e9, deadline=2700
)
RIGHT = ModelInfo((MODEL,), LENGTH, MODEL)
GONE = HostUnreachable(HostAddress("203.0.113.1", 22), "refused")
REFUSED = Unreachable("refused")


def found(pattern: str, fault: Fault = "host", rank: Rank = Rank.ROOT) -> Diagnosis:
    return Diagnosis(pattern, f"{pattern} happened", fault, "do something", rank=rank)


STALLED = found("stalled")
EMPTY = LogSeen(STALLED)
SERVING_LOG = LogSeen(STALLED, runs=1, stage=Stage.SERVING, doing="serving")
BOOTING_LOG = LogSeen(STALLED, runs=1, stage=Stage.LOAD, doing="building the model")
RUNNING = {"supervisor": "running", "restarts": "0", "last_exit": "", "reason": ""}
SERVES = {**RUNNING, "phase": "serving"}
FETCHES = {**RUNNING, "phase": "prefetch"}
WAITS = {**RUNNING, "phase": "waiting", "last_exit": "1"}
GAVE_UP = {"supervisor": "gave_up", "phase": "gave_up", "reason": "crash_loop", "last_exit": "1"}


def state(**known: Any) -> State:
    """A wait that began at 0, in the stage `load` unless a test says otherwise."""
    begun = State.begin(PLAN, 0, EMPTY)
    return dataclasses.replace(begun, **{"stage": "load", "status": SERVES, **known})


def seen(now: float, status: Mapping[str, str], log: LogSeen = EMPTY) -> HostSeen:
    return HostSeen(now, status, log)


def outcome(step: Step) -> object:
    """What a table compares: the pattern of a diagnosis, or the step itself."""
    return step.why.pattern if isinstance(step, Fail) and isinstance(step.why, Diagnosis) else step


LOOK, SOON = Wait(PLAN.poll_seconds), Wait(PLAN.boot_poll_seconds)
ROOT = dataclasses.replace(BOOTING_LOG, fatal=found("root"), new_fatal=found("root"))
HINT = found("hint", rank=Rank.CONSEQUENCE)
CONSEQUENCE = dataclasses.replace(BOOTING_LOG, fatal=HINT, new_fatal=HINT)
REQUEST_ERROR = dataclasses.replace(SERVING_LOG, fatal=found("root"), new_fatal=found("root"))
OLD_ERROR = dataclasses.replace(SERVING_LOG, fatal=found("root"))
ENDED = dataclasses.replace(BOOTING_LOG, ended=found("ended"))
EARLIER = dataclasses.replace(ENDED, earlier_fatal=found("earlier"))
FULL_DISK = dataclasses.replace(EMPTY, prefetch="OSError: [Errno 28] No space left on device\n")

TABLE: dict[str, tuple[State, Observation, object]] = {
    "no way to the host": (state(), HostLost(10, GONE), SOON),
    "no way for long": (state(away_since=10.0), HostLost(146, GONE), Fail(GONE)),
    "nonsense for long": (state(away_since=10.0), HostLost(146, Nonsense("x")), "host_nonsense"),
    "a long log": (
        state(),
        seen(10, SERVES, dataclasses.replace(SERVING_LOG, is_behind=True)),
        SOON,
    ),
    "a log without an end": (
        state(pieces_behind=MOST_PIECES),
        seen(10, SERVES, dataclasses.replace(SERVING_LOG, is_behind=True)),
        "log_flood",
    ),
    "no supervisor": (state(), seen(10, {"supervisor": "stopped"}), SOON),
    "no supervisor for long": (
        state(away_since=10.0),
        seen(146, {"supervisor": "stopped"}),
        "supervisor_gone",
    ),
    "given up": (state(), seen(10, GAVE_UP, ENDED), "ended"),
    "given up, and the run before says why": (state(), seen(10, GAVE_UP, EARLIER), "earlier"),
    "the download given up": (
        state(),
        seen(10, {**GAVE_UP, "reason": "prefetch"}),
        "prefetch_failed",
    ),
    "the download given up, and its log says why": (
        state(),
        seen(10, {**GAVE_UP, "reason": "prefetch"}, FULL_DISK),
        "disk_full",
    ),
    "a download": (state(stage=None), seen(10, {**FETCHES, "downloaded_kb": "9"}), LOOK),
    "the first look at a server": (state(stage=None), seen(0, SERVES), Ask("model")),
    "a server that starts": (state(asked_at=5.0), seen(10, SERVES, BOOTING_LOG), SOON),
    "one whose log says nothing": (state(asked_at=5.0), seen(35, SERVES), Ask("model")),
    "one whose log stands still": (
        state(asked_at=540.0, log=BOOTING_LOG),
        seen(541, SERVES, BOOTING_LOG),
        "stalled",
    ),
    "one that listens": (state(asked_at=9.0), seen(10, SERVES, SERVING_LOG), Ask("model")),
    "one that ended": (state(asks="refusals"), seen(10, WAITS, BOOTING_LOG), SOON),
    "a root cause": (state(), seen(10, SERVES, ROOT), "root"),
    "a consequence": (state(asked_at=9.0), seen(10, SERVES, CONSEQUENCE), SOON),
    "a consequence that stays": (state(suspected_at=7.0), seen(10, SERVES, CONSEQUENCE), "hint"),
    "an error of a request": (state(asked_at=9.0), seen(10, SERVES, REQUEST_ERROR), Ask("model")),
    "an error after which nothing answers": (
        state(asked_at=9.5, suspected_at=9.0, last_answer=REFUSED),
        seen(10, SERVES, REQUEST_ERROR),
        "root",
    ),
    "an old error of one that answers": (state(), seen(10, SERVES, OLD_ERROR), Ask("model")),
    "an old error of one that ended": (state(), seen(10, WAITS, OLD_ERROR), "root"),
    "another run than was asked": (
        state(stage="refusals", asks="refusals", asked_run=1),
        seen(10, SERVES, dataclasses.replace(SERVING_LOG, runs=2)),
        Ask("model"),
    ),
    "the same run, further": (
        state(stage="refusals", asks="refusals", asked_run=1),
        seen(10, SERVES, SERVING_LOG),
        Ask(REFUSALS[0]),
    ),
    "the right model": (state(), ModelAnswer(10, RIGHT), Ask("completion")),
    "another model": (state(), ModelAnswer(10, ModelInfo(("x",), LENGTH, "x")), "wrong_model"),
    "another length": (state(), ModelAnswer(10, ModelInfo((MODEL,), 1, "x")), "wrong_model"),
    "a key that is not taken": (state(), ModelAnswer(10, Refused(401, "no")), SOON),
    "no answer": (state(), ModelAnswer(10, REFUSED), SOON),
    "a completion": (state(), CompletionAnswer(10, "Yes"), Ask(REFUSALS[0])),
    "an empty completion": (state(), CompletionAnswer(10, ""), Ask(REFUSALS[0])),
    "a queue that is full": (state(), CompletionAnswer(10, Refused(503, "full")), SOON),
    "a request refused for good": (
        state(),
        CompletionAnswer(10, Refused(400, "no")),
        "completion_refused",
    ),
    "a stop that works": (
        state(),
        Stopped(10, REFUSALS[0], 200, is_stopped=True),
        "open_route",
    ),
    "the last refusal": (state(), RefusalAnswer(10, REFUSALS[-1], 404), Ready()),
    "a queue in place of a refusal": (state(), RefusalAnswer(10, REFUSALS[-1], 429), SOON),
    "a stage that is late": (
        state(entered=100.0, moved_at=1400.0, asked_at=1449.0),
        seen(1451, SERVES, BOOTING_LOG),
        "load_late",
    ),
    "a whole that is late": (
        state(entered=2690.0, moved_at=2690.0, asked_at=2699.0),
        seen(2700, SERVES, BOOTING_LOG),
        "load_late",
    ),
}


@pytest.mark.parametrize("case", list(TABLE))
def test_one_look_or_answer(case: str) -> None:
    known, observed, expected = TABLE[case]
    after, step = decide(PLAN, known, observed)
    assert outcome(step) == expected
    assert after.now == observed.now


@pytest.mark.parametrize("number", range(len(REFUSALS)))
def test_each_refusal_is_asked_for_and_none_may_be_missing(number: int) -> None:
    asked = REFUSALS[number]
    for status in asked.wanted:
        _, step = decide(PLAN, state(), RefusalAnswer(10, asked, status))
        last = number == len(REFUSALS) - 1
        assert step == (Ready() if last else Ask(REFUSALS[number + 1]))
    _, step = decide(PLAN, state(), RefusalAnswer(10, asked, 200))
    assert step == Stop(asked, 200)


def test_a_host_with_other_weights_is_not_asked() -> None:
    plan = dataclasses.replace(PLAN, held=Held(MODEL, {MODEL: "c" * 40}))
    status = {**SERVES, "resolved_revision": "d" * 40}
    _, step = decide(plan, state(), seen(10, status, SERVING_LOG))
    assert isinstance(step, Fail)
    assert isinstance(step.why, OtherWeights)


def test_whether_a_server_could_be_stopped_is_what_a_person_is_told() -> None:
    for stopped, words in ((True, "pulumi up"), (False, "pulumi destroy")):
        _, step = decide(PLAN, state(), Stopped(10, REFUSALS[0], 200, is_stopped=stopped))
        assert isinstance(step, Fail)
        assert isinstance(step.why, Diagnosis)
        assert words in step.why.remedy


# --------------------------------------------------------------------------- any order

unreachable = st.sampled_from([REFUSED, Unreachable("timed_out"), Unreachable("closed")])
refused = st.builds(Refused, st.sampled_from([400, 401, 408, 429, 500, 503]), st.just("no"))
faults = st.sampled_from(["configuration", "host", "platform"])
diagnoses = st.none() | st.builds(found, st.just("logged"), faults, st.sampled_from(Rank))
logs = st.builds(
    LogSeen,
    st.just(STALLED),
    runs=st.integers(0, 2),
    stage=st.sampled_from(Stage),
    doing=st.sampled_from(["this", "that"]),
    fatal=diagnoses,
    new_fatal=diagnoses,
    ended=st.just(found("ended")),
    is_behind=st.sampled_from([False, False, False, True]),
)
healthy_logs = st.builds(
    LogSeen, st.just(STALLED), runs=st.integers(1, 2), stage=st.just(Stage.SERVING)
)
statuses = st.sampled_from([SERVES, SERVES, SERVES, FETCHES, WAITS, GAVE_UP, {"supervisor": "x"}])
looks = st.one_of(
    st.tuples(st.just(SERVES), healthy_logs),
    st.tuples(st.just(SERVES), healthy_logs),
    st.tuples(statuses, logs),
    st.just(None),
)
models = st.one_of(st.just(RIGHT), st.just(RIGHT), refused, unreachable)
completions = st.one_of(st.just("Yes"), st.just("Yes"), refused, unreachable)
refusals = st.one_of(
    *[st.sampled_from([401, 404])] * 6, st.sampled_from([200, 429, 503]), unreachable
)
Beat = tuple[float, Any, Any, Any, tuple[Any, ...]]
"""Seconds that a look takes, the look, and what the endpoint would answer then."""
any_beat = st.tuples(
    st.floats(0, 90), looks, models, completions, st.tuples(*[refusals] * len(REFUSALS))
)
proper = st.tuples(*[st.sampled_from(sorted(asked.wanted)) for asked in REFUSALS])
good_beat = st.tuples(
    st.floats(0, 5),
    st.none() | st.tuples(st.just(SERVES), healthy_logs),
    st.just(RIGHT),
    st.sampled_from(["Yes", "Yes", Refused(503, "full")]),
    proper | proper | st.tuples(*[st.sampled_from([401, 404, 503])] * len(REFUSALS)),
)
stalling = st.sampled_from([("Yes", (503,) * len(REFUSALS)), (Refused(503, "full"), ())])
restarts = st.tuples(st.floats(0, 5), stalling, proper).map(
    lambda drawn: [
        (drawn[0], (SERVES, SERVING_LOG), RIGHT, *drawn[1]),
        (drawn[0], (SERVES, dataclasses.replace(SERVING_LOG, runs=2)), RIGHT, "Yes", drawn[2]),
    ]
)
"""Servers that start again where only some of the questions were answered."""
worlds = (
    st.lists(any_beat | good_beat, min_size=1, max_size=12)
    | st.lists(good_beat, min_size=1, max_size=12)
    | restarts
)
plans = st.builds(
    lambda deadline, before: dataclasses.replace(PLAN, deadline=deadline, served_before=before),
    st.floats(1, 3000),
    st.booleans(),
)


def played(plan: ReadinessPlan, world: list[Beat]) -> Iterator[tuple[Observation, Decision]]:
    """Let the wait meet `world`, whose last beat goes on for ever, to the wait's end."""
    known, now, number = State.begin(plan, 0, EMPTY), 0.0, -1
    step: Step = Wait(0)
    while True:
        if isinstance(step, Wait):
            number += 1
            now += step.seconds
        takes, look, model, completion, refusal = world[min(number, len(world) - 1)]
        observed: Observation
        match step:
            case Wait():
                now += takes
                observed = HostLost(now, GONE) if look is None else HostSeen(now, *look)
            case Ask("model"):
                observed = ModelAnswer(now, model)
            case Ask("completion"):
                observed = CompletionAnswer(now, completion)
            case Ask(Refusal() as asked):
                observed = RefusalAnswer(now, asked, refusal[REFUSALS.index(asked)])
            case Stop():
                observed = Stopped(now, step.asked, step.status, is_stopped=True)
            case _:
                return
        decision = decide(plan, known, observed)
        assert decide(plan, known, observed) == decision
        yield observed, decision
        known, step = decision


@given(plans, worlds)
def test_every_wait_ends_within_its_deadline(plan: ReadinessPlan, world: list[Beat]) -> None:
    steps = [(observed.now, decision[1]) for observed, decision in played(plan, world)]
    assert isinstance(steps[-1][1], Fail | Ready)
    assert all(now < plan.deadline for now, step in steps if isinstance(step, Wait))


@given(plans, worlds)
def test_nothing_is_ready_without_a_proof_by_the_run_that_serves(
    plan: ReadinessPlan, world: list[Beat]
) -> None:
    trail = list(played(plan, world))
    if trail[-1][1][1] != Ready():
        return
    observed = [one for one, _ in trail]
    proof = observed[-len(REFUSALS) :]
    assert [one.asked for one in proof if isinstance(one, RefusalAnswer)] == list(REFUSALS)
    assert all(isinstance(one, RefusalAnswer) and one.answer in one.asked.wanted for one in proof)
    completed = max(n for n, one in enumerate(observed) if isinstance(one, CompletionAnswer))
    modelled = max(n for n, one in enumerate(observed) if isinstance(one, ModelAnswer))
    assert modelled < completed
    assert observed[completed] == CompletionAnswer(observed[completed].now, "Yes")
    assert observed[modelled] == ModelAnswer(observed[modelled].now, RIGHT)
    looks_since = [one for one in observed[:modelled] if isinstance(one, HostSeen)][-1:] + [
        one for one in observed[modelled:] if isinstance(one, HostSeen)
    ]
    read = [one for one in looks_since if not one.log.is_behind]
    assert len({one.log.runs for one in read if one.status == SERVES}) == 1
    assert WAITS not in [one.status for one in read[1:]]


@given(plans, worlds)
def test_a_server_that_served_before_is_no_word_against_its_machine(
    plan: ReadinessPlan, world: list[Beat]
) -> None:
    plan = dataclasses.replace(plan, served_before=True)
    *_, (_, (_, step)) = played(plan, world)
    if isinstance(step, Fail) and isinstance(step.why, Diagnosis):
        assert step.why.fault != "host"


@given(st.lists(st.tuples(st.floats(0.1, 500), st.integers(1, 10**8)), min_size=2, max_size=30))
def test_a_download_that_goes_on_is_no_hang(growths: list[tuple[float, int]]) -> None:
    """Each look finds more bytes, and comes sooner than a standstill is long."""
    known, now, kilobytes = State.begin(PLAN, 0, EMPTY), 0.0, 0
    for passed, growth in growths:
        now, kilobytes = now + passed, kilobytes + growth
        status = {**FETCHES, "downloaded_kb": str(kilobytes)}
        known, step = decide(PLAN, known, seen(now, status))
        if isinstance(step, Fail):
            assert outcome(step) in {"download_slow", "download_late"}
            return
        assert step == LOOK


@given(st.floats(1.2, 100), st.floats(1, 60))
def test_a_download_that_arrives_in_time_is_never_given_up(faster: float, poll: float) -> None:
    """At a steady rate that needs less than the limit, however often it is looked at."""
    rate = PLAN.download_bytes / PLAN.limit("download") * faster
    known, now = State.begin(PLAN, 0, EMPTY), 0.0
    while now * rate < PLAN.download_bytes:
        status = {**FETCHES, "downloaded_kb": str(int(now * rate / 1024))}
        known, step = decide(PLAN, known, seen(now, status))
        assert step == LOOK
        now += poll


def test_the_statuses_that_mean_later_are_never_the_end() -> None:
    answers: list[Callable[[int], Observation]] = [
        lambda status: CompletionAnswer(10, Refused(status, "later")),
        lambda status: RefusalAnswer(10, REFUSALS[0], status),
        lambda status: ModelAnswer(10, Refused(status, "later")),
    ]
    for answer in answers:
        for status in BUSY:
            assert decide(PLAN, state(), answer(status))[1] == SOON
