"""The door to the endpoint over HTTP, as a client would use it: each call one question, no retry.

What goes wrong is an answer as well (`Refused`, `Unreachable`): the policy asks before the server
is up and must tell a port that refuses from one that stays silent.
"""

from __future__ import annotations

import dataclasses
import ssl
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Protocol, TypeVar

import httpx
from prometheus_client.parser import text_string_to_metric_families

from components.redaction import redacted

CONNECT_TIMEOUT = 5.0
"""Seconds for the connection, TLS included."""

ANSWER_TIMEOUT = 12.0
"""Seconds for an answer. A server that has warmed up needs less for one token, and a client that
waits no longer than this can say every few seconds that it waits."""

PATIENT_TIMEOUT = 45.0
"""Seconds for an answer of a server that has clients: who gives up earlier and asks again loses
the place in its queue."""

LONGEST_QUOTE = 300
"""Characters of a refusal that are kept."""

RUNNING = "vllm:num_requests_running"
WAITING = "vllm:num_requests_waiting"
ENDED = "vllm:request_success_total"
READ = "vllm:prompt_tokens_total"
WRITTEN = "vllm:generation_tokens_total"
"""Names of vLLM's counters, one sample for each engine and reason."""

NO_COUNTS = "its metrics show no counts of its requests"

_COUNTERS = frozenset({RUNNING, WAITING, ENDED, READ, WRITTEN})

T = TypeVar("T")

Reason = Literal["refused", "timed_out", "certificate", "closed"]

_REASONS: dict[Reason, str] = {
    "refused": "refuses the connection: nothing listens there",
    "timed_out": "does not answer in time",
    "certificate": "shows another certificate than the pinned one",
    "closed": "breaks the connection off",
}


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """What `/v1/models` says."""

    ids: tuple[str, ...]
    """The names it serves the model under; the first one is its own."""
    max_model_len: int
    """Tokens of context; 0 where the server does not say."""
    root: str
    """The repository or folder that it was started with."""

    @property
    def id(self) -> str:
        """The first name."""
        return self.ids[0]


@dataclasses.dataclass(frozen=True)
class Traffic:
    """What vLLM's own counters say of requests."""

    under_way: int
    """Running and waiting."""
    ended: int
    """Since the server started."""
    tokens: int | None = None
    """Read and written since then; None where the server keeps no count of them."""

    def stands_as(self, later: Traffic) -> bool:
        """Whether nothing was done between this look and a later one.

        Requests that end are no work: those of clients that gave up are among them.
        """
        return self.tokens is not None and self.tokens == later.tokens


@dataclasses.dataclass(frozen=True)
class Refused:
    """An answer other than 200, or one that is not what the route promises."""

    status: int
    text: str

    def __str__(self) -> str:
        return f"the endpoint answers {self.status}: {self.text}"


@dataclasses.dataclass(frozen=True)
class Unreachable:
    """No answer."""

    reason: Reason

    def __str__(self) -> str:
        return f"the endpoint {_REASONS[self.reason]}"


class EndpointDoor(Protocol):
    """What policy may ask of an endpoint."""

    def models(self, key: str) -> ModelInfo | Refused | Unreachable:
        """Ask who serves."""

    def complete(self, key: str, model: str) -> str | Refused | Unreachable:
        """Ask for one token of chat and give its text, which may be empty."""

    def status_of(self, path: str, key: str | None, *, method: str = "GET") -> int | Unreachable:
        """Ask for `path` and give the HTTP status alone."""


class Endpoint:
    """`EndpointDoor` over HTTP or HTTPS. Holds no connection, so there is nothing to close."""

    def __init__(
        self,
        base_url: str,
        certificate: str | None = None,
        *,
        connect_timeout: float = CONNECT_TIMEOUT,
        answer_timeout: float = ANSWER_TIMEOUT,
    ) -> None:
        """Speak to `base_url` (without `/v1`), trusting `certificate` (PEM) alone if given."""
        self._base_url = base_url
        self._timeout = httpx.Timeout(answer_timeout, connect=connect_timeout)
        self._tls = ssl.create_default_context(cadata=certificate or None)

    def __repr__(self) -> str:
        return f"Endpoint({self._base_url!r})"

    def models(self, key: str) -> ModelInfo | Refused | Unreachable:
        """Ask `/v1/models`; see `EndpointDoor`."""
        answer = self._ask("GET", "/v1/models", key)
        if isinstance(answer, Unreachable):
            return answer
        return _checked(answer, key, _model_info)

    def complete(self, key: str, model: str) -> str | Refused | Unreachable:
        """Ask `/v1/chat/completions` for one token; see `EndpointDoor`."""
        question = {
            "model": model,
            "messages": [{"role": "user", "content": "Say yes."}],
            "max_tokens": 1,
            "temperature": 0.0,
        }
        answer = self._ask("POST", "/v1/chat/completions", key, question)
        if isinstance(answer, Unreachable):
            return answer
        return _checked(answer, key, _text)

    def traffic(self, key: str) -> Traffic | Refused | Unreachable:
        """Ask `/metrics` for the requests (reference: vLLM's counters, all engines together).

        Metrics without them are `Refused`: whoever counts nothing does not say that nobody asks.
        """
        answer = self._ask("GET", "/metrics", key)
        if isinstance(answer, Unreachable):
            return answer
        if answer.status_code != httpx.codes.OK:
            return _refused(answer, key)
        try:
            counts = _counts(answer.text)
        except ValueError:
            return _refused(answer, key)
        return _traffic(counts) if RUNNING in counts else Refused(answer.status_code, NO_COUNTS)

    def status_of(self, path: str, key: str | None, *, method: str = "GET") -> int | Unreachable:
        """Ask for `path`, a POST with an empty JSON object; see `EndpointDoor`."""
        answer = self._ask(method, path, key, {} if method == "POST" else None)
        return answer if isinstance(answer, Unreachable) else answer.status_code

    def _ask(
        self, method: str, path: str, key: str | None, body: dict[str, Any] | None = None
    ) -> httpx.Response | Unreachable:
        headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
        # No proxy from the environment: the key goes to the endpoint and nowhere else.
        with httpx.Client(verify=self._tls, timeout=self._timeout, trust_env=False) as client:
            try:
                return client.request(method, self._base_url + path, headers=headers, json=body)
            except httpx.TransportError as error:
                return Unreachable(_reason(error))


def _checked(answer: httpx.Response, key: str, read: Callable[[Any], T]) -> T | Refused:
    if answer.status_code != httpx.codes.OK:
        return _refused(answer, key)
    try:
        return read(answer.json())
    except (ValueError, KeyError, IndexError, TypeError):
        return _refused(answer, key)


def _refused(answer: httpx.Response, key: str) -> Refused:
    text = " ".join(answer.text.split())
    return Refused(answer.status_code, redacted(text, [key])[:LONGEST_QUOTE])


def _model_info(body: Any) -> ModelInfo:
    models = body["data"]
    return ModelInfo(
        ids=tuple(str(model["id"]) for model in models),
        max_model_len=int(models[0].get("max_model_len") or 0),
        root=str(models[0].get("root") or ""),
    )


def _text(body: Any) -> str:
    # One token of a model that reasons is a part of its reasoning, or of nothing.
    message = body["choices"][0]["message"]
    return str(message.get("content") or message.get("reasoning") or "")


def _counts(text: str) -> dict[str, int]:
    sums: dict[str, int] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in _COUNTERS:
                sums[sample.name] = sums.get(sample.name, 0) + int(sample.value)
    return sums


def _traffic(sums: Mapping[str, int]) -> Traffic:
    return Traffic(
        under_way=sums.get(RUNNING, 0) + sums.get(WAITING, 0),
        ended=sums.get(ENDED, 0),
        tokens=sums[READ] + sums[WRITTEN] if {READ, WRITTEN} <= sums.keys() else None,
    )


def _reason(error: httpx.TransportError) -> Reason:
    if isinstance(error, httpx.TimeoutException):
        return "timed_out"
    causes = list(_causes(error))
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return "refused"
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return "certificate"
    return "closed"


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
