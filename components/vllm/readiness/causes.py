"""What the wait itself can find wrong, each as a diagnosis: what happened, whose fault, what to do.

What vLLM's log says is in `log_patterns`. Pure.
"""

from __future__ import annotations

import dataclasses

from components.core.progress import duration, size
from components.vllm.client_types import ModelInfo, Refused
from components.vllm.readiness.diagnosis import Diagnosis, Fault, diagnose
from components.vllm.readiness.download_rate import DownloadMeter
from components.vllm.readiness.log_patterns import SERVER
from components.vllm.readiness.plan import StageName

_ANOTHER_HOST = "another host may do"
_MORE_TIME = "another host may do, or a longer ready_minutes"

_BUSY_OR_HANGS = (
    "it served before and was not restarted, so it is busy or hangs: run `pulumi up` again when "
    "less is asked of it; one that hangs is found by the refresh before, and restarted"
)

_STARTS_ANEW = (
    "it served before and was not restarted, so its machine is not blamed: run `pulumi up` again, "
    "which restarts it unless it answers by then"
)

_ASKED_TOO_MUCH = "it is asked more than it can answer: run `pulumi up` again when that is over"


def host_nonsense(error: Exception) -> Diagnosis:
    """The host says what its scripts never say."""
    return Diagnosis(
        pattern="host_nonsense",
        sentence=str(error),
        fault="host",
        remedy="it is not what was set up there, so another host is needed",
    )


def log_flood() -> Diagnosis:
    """The log never comes to an end."""
    return Diagnosis(
        pattern="log_flood",
        sentence="the server's log grows faster than it can be read",
        fault="host",
        remedy=_ANOTHER_HOST,
    )


def supervisor_gone(state: str) -> Diagnosis:
    """Nothing on the host starts the server."""
    return Diagnosis(
        pattern="supervisor_gone",
        sentence=f"the host's supervisor is not running ({state or 'no status'})",
        fault="platform",
        remedy="run `pulumi up` again, which starts it",
    )


def prefetch_failed(exit_code: str) -> Diagnosis:
    """The download ended, and its log names no cause."""
    return Diagnosis(
        pattern="prefetch_failed",
        sentence=f"the download of the weights failed (exit {exit_code})",
        fault="platform",
        remedy="run `pulumi up` again; the log's last lines are all there is",
    )


def rehearsal_memory() -> Diagnosis:
    """A rehearsal has ended, and its memory is still in use."""
    return Diagnosis(
        pattern="rehearsal_memory",
        sentence="the GPUs did not get their memory back after a rehearsal had ended",
        fault="host",
        remedy=_ANOTHER_HOST,
    )


def after_restarts(ended: Diagnosis, restarts: str) -> Diagnosis:
    """Add how often the supervisor started the server again."""
    if restarts in {"", "0"}:
        return ended
    return dataclasses.replace(
        ended, sentence=f"the server ended again after {restarts} restarts: {ended.sentence}"
    )


def download_hang(meter: DownloadMeter) -> Diagnosis:
    """No byte came for long, and the log of the download names no cause."""
    return Diagnosis(
        pattern="download_hang",
        sentence=f"the download stands still at {progress_of(meter)} for {duration(meter.quiet)}",
        fault="host",
        remedy=_ANOTHER_HOST,
    )


def download_slow(
    meter: DownloadMeter, *, elapsed: float, left: float, allowed: float
) -> Diagnosis:
    """At this rate the download needs `left` seconds and has `allowed`."""
    return Diagnosis(
        pattern="download_slow",
        sentence=(
            f"the download is too slow: {progress_of(meter)} after {duration(elapsed)} at "
            f"{size(meter.rate)}/s would take {duration(left)} more, and "
            f"{duration(max(allowed, 0))} are left"
        ),
        fault="host",
        remedy=_MORE_TIME,
    )


def wrong_model(found: ModelInfo, model: str, max_model_len: int) -> Diagnosis:
    """The endpoint serves something else than the profile says."""
    return Diagnosis(
        pattern="wrong_model",
        sentence=(
            f"the endpoint serves {', '.join(found.ids)} with {found.max_model_len} tokens, and "
            f"{model} with {max_model_len} was meant"
        ),
        fault="configuration",
        remedy="correct served_model_name and max_model_len in the profile",
    )


def completion_refused(answer: Refused) -> Diagnosis:
    """The same request would be refused in the same way later."""
    return diagnose(answer.text, SERVER, serving=True) or Diagnosis(
        pattern="completion_refused",
        sentence=f"the model is there and completes nothing: {answer}",
        fault="configuration",
        remedy="take another image, or correct the vLLM options",
    )


def open_route(path: str, status: int, who: str, *, stopped: bool) -> Diagnosis:
    """The endpoint answers `who` has no right to an answer; `stopped` is what came of that."""
    fate = "it was stopped" if stopped else "it could not be stopped"
    return Diagnosis(
        pattern="open_route",
        sentence=f"the endpoint answers {path} with {status} to {who}, so {fate}",
        fault="platform",
        remedy=(
            "run `pulumi up` again, which pushes the key gate anew"
            if stopped
            else "run `pulumi destroy` at once"
        ),
    )


def late(
    stage: StageName | None, limit: float, *, meter: DownloadMeter, doing: str, last_answer: object
) -> Diagnosis:
    """A stage, or all of them together, took longer than `limit` seconds."""
    within = f"within {duration(limit)}"
    fault: Fault = "host"
    if stage is None:
        sentence = "no server was started"
    elif stage == "download":
        sentence = f"the weights were not there {within} ({progress_of(meter)})"
    elif stage in {"load", "compile", "graphs"}:
        sentence = f"not done {within}, still {doing}"
    elif stage == "model":
        sentence, fault = f"no list of models {within}: {last_answer}", "platform"
    else:
        what = {"server": "no answer", "completion": "no completion"}.get(stage, "no refusal")
        sentence = f"{what} {within}: {last_answer}"
    return Diagnosis(
        pattern=f"{stage or 'host'}_late", sentence=sentence, fault=fault, remedy=_MORE_TIME
    )


def busy_or_hangs(late: Diagnosis, error: Diagnosis | None) -> Diagnosis:
    """Take the blame off the machine of a server that served before; `error` is in its log."""
    hint = f" (its log has an error: {error.sentence})" if error else ""
    return dataclasses.replace(
        late, sentence=late.sentence + hint, fault="platform", remedy=_BUSY_OR_HANGS
    )


def asked_too_much(late: Diagnosis) -> Diagnosis:
    """Take the blame off the machine of a server that says it is busy."""
    return dataclasses.replace(late, fault="platform", remedy=_ASKED_TOO_MUCH)


def not_blamed(found: Diagnosis) -> Diagnosis:
    """Take the blame off a machine whose server was found ready before."""
    if found.fault != "host":
        return found
    return dataclasses.replace(found, fault="platform", remedy=_STARTS_ANEW)


def progress_of(meter: DownloadMeter) -> str:
    """`1.3 GB of 121.0 GB`."""
    return f"{size(meter.size)} of {size(meter.expected)}"
