"""What may be asked of an endpoint, and how it answers.

Apart from `endpoint.py`: a program that asks nothing need not load the HTTP library.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, Protocol

ANSWER_TIMEOUT = 12.0
"""Seconds for a whole answer, connection and all. A server that has warmed up needs less for one
token, and a client that waits no longer than this can say every few seconds that it waits."""

PATIENT_TIMEOUT = 45.0
"""Seconds for a whole answer of a server that has clients: who gives up earlier and asks again
loses the place in its queue."""

MOST_BYTES = 4_194_304
"""Of an answer; vLLM's metrics are the longest, with some hundred KB."""

Reason = Literal["refused", "timed_out", "certificate", "closed", "flooded", "garbled"]

_REASONS: dict[Reason, str] = {
    "refused": "refuses the connection: nothing listens there",
    "timed_out": "does not answer in time",
    "certificate": "shows another certificate than the pinned one",
    "closed": "breaks the connection off",
    "flooded": f"sends more than {MOST_BYTES / 1e6:.0f} MB",
    "garbled": "sends what is no answer",
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


class EndpointClient(Protocol):
    """What policy may ask of an endpoint."""

    def models(self, key: str) -> ModelInfo | Refused | Unreachable:
        """Ask who serves."""

    def complete(self, key: str, model: str) -> str | Refused | Unreachable:
        """Ask for one token of chat and give its text, which may be empty."""

    def status_of(self, path: str, key: str | None, *, method: str = "GET") -> int | Unreachable:
        """Ask for `path` and give the HTTP status alone."""
