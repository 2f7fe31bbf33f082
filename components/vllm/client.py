"""The client of the endpoint over HTTP, as any other client uses it: one question a call, no retry.

A failure is an answer as well (`Refused`, `Unreachable`). The policy asks before the server is up,
and must distinguish a port that refuses from a silent port. The host is a stranger. Whatever it
sends, and for however long, one of these answers comes back in time.
"""

from __future__ import annotations

import http
import json
import math
import re
import ssl
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

import httpcore2
from pydantic import BaseModel, ConfigDict, Field

from components.core.bounded import Budget, OutOfTime, TooMuch
from components.core.bounded_http import Answer, exchange, trust
from components.core.clock import Clock
from components.core.display import redacted, shown
from components.core.errors import causes
from components.vllm.client_types import (
    ANSWER_TIMEOUT,
    MOST_BYTES,
    ModelInfo,
    Reason,
    Refused,
    Traffic,
    Unreachable,
)

CONNECT_TIMEOUT = 5.0
"""Seconds for the connection, TLS included."""

LONGEST_QUOTE = 300
"""Characters of a refusal that are kept."""

LONGEST_NAME = 500
"""Characters of a name in an answer, such as a model's."""

MOST_COUNTED = 2**53
"""Counters above this are none: no server has had so many requests or tokens."""

RUNNING = "vllm:num_requests_running"
WAITING = "vllm:num_requests_waiting"
ENDED = "vllm:request_success_total"
READ = "vllm:prompt_tokens_total"
WRITTEN = "vllm:generation_tokens_total"
"""Names of vLLM's counters, one sample for each engine and reason."""

NO_COUNTS = "its metrics show no counts of its requests"

_COUNTERS = frozenset({RUNNING, WAITING, ENDED, READ, WRITTEN})
_SAMPLE = re.compile(
    r"(?P<name>[a-z_:]+)(?:\{.*\})?[ \t]+(?P<value>[0-9.eE+-]{1,32})(?:[ \t]+\d{1,20})?"
)
"""A line of metrics; vLLM writes floats, with a moment behind them or none."""

T = TypeVar("T")
_R = TypeVar("_R", bound="_Read")


class Endpoint:
    """`EndpointClient` over HTTP or HTTPS. Holds no connection, so there is nothing to close."""

    def __init__(
        self,
        base_url: str,
        certificate: str | None = None,
        *,
        identity: str = "",
        connect_timeout: float = CONNECT_TIMEOUT,
        answer_timeout: float = ANSWER_TIMEOUT,
        clock: Clock,
        network: httpcore2.NetworkBackend | None = None,
    ) -> None:
        """Speak to `base_url` (without `/v1`), trusting `certificate` (PEM) and nobody else.

        `answer_timeout` is for a whole answer, by the `clock`; `network` makes the connections.
        """
        self._base_url = base_url
        self._connect_timeout = connect_timeout
        self._answer_timeout = answer_timeout
        self._clock = clock
        self._network = network
        self._tls = trust(certificate or "", identity)

    def __repr__(self) -> str:
        return f"Endpoint({self._base_url!r})"

    def models(self, key: str) -> ModelInfo | Refused | Unreachable:
        """Ask `/v1/models`; see `EndpointClient`."""
        return self._asked("GET", "/v1/models", key, _model_info)

    def complete(self, key: str, model: str) -> str | Refused | Unreachable:
        """Ask `/v1/chat/completions` for one token; see `EndpointClient`."""
        question = {
            "model": model,
            "messages": [{"role": "user", "content": "Say yes."}],
            "max_tokens": 1,
            "temperature": 0.0,
        }
        return self._asked("POST", "/v1/chat/completions", key, _text, question)

    def traffic(self, key: str) -> Traffic | Refused | Unreachable:
        """Ask `/metrics` for the requests (vllm reference, 2.5; all engines together).

        Metrics without these counters are `Refused`, since they do not show that no client asks.
        """
        counts = self._asked("GET", "/metrics", key, _counts)
        if isinstance(counts, Refused | Unreachable):
            return counts
        return _traffic(counts) if RUNNING in counts else Refused(http.HTTPStatus.OK, NO_COUNTS)

    def metrics(self, key: str) -> str | Refused | Unreachable:
        """Ask `/metrics` for everything that it shows, as the host writes it."""
        return self._asked("GET", "/metrics", key, lambda body: body.decode(errors="replace"))

    def status_of(self, path: str, key: str | None, *, method: str = "GET") -> int | Unreachable:
        """Ask for `path`, a POST with an empty JSON object; see `EndpointClient`."""
        answer = self._ask(method, path, key, {} if method == "POST" else None)
        return answer if isinstance(answer, Unreachable) else answer.status

    def _asked(
        self,
        method: str,
        path: str,
        key: str,
        read: Callable[[bytes], T],
        body: dict[str, Any] | None = None,
    ) -> T | Refused | Unreachable:
        """Ask, and read a good answer; quote any other."""
        answer = self._ask(method, path, key, body)
        if isinstance(answer, Unreachable):
            return answer
        if answer.status != http.HTTPStatus.OK:
            return _refused(answer, key)
        try:
            return read(answer.body)
        except ValueError:
            return _refused(answer, key)

    def _ask(
        self, method: str, path: str, key: str | None, body: dict[str, Any] | None = None
    ) -> Answer | Unreachable:
        """Send one request; the only place that turns a host's bytes into an answer or a reason."""
        headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            return exchange(
                method,
                self._base_url + path,
                Budget(self._clock, self._answer_timeout, MOST_BYTES),
                headers=headers,
                content=json.dumps(body).encode() if body is not None else None,
                tls=self._tls,
                connect_timeout=self._connect_timeout,
                network=self._network,
            )
        except Exception as error:  # noqa: BLE001  (a stranger's bytes may bring libraries to any)
            return Unreachable(_reason(error))


class _Read(BaseModel):
    """Part of an answer, read as it must be: numbers are numbers and texts are texts."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


_Name = Annotated[str, Field(max_length=LONGEST_NAME)]


class _Model(_Read):
    id: _Name
    max_model_len: int | None = Field(default=None, ge=0, le=2**40)
    root: _Name | None = None


class _Models(_Read):
    data: list[_Model] = Field(min_length=1, max_length=100)


class _Message(_Read):
    content: str | None = None
    reasoning: str | None = None


class _Choice(_Read):
    message: _Message


class _Completion(_Read):
    choices: list[_Choice] = Field(min_length=1, max_length=100)


def _read(kind: type[_R], body: bytes) -> _R:
    """Read JSON into `kind`.

    Raises:
        ValueError: if it is anything else; `ValidationError` is one.
    """
    return kind.model_validate_json(body)


def _refused(answer: Answer, key: str) -> Refused:
    # Clean the text first: a key with a control character inside would not be found.
    text = shown(answer.body[: 100 * LONGEST_QUOTE].decode(errors="replace"))
    return Refused(answer.status, redacted(" ".join(text.split()), [key])[:LONGEST_QUOTE])


def _model_info(body: bytes) -> ModelInfo:
    models = _read(_Models, body).data
    return ModelInfo(
        ids=tuple(shown(model.id) for model in models),
        max_model_len=models[0].max_model_len or 0,
        root=shown(models[0].root or ""),
    )


def _text(body: bytes) -> str:
    # One token of a reasoning model is a part of its reasoning, or empty.
    message = _read(_Completion, body).choices[0].message
    return shown(message.content or message.reasoning or "")


def _counts(body: bytes) -> dict[str, int]:
    """Sum up vLLM's counters over engines and reasons.

    Raises:
        ValueError: if a counter is no count.
    """
    sums: dict[str, int] = {}
    for line in body.decode(errors="replace").split("\n"):
        name = re.split(r"[{ \t]", line, maxsplit=1)[0]
        if name not in _COUNTERS:
            continue
        sample = _SAMPLE.fullmatch(line.rstrip())
        value = float(sample["value"]) if sample else math.nan
        if not 0 <= value <= MOST_COUNTED:
            raise ValueError(name)
        sums[name] = sums.get(name, 0) + int(value)
    return sums


def _traffic(sums: Mapping[str, int]) -> Traffic:
    return Traffic(
        under_way=sums.get(RUNNING, 0) + sums.get(WAITING, 0),
        ended=sums.get(ENDED, 0),
        tokens=sums[READ] + sums[WRITTEN] if {READ, WRITTEN} <= sums.keys() else None,
    )


def _reason(error: Exception) -> Reason:
    if isinstance(error, OutOfTime | httpcore2.TimeoutException):
        return "timed_out"
    if isinstance(error, TooMuch):
        return "flooded"
    found = list(causes(error))
    if any(isinstance(cause, ConnectionRefusedError) for cause in found):
        return "refused"
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in found):
        return "certificate"
    known = isinstance(error, httpcore2.NetworkError | httpcore2.ProtocolError)
    return "closed" if known else "garbled"
