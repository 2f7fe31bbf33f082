"""A closed loop of clients against an endpoint: each asks again as soon as it has its answer.

Prompts are random tokens, and answers always reach their length (`ignore_eos`). So two runs of a
load do the same work. The results have the names of `vllm bench serve`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import random
import re
import statistics
import time
from collections.abc import Sequence
from typing import Any

import httpx

from components.core.bounded_http import public_trust, trust
from components.core.errors import ConfigurationError, PlatformError

WARM_UPS = 8
"""Requests before a load's clock starts, or as many as it has clients."""

DEFAULT_SHAPE = (1024, 256)
"""Tokens in and out of a load that does not name them."""

ANSWER_SECONDS = 300.0
"""How long one answer may stay silent."""

_WORDS = "the quick brown fox jumps over lazy dogs while nine wizards draw maps of a quiet river "
_TEXT = _WORDS + "0123456789 abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_FEWEST_TOKENS = 16


class EndpointRefuses(PlatformError):
    """The endpoint does not answer a measurement as vLLM does.

    Cost: the machine is billed on; the measurement ends.
    Remedy: look at the server's log, then measure again.
    """


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """Where to ask. `certificate` is a PEM that is trusted alone, or empty for the system's."""

    url: str
    """Without `/v1`."""
    key: str = dataclasses.field(repr=False)
    model: str
    certificate: str = ""
    client_certificate: str = dataclasses.field(default="", repr=False)
    """PEM of certificate and key to show; empty where none is asked for."""


@dataclasses.dataclass(frozen=True)
class Load:
    """So many clients at a time, until so many requests have their answer."""

    clients: int
    requests: int
    tokens_in: int
    tokens_out: int

    @property
    def name(self) -> str:
        """The load in words."""
        return f"{self.clients} client{'s' if self.clients > 1 else ''}, {self.tokens_in} tokens in"

    @property
    def file_name(self) -> str:
        """The name of its result."""
        return f"c{self.clients}_i{self.tokens_in}_o{self.tokens_out}.json"


@dataclasses.dataclass(frozen=True)
class Answer:
    """One request's answer: seconds from the request, and tokens as the server counts them."""

    first: float
    whole: float
    tokens_in: int
    tokens_out: int


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The results of a load."""

    load: Load
    seconds: float
    answers: tuple[Answer, ...]
    failed: int
    is_cut: bool
    """True if its time was over before all requests had their answer."""
    failure: str = ""
    """The error of the first failed request; empty if none failed."""


def load_of(text: str) -> Load:
    """Read a load: `64:192` or `16:48:8192:256`, as CLIENTS:REQUESTS[:TOKENS_IN:TOKENS_OUT].

    Raises:
        ConfigurationError: if it is none.
    """
    parts = text.split(":")
    numbers = [int(part) for part in parts if re.fullmatch(r"[0-9]{1,9}", part)]
    if len(numbers) != len(parts) or len(parts) not in (2, 4) or 0 in numbers:
        raise ConfigurationError(
            f"{text!r} is no load: write CLIENTS:REQUESTS or CLIENTS:REQUESTS:TOKENS_IN:TOKENS_OUT"
        )
    shape = (numbers[2], numbers[3]) if len(numbers) > 2 else DEFAULT_SHAPE  # noqa: PLR2004
    return Load(numbers[0], numbers[1], *shape)


def result(outcome: Outcome, at: str) -> dict[str, Any]:
    """Give a load's result under the names of `vllm bench serve`. `at` is its date."""
    answers = outcome.answers
    tokens = sum(answer.tokens_out for answer in answers)
    times = {
        "ttft": [answer.first for answer in answers],
        "tpot": [
            (answer.whole - answer.first) / (answer.tokens_out - 1)
            for answer in answers
            if answer.tokens_out > 1
        ]
        or [0.0],
        "e2el": [answer.whole for answer in answers],
    }
    content: dict[str, Any] = {
        "date": at,
        "num_prompts": len(answers) + outcome.failed,
        "max_concurrency": outcome.load.clients,
        "duration": outcome.seconds,
        "completed": len(answers),
        "failed": outcome.failed,
        "total_input_tokens": sum(answer.tokens_in for answer in answers),
        "total_output_tokens": tokens,
        "output_throughput": tokens / outcome.seconds,
        "request_throughput": len(answers) / outcome.seconds,
    }
    for name, seconds in times.items():
        content[f"mean_{name}_ms"] = statistics.mean(seconds) * 1000
        content[f"p50_{name}_ms"] = percentile(seconds, 0.5) * 1000
        content[f"p99_{name}_ms"] = percentile(seconds, 0.99) * 1000
    return content


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie, evenly between two of them."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * share
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return low + (high - low) * (place - math.floor(place))


class Clients:
    """Plays loads against one endpoint."""

    def __init__(self, endpoint: Endpoint, *, seed: int = 0) -> None:
        """`seed` decides the prompts: with another one, no prompt is in the prefix cache."""
        self._endpoint = endpoint
        self._random = random.Random(seed)  # noqa: S311  (prompts, not secrets)
        self._vocabulary: list[int] = []

    async def play(self, load: Load, limit: float) -> Outcome:
        """Warm up, then play a load for at most `limit` seconds, the warm-up counted in.

        Raises:
            EndpointRefuses: if not one request got an answer in that time.
        """
        begun = time.monotonic()
        async with self._http(load.clients) as http:
            self._vocabulary = self._vocabulary or await self._ask_vocabulary(http)
            warm = dataclasses.replace(load, requests=min(WARM_UPS, load.clients))
            warm_up = await self._loop(http, warm, begun + limit)
            _raise_if_none(warm_up)
            outcome = await self._loop(http, load, begun + limit)
        _raise_if_none(outcome)
        return outcome

    async def version(self) -> str:
        """Ask the server which vLLM it is.

        Raises:
            EndpointRefuses: if it does not say.
        """
        async with self._http(1) as http:
            answer = await self._request(http, "GET", "/version")
        return str(answer.get("version", "")).partition("+")[0]

    async def round_trip(self) -> float:
        """Median seconds of the way there and back, on a connection that stands."""
        times = []
        async with self._http(1) as http:
            for _ in range(6):
                begun = time.monotonic()
                await self._request(http, "GET", "/version")
                times.append(time.monotonic() - begun)
        return statistics.median(times[1:])

    def _http(self, clients: int) -> httpx.AsyncClient:
        pem = self._endpoint.certificate
        return httpx.AsyncClient(
            base_url=self._endpoint.url,
            headers={"authorization": f"Bearer {self._endpoint.key}"},
            verify=trust(pem, self._endpoint.client_certificate) if pem else public_trust(),
            limits=httpx.Limits(max_connections=clients, max_keepalive_connections=clients),
            timeout=httpx.Timeout(ANSWER_SECONDS, pool=None),
            trust_env=False,
        )

    async def _request(
        self, http: httpx.AsyncClient, method: str, path: str, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        try:
            answer = await http.request(method, path, json=body)
            answer.raise_for_status()
            return dict(answer.json())
        except (httpx.HTTPError, ValueError) as error:
            raise EndpointRefuses(
                f"the endpoint does not answer {path} as vLLM does: {_described(error)}"
            ) from None

    async def _ask_vocabulary(self, http: httpx.AsyncClient) -> list[int]:
        """Tokens that the model has, whichever it is."""
        body = {"model": self._endpoint.model, "prompt": _TEXT}
        answer = await self._request(http, "POST", "/tokenize", body)
        tokens = sorted({int(token) for token in answer.get("tokens", [])})
        if len(tokens) < _FEWEST_TOKENS:
            raise EndpointRefuses(
                f"the endpoint's /tokenize gives {len(tokens)} different tokens for a text of "
                f"{len(_TEXT)} characters: prompts cannot be made of them"
            )
        return tokens

    async def _loop(self, http: httpx.AsyncClient, load: Load, deadline: float) -> Outcome:
        """Play a load until its requests are answered or its time is over."""
        prompts = (self._prompt(load.tokens_in) for _ in range(load.requests))
        answers: list[Answer] = []
        failures: list[str] = []
        begun = time.monotonic()

        async def client() -> None:
            for prompt in prompts:
                try:
                    answers.append(await self._complete(http, prompt, load.tokens_out))
                except (httpx.HTTPError, ValueError) as error:
                    failures.append(_described(error))

        clients = [asyncio.create_task(client()) for _ in range(load.clients)]
        _, late = await asyncio.wait(clients, timeout=max(0.0, deadline - begun))
        seconds = time.monotonic() - begun
        for task in late:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        first = failures[0] if failures else ""
        return Outcome(load, seconds, tuple(answers), len(failures), bool(late), first)

    def _prompt(self, tokens: int) -> list[int]:
        return self._random.choices(self._vocabulary, k=tokens)

    async def _complete(self, http: httpx.AsyncClient, prompt: list[int], tokens: int) -> Answer:
        """Ask for one completion, streamed.

        Raises:
            httpx.HTTPError: the connection broke, or the server refuses.
            ValueError: the answer is not as long as it has to be.
        """
        body = {
            "model": self._endpoint.model,
            "prompt": prompt,
            "max_tokens": tokens,
            "temperature": 1.0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        begun = time.monotonic()
        first = last = 0.0
        usage: dict[str, Any] = {}
        async with http.stream("POST", "/v1/completions", json=body) as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                event = _event(line)
                if event.get("choices"):
                    last = time.monotonic()
                    first = first or last
                usage = event.get("usage") or usage
        written = int(usage.get("completion_tokens", 0))
        if written != tokens:
            raise ValueError(f"{written} tokens instead of {tokens}")
        return Answer(first - begun, last - begun, int(usage.get("prompt_tokens", 0)), written)


def _described(error: Exception) -> str:
    """An error of a request in few words: its status, or its kind."""
    if isinstance(error, httpx.HTTPStatusError):
        return f"status {error.response.status_code}"
    return " ".join(f"{type(error).__name__} {error}".split())


def _event(line: str) -> dict[str, Any]:
    data = line.removeprefix("data:").strip()
    return dict(json.loads(data)) if line.startswith("data:") and data != "[DONE]" else {}


def _raise_if_none(outcome: Outcome) -> None:
    if outcome.answers:
        return
    load = outcome.load
    met = f"; the first of {outcome.failed} that failed met {outcome.failure}"
    raise EndpointRefuses(
        f"no request of {load.tokens_in} tokens got an answer of {load.tokens_out} tokens in "
        f"{outcome.seconds:.0f} s{met if outcome.failed else ''}"
    )
