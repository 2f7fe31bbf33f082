"""What may be asked of an endpoint, and how it answers.

Apart from `endpoint.py`: a program that asks nothing need not load the HTTP library.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, Protocol

ANSWER_TIMEOUT = 12.0
"""Seconds for a whole answer, with the connection. A warmed-up server needs less for one token. The
short wait lets a client report progress every few seconds.
"""

PATIENT_TIMEOUT = 45.0
"""Seconds for a whole answer of a server that has clients. A client that gives up earlier and asks
again loses its place in the queue.
"""

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

        The end of a request is no work, since its client may have given up.
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
    """The questions that policy may ask an endpoint."""

    def models(self, key: str) -> ModelInfo | Refused | Unreachable:
        """Ask who serves."""

    def complete(self, key: str, model: str) -> str | Refused | Unreachable:
        """Ask for one token of chat and give its text, which may be empty."""

    def status_of(self, path: str, key: str | None, *, method: str = "GET") -> int | Unreachable:
        """Ask for `path` and give the HTTP status alone."""
