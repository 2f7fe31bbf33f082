"""The questions of the smoke test, one function each: given a client, it finds or it fails.

Strict on shapes, tolerant of what the model says: whether an answer is wise is no question here.
What the shapes are is in the reference, vLLM 3.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import httpx2
import openai
from openai.types import CompletionUsage
from openai.types.chat import (
    ChatCompletion,
    ChatCompletionMessage,
    ChatCompletionMessageFunctionToolCall,
    ChatCompletionMessageParam,
    ChatCompletionToolParam,
)

from components.core.clock import Clock
from components.core.errors import StackError
from components.vllm.options.thinking import WAYS, Thinking, asked

LONGEST_ANSWER = 512
"""Tokens; a server with a short context is asked for fewer."""

LONGEST_REASONING = 4096
"""Tokens of trace and answer together: a thorough model thinks for longer than it speaks."""

CANNOT_HELP_IT = "if the model cannot do without one, the profile says so: `thinking: always`"
"""What may be the matter where a model thinks though it is asked not to."""

MOST_TOKENS = 10**9
"""Of a question or an answer; no model's context is nearly as long."""

CALL_ID = re.compile(r"[A-Za-z0-9]{9}")
"""Mistral's rule for the ids of tool calls (reference: vLLM 3)."""

TRACE_MARKS = ("[THINK]", "[/THINK]", "<think>", "</think>")
"""Where a trace begins and ends in a text that no reasoning parser has taken apart."""

WRONG_KEY = "not-a-key-of-this-endpoint"

CLOSED_ROUTE = "/invocations"
"""vLLM's own route for chats without a key; the key gate closes it."""

REFUSALS = (401, 403, 404)

WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}

VERDICT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "answer": {"type": "string", "enum": ["yes", "no"]},
        "certain": {"type": "boolean"},
    },
    "required": ["answer", "certain"],
    "additionalProperties": False,
}


REQUIRED = ("ENDPOINT_URL", "ENDPOINT_KEY", "ENDPOINT_MODEL", "ENDPOINT_MAX_MODEL_LEN")
"""Variables without which nothing can be asked."""


class CheckFailed(StackError):
    """The endpoint answered otherwise than it must; the text says how."""


class NoConnection(CheckFailed):
    """It did not answer at all, so the next check would wait in vain."""


@dataclasses.dataclass(frozen=True)
class Target:
    """Which endpoint is asked, and what it is expected to be."""

    url: str
    """Base URL of the OpenAI API, with `/v1`."""
    key: str = dataclasses.field(repr=False)
    certificate: str
    """PEM to trust, and nothing else; empty without TLS."""
    model: str
    max_model_len: int
    """Tokens."""
    abilities: frozenset[str]
    """Of `vision`, `reasoning` and `tools`; what is not in it is not asked for."""
    mistral_call_ids: bool
    """Whether ids of tool calls are to be nine letters and digits."""
    digest: str = ""
    """Of what is served, for the report; empty if nobody said."""
    client_certificate: str = dataclasses.field(default="", repr=False)
    """PEM of certificate and key to show; empty where none is asked for."""
    thinking: Thinking = "effort"
    """How the model thinks before it answers."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Target:
        """Read `ENDPOINT_URL`, `_KEY`, `_CERTIFICATE`, `_MODEL`, `_MAX_MODEL_LEN`, `_ABILITIES`.

        `ENDPOINT_ABILITIES` has commas between its words; `ENDPOINT_TOOL_CALL_PARSER` is vLLM's
        option of that name, `ENDPOINT_DIGEST` the digest of what is served,
        `ENDPOINT_CLIENT_CERTIFICATE` what a client shows and `ENDPOINT_THINKING` how the model
        thinks. These and the certificate may be missing.

        Raises:
            StackError: naming what is missing, no number or no way of thinking.
        """
        missing = [name for name in REQUIRED if not environment.get(name)]
        if missing:
            raise StackError(f"the environment lacks {', '.join(missing)}")
        length = environment["ENDPOINT_MAX_MODEL_LEN"]
        if not length.isdecimal():
            raise StackError(f"ENDPOINT_MAX_MODEL_LEN is {length!r} and no number of tokens")
        abilities = environment.get("ENDPOINT_ABILITIES", "")
        told = environment.get("ENDPOINT_THINKING", "effort")
        thinking = next((way for way in WAYS if way == told), None)
        if thinking is None:
            raise StackError(f"ENDPOINT_THINKING is {told!r}, which is no way of thinking")
        return cls(
            url=environment["ENDPOINT_URL"].rstrip("/"),
            key=environment["ENDPOINT_KEY"],
            certificate=environment.get("ENDPOINT_CERTIFICATE", ""),
            model=environment["ENDPOINT_MODEL"],
            max_model_len=int(length),
            abilities=frozenset(word for word in abilities.split(",") if word),
            mistral_call_ids=environment.get("ENDPOINT_TOOL_CALL_PARSER") == "mistral",
            digest=environment.get("ENDPOINT_DIGEST", ""),
            client_certificate=environment.get("ENDPOINT_CLIENT_CERTIFICATE", ""),
            thinking=thinking,
        )


@dataclasses.dataclass(frozen=True)
class Client:
    """What a check asks with."""

    ai: openai.OpenAI
    http: httpx2.Client
    """For routes that are none of the OpenAI API's."""
    target: Target
    clock: Clock


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a check found, for the report."""

    detail: str
    measures: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """By name with unit, for the report's top level."""


Check = Callable[[Client], Finding]


def check_model(client: Client) -> Finding:
    """The endpoint names the model, with the context length that was ordered."""
    served = client.ai.models.list().data or []
    known = {one.id: one for one in served}
    target = client.target
    if target.model not in known:
        raise CheckFailed(f"it serves {', '.join(known) or 'nothing'} and not {target.model}")
    length = (known[target.model].model_extra or {}).get("max_model_len")
    if length != target.max_model_len:
        raise CheckFailed(f"its context is {length} tokens and not {target.max_model_len}")
    return Finding(f"{target.model} with {length} tokens of context")


def check_text(client: Client) -> Finding:
    """A question gets an answer in text."""
    answer = _ask(client, "In one short sentence: what are you?", max_tokens=_limit(client, 64))
    return Finding(_answer(answer).shown)


def check_streaming(client: Client) -> Finding:
    """An answer comes in pieces, ends, and says what it used; here speed is measured."""
    started = client.clock.monotonic()
    pieces: list[float] = []
    ended: str | None = None
    usage: CompletionUsage | None = None
    with client.ai.chat.completions.create(
        model=client.target.model,
        messages=[{"role": "user", "content": "Count from one to sixty, in words."}],
        temperature=0.1,
        max_tokens=_limit(client, LONGEST_ANSWER),
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        for chunk in stream:
            usage = chunk.usage or usage
            for choice in chunk.choices or []:
                ended = choice.finish_reason or ended
                delta = choice.delta
                if delta.content or (delta.model_extra or {}).get("reasoning"):
                    pieces.append(client.clock.monotonic())
    if len(pieces) < 2:  # noqa: PLR2004  (one piece is no stream)
        raise CheckFailed(f"the stream had {len(pieces)} pieces of text, so it is none")
    if ended is None:
        raise CheckFailed("the stream broke off without a finish_reason")
    if usage is None or not _is_count(usage.completion_tokens):
        raise CheckFailed("the stream did not end with its usage, though it was asked to")
    return _speed(started, pieces, usage.completion_tokens)


def check_picture(client: Client) -> Finding:
    """A picture is read: it takes prompt tokens that the question alone does not."""
    question = "Which colour is this? One word."
    url = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"
    shown = _ask(
        client,
        [{"type": "text", "text": question}, {"type": "image_url", "image_url": {"url": url}}],
        max_tokens=_limit(client, 32),
    )
    said = _answer(shown)
    blind = _ask(client, [{"type": "text", "text": question}], max_tokens=1)
    took = _usage(shown).prompt_tokens - _usage(blind).prompt_tokens
    if took < 1:
        raise CheckFailed("the picture took no prompt tokens, so the model never saw it")
    return Finding(f"{took} prompt tokens for the picture; {said.shown}")


def check_reasoning_high(client: Client) -> Finding:
    """Where a trace is asked for, or always comes, it comes apart from the answer."""
    answer = _ask(
        client,
        "A bat and a ball cost 1.10 together, the bat 1.00 more than the ball. The ball costs?",
        max_tokens=_limit(client, LONGEST_REASONING),
        wanted=True,
    )
    trace = _trace(_message(answer))
    if not trace:
        raise CheckFailed(f"{_told(client, True)} there is no trace in message.reasoning")
    _check_apart(_message(answer).content or "")
    return Finding(f"a trace of {len(trace)} characters, apart from the answer")


def check_reasoning_none(client: Client) -> Finding:
    """Where no trace is asked for, there is an answer and no trace."""
    question = "How many legs has a cat?"
    try:
        answer = _ask(client, question, max_tokens=_limit(client, 64), wanted=False)
    except openai.BadRequestError as error:
        raise CheckFailed(
            f"{_told(client, False)} it is refused ({error.message}); {CANNOT_HELP_IT}"
        ) from None
    said = _answer(answer)
    if _trace(_message(answer)):
        raise CheckFailed(
            f"{_told(client, False)} there is a trace in message.reasoning; {CANNOT_HELP_IT}"
        )
    _check_apart(said.text)
    return Finding(said.shown)


def check_tools(client: Client) -> Finding:
    """A tool is called, and the answer to the call is taken under the id that it came with."""
    question: ChatCompletionMessageParam = {
        "role": "user",
        "content": "How is the weather in Paris? Use the tool.",
    }
    found = _call(client, question)
    if found is None:
        return Finding("its trace met the token limit each time, so no tool was called")
    call, how = found
    identifier = call.id
    if client.target.mistral_call_ids and not CALL_ID.fullmatch(identifier or ""):
        raise CheckFailed(f"the call's id is {identifier!r} and not nine letters and digits")
    answer = client.ai.chat.completions.create(
        model=client.target.model,
        messages=[
            question,
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {
                        "id": identifier,
                        "type": "function",
                        "function": {
                            "name": call.function.name,
                            "arguments": call.function.arguments,
                        },
                    }
                ],
            },
            {"role": "tool", "tool_call_id": identifier, "content": '{"celsius": 21}'},
        ],
        tools=[WEATHER],
        tool_choice="none",
        temperature=0.1,
        max_tokens=_limit(client, _with_trace(client, 128)),
        extra_body=asked(client.target.thinking, None) or None,
    )
    return Finding(f"called {how} as {identifier}; {_answer(answer).shown}")


def check_json_schema(client: Client) -> Finding:
    """An answer under a schema is JSON of that schema."""
    answer = client.ai.chat.completions.create(
        model=client.target.model,
        messages=[{"role": "user", "content": "Is water wet? Answer as JSON."}],
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "verdict", "schema": VERDICT, "strict": True},
        },
        temperature=0.1,
        max_tokens=_limit(client, _with_trace(client, 128)),
        extra_body=asked(client.target.thinking, None) or None,
    )
    said = _answer(answer)
    if said.is_cut:
        return Finding(said.shown)
    text = said.text
    try:
        given = json.loads(text)
    except ValueError:
        raise CheckFailed(f"it is asked for JSON and answers {_said(text)}") from None
    if (
        not isinstance(given, dict)
        or set(given) != set(VERDICT["required"])
        or given["answer"] not in ("yes", "no")
        or not isinstance(given["certain"], bool)
    ):
        raise CheckFailed(f"the JSON breaks its schema: {_said(text)}")
    return Finding(_said(json.dumps(given)))


def check_wrong_key(client: Client) -> Finding:
    """A key that was never given out is refused, for the list of models and for a chat."""
    stranger = client.ai.with_options(api_key=WRONG_KEY)
    tried: dict[str, Callable[[], object]] = {
        "/models": stranger.models.list,
        "/chat/completions": lambda: stranger.chat.completions.create(
            model=client.target.model,
            messages=[{"role": "user", "content": "Hello"}],
            max_tokens=1,
        ),
    }
    for path, ask in tried.items():
        try:
            ask()
        except openai.AuthenticationError:
            continue
        except openai.APIStatusError as error:
            raise CheckFailed(
                f"{path} answers a wrong key with {error.status_code} and not with 401"
            ) from None
        raise CheckFailed(f"{path} answers somebody with a wrong key")
    return Finding("refused with 401")


def check_closed_route(client: Client) -> Finding:
    """A route of vLLM that the stack closes is closed, with the key and without."""
    url = client.target.url.removesuffix("/v1") + CLOSED_ROUTE
    body = {
        "model": client.target.model,
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 1,
    }
    found: list[str] = []
    for who, headers in (
        ("without a key", {}),
        ("with the key", {"Authorization": f"Bearer {client.target.key}"}),
    ):
        status = client.http.post(url, json=body, headers=headers).status_code
        if status not in REFUSALS:
            raise CheckFailed(f"{CLOSED_ROUTE} answers {status} {who}, and should not be there")
        found.append(f"{status} {who}")
    return Finding(f"{CLOSED_ROUTE}: {', '.join(found)}")


CHECKS: dict[str, Check] = {
    "model": check_model,
    "text": check_text,
    "streaming": check_streaming,
    "picture": check_picture,
    "reasoning_high": check_reasoning_high,
    "reasoning_none": check_reasoning_none,
    "tools": check_tools,
    "json_schema": check_json_schema,
    "wrong_key": check_wrong_key,
    "closed_route": check_closed_route,
}
"""In the order in which they run."""

NEEDS = {
    "picture": "vision",
    "reasoning_high": "reasoning",
    "reasoning_none": "reasoning",
    "tools": "tools",
}
"""Checks that are for some models only, by the ability that they need."""


def why_not(name: str, target: Target) -> str:
    """Say why a check is not for this endpoint; empty if it is."""
    ability = NEEDS.get(name)
    if ability is None:
        return ""
    if ability not in target.abilities:
        return f"{target.model} is served without {ability}"
    if ability == "reasoning" and target.thinking == "none":
        return f"{target.model} does not think"
    if name == "reasoning_none" and target.thinking == "always":
        return f"{target.model} always thinks"
    return ""


def picture() -> bytes:
    """Draw a PNG: one red square of 56 x 56 pixels, which is two patches either way."""
    side = 56
    rows = (b"\0" + b"\xd0\x10\x10" * side) * side
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _ask(
    client: Client, content: Any, *, max_tokens: int, wanted: bool | None = None
) -> ChatCompletion:
    """Ask for an answer; `wanted` says whether for one with a trace, if that matters."""
    return client.ai.chat.completions.create(
        model=client.target.model,
        messages=[{"role": "user", "content": content}],
        temperature=0.1,
        max_tokens=max_tokens,
        extra_body=asked(client.target.thinking, wanted) or None,
    )


def _message(answer: ChatCompletion) -> ChatCompletionMessage:
    """The first choice's message, after a look at what stands around it."""
    if not isinstance(answer, ChatCompletion) or not answer.choices:
        raise CheckFailed("the answer is no chat completion with choices")
    choice = answer.choices[0]
    if choice.finish_reason not in ("stop", "length", "tool_calls"):
        raise CheckFailed(f"the answer's finish_reason is {choice.finish_reason!r}")
    if choice.message.role != "assistant":
        raise CheckFailed(f"the answer's role is {choice.message.role!r} and not 'assistant'")
    return choice.message


def _usage(answer: ChatCompletion) -> CompletionUsage:
    used = answer.usage
    if used is None or not (_is_count(used.prompt_tokens) and _is_count(used.completion_tokens)):
        raise CheckFailed("the answer does not say how many tokens it used")
    return used


def _is_count(tokens: object) -> bool:
    """Whether tokens can have been counted so: a whole number, and no more than a context has."""
    return isinstance(tokens, int) and 1 <= tokens <= MOST_TOKENS


@dataclasses.dataclass(frozen=True)
class _Answer:
    """What came: text, or a trace that met the token limit before there was any."""

    text: str
    is_cut: bool = False

    @property
    def shown(self) -> str:
        """For the report."""
        return (
            f"a trace that met the token limit, {_said(self.text)}"
            if self.is_cut
            else _said(self.text)
        )


def _answer(answer: ChatCompletion) -> _Answer:
    message = _message(answer)
    content = message.content
    _usage(answer)
    if isinstance(content, str) and content.strip():
        return _Answer(content)
    if _is_cut_trace(answer):
        return _Answer(_trace(message), is_cut=True)
    raise CheckFailed("the answer has no text in message.content")


def _is_cut_trace(answer: ChatCompletion) -> bool:
    """Whether nothing but a trace came before the token limit."""
    message = _message(answer)
    is_cut = answer.choices[0].finish_reason == "length"
    return is_cut and not (message.content or "").strip() and bool(_trace(message).strip())


def _told(client: Client, wanted: bool) -> str:
    """Name what the model was told, as the beginning of a sentence."""
    if client.target.thinking == "always":
        return "though its profile says that it always thinks,"
    if client.target.thinking == "switch":
        return f"with thinking switched {'on' if wanted else 'off'}"
    return f"with reasoning_effort {'high' if wanted else 'none'}"


def _with_trace(client: Client, tokens: int) -> int:
    """Leave a model that always thinks room for its trace, where an answer has to follow."""
    return LONGEST_REASONING if client.target.thinking == "always" else tokens


def _trace(message: ChatCompletionMessage) -> str:
    return str((message.model_extra or {}).get("reasoning") or "")


def _check_apart(text: str) -> None:
    for mark in TRACE_MARKS:
        if mark in text:
            raise CheckFailed(f"the answer's text holds {mark}: the trace is not taken out of it")


def _call(
    client: Client, question: ChatCompletionMessageParam
) -> tuple[ChatCompletionMessageFunctionToolCall, str] | None:
    """The call that the model makes by itself; a model that would rather talk is told to.

    None if all that came are traces which met the token limit.
    """
    cut = 0
    for choice, how in (("auto", "by itself"), ("required", "when told to")):
        answer = client.ai.chat.completions.create(
            model=client.target.model,
            messages=[question],
            tools=[WEATHER],
            tool_choice="auto" if choice == "auto" else "required",
            temperature=0.1,
            max_tokens=_limit(client, _with_trace(client, 128)),
            extra_body=asked(client.target.thinking, None) or None,
        )
        for call in _message(answer).tool_calls or []:
            if isinstance(call, ChatCompletionMessageFunctionToolCall):
                return _checked(call), how
        cut += _is_cut_trace(answer)
    if cut == 2:  # noqa: PLR2004  (both)
        return None
    raise CheckFailed("no tool is called, not even with tool_choice required")


def _checked(
    call: ChatCompletionMessageFunctionToolCall,
) -> ChatCompletionMessageFunctionToolCall:
    if not call.id or call.type != "function":
        raise CheckFailed("the tool call has no id, or is no function's")
    if call.function.name != WEATHER["function"]["name"]:
        raise CheckFailed(f"the tool that is called, {call.function.name!r}, was never offered")
    try:
        arguments = json.loads(call.function.arguments)
    except ValueError:
        raise CheckFailed("the tool call's arguments are no JSON") from None
    if not isinstance(arguments, dict) or not isinstance(arguments.get("city"), str):
        raise CheckFailed("the tool call's arguments lack the required city")
    return call


def _limit(client: Client, tokens: int) -> int:
    """Leave half of a short context to the question."""
    return max(1, min(tokens, client.target.max_model_len // 2))


def _speed(started: float, pieces: list[float], tokens: int) -> Finding:
    first = pieces[0] - started
    # The first token ends the wait for the prompt, so it is no part of the generation.
    generation = pieces[-1] - pieces[0]
    if generation <= 0:
        raise CheckFailed(f"all {len(pieces)} pieces of the stream came at once, so it is none")
    rate = (tokens - 1) / generation
    return Finding(
        f"{tokens} tokens, the first after {first:.2f} s, then {rate:.0f} a second",
        {"seconds_to_first_token": first, "tokens_per_second": rate},
    )


def _said(text: str) -> str:
    words = " ".join(text.split())
    return f"“{words[:80]}…”" if len(words) > 80 else f"“{words}”"  # noqa: PLR2004  (a line's worth)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
