"""guidellm's report of one load, read into strict types. Pure.

The names are those of guidellm 0.8.1. Only what is used is read, within bounds: its figures are
made of what a host has answered, and hosts may answer anything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.core.display import redacted, shown
from components.core.errors import PlatformError
from toolchain.day_two.load.curve import Point, Span, Times, noise

MOST_BYTES = 256_000_000
"""Of a report that is read at all; one of 4000 requests has 16 MB."""

MOST_REQUESTS = 100_000
LONGEST_ERROR = 200
"""Characters of a request's error that are shown."""

EXHAUSTED, TIME_OVER = "requests_exhausted", "max_duration"
"""guidellm's words for what ends a load: its last prompt, or its time."""

SLOW_GENERATOR = "generation_delay_ttft"
"""guidellm's warning that it was slow to make requests."""

DELAY_THAT_COUNTS = 0.1
"""Share of the time to first token above which that warning is passed on; guidellm's is 0.01."""

Figure = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
Moment = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]


class NoReport(PlatformError):
    """guidellm's report of a load cannot be read, or has no answer in it.

    Cost: the machines are billed on; loads before this one are kept.
    Remedy: look at `make status` and `make logs`, then test again.
    """


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class _Percentiles(_Read):
    p50: Figure
    p99: Figure


class _Interval(_Read):
    lower: Annotated[float, Field(allow_inf_nan=False)]
    upper: Annotated[float, Field(allow_inf_nan=False)]


class _Distribution(_Read):
    mean: Figure
    percentiles: _Percentiles
    mean_ci: _Interval | None = None


class _ByOutcome(_Read):
    successful: _Distribution
    total: _Distribution


class _Totals(_Read):
    successful: Annotated[int, Field(ge=0, le=MOST_REQUESTS)]
    errored: Annotated[int, Field(ge=0, le=MOST_REQUESTS)]


class _Metrics(_Read):
    request_totals: _Totals
    requests_per_second: _ByOutcome
    request_latency: _ByOutcome
    prompt_token_count: _ByOutcome
    output_token_count: _ByOutcome
    time_to_first_token_ms: _ByOutcome
    inter_token_latency_ms: _ByOutcome
    output_tokens_per_second: _ByOutcome


class _Timings(_Read):
    first_token_iteration: Moment | None = None
    last_token_iteration: Moment | None = None


class _Info(_Read):
    timings: _Timings
    error: str | None = None


class _Request(_Read):
    info: _Info
    output_tokens: Annotated[int, Field(ge=0, le=10_000_000)] | None = None


Requests = Annotated[tuple[_Request, ...], Field(max_length=MOST_REQUESTS, strict=False)]


class _Requests(_Read):
    successful: Requests
    errored: Requests
    incomplete: Requests


class _Scheduler(_Read):
    end_processing_constraints: dict[str, Any]


class _Warning(_Read):
    code: str
    observed: Figure


class _Benchmark(_Read):
    metrics: _Metrics
    requests: _Requests
    scheduler_state: _Scheduler
    warnings: Annotated[tuple[_Warning, ...], Field(strict=False)] = ()
    start_time: Moment
    end_time: Moment
    duration: Annotated[float, Field(allow_inf_nan=False)]


class _Metadata(_Read):
    guidellm_version: Annotated[str, Field(max_length=40)]


class _Report(_Read):
    metadata: _Metadata
    benchmarks: Annotated[tuple[_Benchmark, ...], Field(min_length=1, max_length=1, strict=False)]


def point_of(content: bytes, load: float, secrets: Sequence[str] = ()) -> tuple[Point, str]:
    """Read a report of one load; give its point and guidellm's version.

    An error of a request may have been a host's words, so `secrets` are taken out of it.

    Raises:
        NoReport: one sentence.
    """
    try:
        report = _Report.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise NoReport(
            shown(f"guidellm's report at a load of {load:g} is none: {where}: {first['msg']}")
        ) from None
    (found,) = report.benchmarks
    return _point(found, load, secrets), shown(report.metadata.guidellm_version)


def _point(found: _Benchmark, load: float, secrets: Sequence[str]) -> Point:
    metrics = found.metrics
    answered = metrics.request_totals.successful
    tokens = metrics.output_tokens_per_second.total.mean
    if not answered or found.duration <= 0 or tokens <= 0:
        raise NoReport(_without_answer(found, load, secrets))
    latency = metrics.request_latency.successful
    return Point(
        load=load,
        seconds=found.duration,
        answered=answered,
        failed=len(found.requests.errored),
        prompt_tokens=metrics.prompt_token_count.successful.mean,
        answer_tokens=metrics.output_token_count.successful.mean,
        requests_per_second=metrics.requests_per_second.successful.mean,
        tokens_per_second=tokens,
        tokens_noise=noise(_spans(found.requests), found.start_time, found.end_time),
        first_token=_times(metrics.time_to_first_token_ms.successful),
        token=_times(metrics.inter_token_latency_ms.successful),
        request=_times(latency, 1000.0),
        ran_out=_ran_out(found.scheduler_state.end_processing_constraints),
        late_generator=any(
            one.code == SLOW_GENERATOR and one.observed > DELAY_THAT_COUNTS
            for one in found.warnings
        ),
    )


def _ran_out(ended_by: dict[str, Any]) -> bool:
    return EXHAUSTED in ended_by and TIME_OVER not in ended_by


def _times(found: _Distribution, factor: float = 1.0) -> Times:
    interval = found.mean_ci
    half = (interval.upper - interval.lower) / 2 if interval else None
    return Times(
        p50=found.percentiles.p50 * factor,
        p99=found.percentiles.p99 * factor,
        mean=found.mean * factor,
        noise=None if half is None or half < 0 or math.isinf(half) else half * factor,
    )


def _spans(requests: _Requests) -> list[Span]:
    spans = []
    for one in (*requests.successful, *requests.incomplete):
        first, last = one.info.timings.first_token_iteration, one.info.timings.last_token_iteration
        if first is not None and one.output_tokens:
            end = max(first, last if last is not None else first)
            spans.append(Span(first=first, last=end, tokens=one.output_tokens))
    return spans


def _without_answer(found: _Benchmark, load: float, secrets: Sequence[str]) -> str:
    errors = [one.info.error for one in found.requests.errored if one.info.error]
    cause = "; none of them failed, so each takes longer than the load: raise EACH"
    if errors:
        first = redacted(shown(errors[0]), secrets)[:LONGEST_ERROR]
        cause = f"; {len(errors)} failed, the first with {first}"
    return f"no request at a load of {load:g} got a whole answer after the warm-up{cause}"
