"""What a rehearsal beside the download says of the start that follows it. Pure.

The host starts the same server with dummy weights while the real ones come. It ends a start only
by a cause that the real one would end by as well. Whatever else becomes of it is a line to tell.
"""

from __future__ import annotations

import dataclasses
import re

from components.vllm.readiness.boot_events import Stage
from components.vllm.readiness.diagnosis import Diagnosis, is_sure
from components.vllm.readiness.state import HostSeen, LogSeen, State

NCCL_SECONDS = 120.0
"""Without a step ahead while the ranks find each other. Two ranks needed 4 seconds, in
docs/measured; a rehearsal has the lowest priority, so it gets much more."""

NAMED = frozenset(
    {
        # an option that the parser or the configuration refuses
        "unknown_option",
        "bad_option",
        "chat_template_missing",
        "tool_call_parser",
        "reasoning_parser",
        "tool_choice_without_parser",
        "parser_and_tokenizer",
        "unknown_attention_backend",
        "attention_backend_unfit",
        "context_too_long",
        "heads_and_ranks",
        "utilization_out_of_range",
        "eagle_unsupported",
        "configuration_refused",
        # the image has no such thing
        "model_class_missing",
        "no_vllm",
        # memory
        "kv_too_small",
        "no_kv_memory",
        "gpu_in_use",
        "gpu_out_of_memory",
        "warm_up_out_of_memory",
        "shared_memory_short",
        # CUDA and NCCL
        "driver_too_old",
        "cuda_does_not_start",
        "gpu_missing",
        "image_not_for_gpu",
        "gpu_failed",
        "nccl_failed",
        "nccl_hang",
    }
)
"""Patterns that dummy weights, a missing Hub or a low priority do not cause."""

_BY_ITSELF = re.compile(
    r"dummy|load.?format|offline|hugging.?face|\bhub\b|repositor|snapshot|local(?:ly)? |cached"
    r"|safetensors|can.t load|no such file",
    re.IGNORECASE,
)
"""What a refused configuration speaks of where it may be the rehearsal's own: it has neither
weights nor a way to the Hub."""


def judged(state: State, seen: HostSeen) -> tuple[State, Diagnosis | None]:
    """Return what is known of the rehearsal after a look, and why the start would fail; or None."""
    course = state.status.get("rehearsal", "")
    log = seen.rehearsal
    if course not in {"running", "failed"} or log is None or log.is_behind:
        return _told(state, course, log), None
    state = _followed(state, log)
    found = _cause(state, log, course)
    return (state, _early(found)) if found else (_told(state, course, log), None)


def _followed(state: State, log: LogSeen) -> State:
    known = state.rehearsal
    if known.place != log.place:
        known = dataclasses.replace(known, place=log.place, moved_at=state.now)
    suspected = None
    if _named(log):
        suspected = state.now if known.suspected_at is None else known.suspected_at
    known = dataclasses.replace(known, suspected_at=suspected)
    return dataclasses.replace(state, rehearsal=known)


def _cause(state: State, log: LogSeen, course: str) -> Diagnosis | None:
    """Return why the start would fail; None while a later look may say more."""
    known, found = state.rehearsal, _named(log)
    if found and known.suspected_at is not None:
        return found if is_sure(found, state.now - known.suspected_at) else None
    hangs = log.stage is Stage.NCCL and state.now - known.moved_at > NCCL_SECONDS
    return log.stalled if hangs and course == "running" else None


def _named(log: LogSeen) -> Diagnosis | None:
    """What ends the rehearsal, if it would end the real start as well."""
    found = log.fatal
    if found is None or found.pattern not in NAMED or log.stage is Stage.SERVING:
        return None
    if found.pattern == "configuration_refused" and _BY_ITSELF.search(found.sentence):
        return None
    return found


def _early(found: Diagnosis) -> Diagnosis:
    sentence = f"found early, by a rehearsal beside the download: {found.sentence}"
    return dataclasses.replace(found, sentence=sentence)


def _told(state: State, course: str, log: LogSeen | None) -> State:
    """Say once what becomes of it."""
    known = state.rehearsal
    text = _line(course, log)
    if course == known.course or not text or (known.suspected_at is not None and log):
        return state
    state = dataclasses.replace(state, rehearsal=dataclasses.replace(known, course=course))
    return state.tell("say", text)


def _line(course: str, log: LogSeen | None) -> str:
    if course == "running":
        return "a rehearsal with dummy weights looks for what is wrong meanwhile"
    if course == "served":
        return "the rehearsal served: it found nothing wrong with options, memory and GPUs"
    if course == "failed" and log is not None and log.ended is not None:
        ended = log.ended.sentence
        return f"the rehearsal failed for no known cause ({ended}); the download goes on"
    return ""
