"""Clients that stream answers without a pause, with a record of each request.

Nothing is repeated: OpenAI's SDK would hide a request that failed, and whether one fails is the
question. So a client asks again only for its next question.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import itertools
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import httpx

from components.core.bounded_http import trust
from toolchain.load_client import Endpoint
from toolchain.scale_out.loopback import until

CLIENTS = 50
QUESTIONS = 6
"""Of a conversation. Then the client begins another."""

SILENCE = 60.0
"""Seconds after which a stream without a word counts as failed."""

AFTER_FAILURE = 0.05
"""Seconds until a client asks again. Without them, an outage would be asked for all CPU."""

CHAT = "/v1/chat/completions"


@dataclasses.dataclass(frozen=True)
class Record:
    """What became of one request. Moments are `time.monotonic()`."""

    client: int
    began: float
    ended: float
    status: int
    """Of HTTP; 0 if no answer began."""
    problem: str
    """In few words; empty if the whole answer came."""

    @property
    def is_failed(self) -> bool:
        """Whether the client has not got its whole answer."""
        return bool(self.problem)

    @property
    def is_cut(self) -> bool:
        """Whether an answer had begun and broke off. Nobody can repeat that request unseen."""
        return self.is_failed and self.status == httpx.codes.OK


@dataclasses.dataclass(frozen=True)
class Tally:
    """What a table says of the requests of a step."""

    made: int
    failed: int
    cut: int
    """Those of the failed ones whose answer had begun and broke off."""
    problems: Mapping[str, int]


def tally(records: Sequence[Record]) -> Tally:
    """Count requests."""
    failed = [one for one in records if one.is_failed]
    return Tally(
        made=len(records),
        failed=len(failed),
        cut=sum(one.is_cut for one in failed),
        problems=dict(collections.Counter(one.problem for one in failed)),
    )


def begun_after(records: Sequence[Record], moment: float) -> list[Record]:
    """Those that began at `moment` or later."""
    return [one for one in records if one.began >= moment]


def silence_after(records: Sequence[Record], moment: float) -> float:
    """Seconds from `moment` until a request began that was answered.

    Infinite if none was, and 0.0 where no request failed that began in between.
    """
    later = begun_after(records, moment)
    answered = [one.began for one in later if not one.is_failed]
    if not answered:
        return float("inf")
    first = min(answered)
    if not any(one.is_failed and one.began < first for one in later):
        return 0.0
    return first - moment


class Streams:
    """The clients, in a thread of their own; a context manager that lets their last answers end."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        clients: int = CLIENTS,
        request: Mapping[str, Any],
        after_failure: float = AFTER_FAILURE,
    ) -> None:
        """`request` has the fields of each request but its model and messages.

        `after_failure` is how many seconds a client waits with its next question after a failure.
        """
        self._endpoint = endpoint
        self._after_failure = after_failure
        self._clients = clients
        self._request = dict(request)
        self._records: list[Record] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self.await_answers()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(2 * SILENCE)

    def use_key(self, key: str) -> None:
        """Ask with another key from the next request on."""
        self._endpoint = dataclasses.replace(self._endpoint, key=key)

    def records(self, since: float = 0.0) -> list[Record]:
        """Requests that have ended since a moment, whenever they began."""
        return [one for one in list(self._records) if one.ended >= since]

    def await_answers(self) -> None:
        """Wait until each client has an answer to a question that it asks from now on.

        Raises:
            NotMeasured: if one has none within a minute.
        """
        now = time.monotonic()
        everybody = set(range(self._clients))
        until(
            lambda: not everybody - {one.client for one in self._answered_since(now)},
            f"an answer for each of {self._clients} clients",
            SILENCE,
        )

    def _answered_since(self, moment: float) -> Iterator[Record]:
        records = begun_after(list(self._records), moment)
        return (one for one in records if not one.is_failed)

    async def _run(self) -> None:
        await asyncio.gather(*(self._client(number) for number in range(self._clients)))

    async def _client(self, number: int) -> None:
        """Hold conversations, one question after the other, on one connection."""
        context = trust(self._endpoint.certificate, self._endpoint.client_certificate)
        async with httpx.AsyncClient(
            verify=context, timeout=httpx.Timeout(SILENCE), trust_env=False
        ) as http:
            for turn in itertools.count():
                if self._stopped.is_set():
                    return
                messages = conversation(number, turn)
                record = await self._ask(http, number, messages)
                self._records.append(record)
                if record.is_failed:
                    await asyncio.sleep(self._after_failure)

    async def _ask(
        self, http: httpx.AsyncClient, number: int, messages: list[dict[str, str]]
    ) -> Record:
        endpoint = self._endpoint
        body = {**self._request, "model": endpoint.model, "messages": messages, "stream": True}
        headers = {"authorization": f"Bearer {endpoint.key}"}
        began = time.monotonic()
        reader = Answer()
        status = 0
        try:
            async with http.stream(
                "POST", f"{endpoint.url}{CHAT}", json=body, headers=headers
            ) as answer:
                status = answer.status_code
                if status == httpx.codes.OK:
                    async for line in answer.aiter_lines():
                        reader.read(line)
            problem = reader.problem if status == httpx.codes.OK else f"status {status}"
        except httpx.HTTPError as error:
            problem = type(error).__name__
        ended = time.monotonic()
        return Record(number, began, ended, status, problem)


class Answer:
    """Reads a stream's lines, and knows whether it has come to its end."""

    def __init__(self) -> None:
        self._reason = ""
        self._is_done = False
        self._error = ""

    def read(self, line: str) -> None:
        """Take the next line."""
        data = line.removeprefix("data:").strip()
        if not line.startswith("data:"):
            return
        if data == "[DONE]":
            self._is_done = True
            return
        event = json.loads(data)
        if "error" in event:
            self._error = "an error within the stream"
        for choice in event.get("choices", ()):
            self._reason = choice.get("finish_reason") or self._reason

    @property
    def problem(self) -> str:
        """Why this is no whole answer; empty if it is one."""
        if self._error:
            return self._error
        return "" if self._is_done and self._reason else "a stream without its end"


def conversation(client: int, turn: int) -> list[dict[str, str]]:
    """The messages of a client's request: the questions so far, with an answer between each two."""
    talk, question = divmod(turn, QUESTIONS)
    messages = [{"role": "system", "content": "Answer in one sentence."}]
    for number in range(question + 1):
        if number:
            messages.append({"role": "assistant", "content": "Yes."})
        text = f"Conversation {talk} of client {client}, question {number}."
        messages.append({"role": "user", "content": text})
    return messages
