"""What a check asks with: as a client does, with the `openai` package.

The host that answers is a stranger, so each answer has a budget, and all of them have one.
"""

from __future__ import annotations

import dataclasses

import httpx2
import openai

from components.core.bounded import Budget
from components.core.bounded_http import BoundedTransport, trust
from components.core.clock import Clock
from components.smoke_test.target import Target

CONNECT_TIMEOUT = 10.0
"""Seconds for the connection, TLS included."""

ANSWER_TIMEOUT = 180.0
"""Seconds without a byte of an answer; one with a trace comes whole, after thousands of tokens."""

LONGEST_ANSWER = 300.0
"""Seconds for a whole answer, from the connection to the last byte."""

LONGEST_RUN = 1800.0
"""Seconds for all checks together; a server that needs more fails those that are left."""

MOST_BYTES = 2_097_152
"""Of one answer; the longest is a stream of some hundred KB."""


@dataclasses.dataclass(frozen=True)
class Client:
    """What a check asks with."""

    ai: openai.OpenAI
    http: httpx2.Client
    """For routes that are none of the OpenAI API's."""
    target: Target
    clock: Clock


def connect(target: Target, clock: Clock, transport: httpx2.BaseTransport | None = None) -> Client:
    """Build the client: the pinned certificate, no proxy from the environment, no repetition."""
    until = clock.monotonic() + LONGEST_RUN

    def budget() -> Budget:
        return Budget(clock, min(LONGEST_ANSWER, until - clock.monotonic()), MOST_BYTES)

    http = httpx2.Client(
        trust_env=False,
        transport=transport
        or BoundedTransport(trust(target.certificate, target.client_certificate), budget),
        timeout=httpx2.Timeout(ANSWER_TIMEOUT, connect=CONNECT_TIMEOUT),
    )
    ai = openai.OpenAI(
        base_url=target.url,
        api_key=target.key,
        max_retries=0,
        http_client=http,
        timeout=http.timeout,
    )
    return Client(ai, http, target, clock)
