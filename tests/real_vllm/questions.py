"""One question of each kind, and the shape of what comes back: to hold two servers side by side."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Iterable
from typing import Any

import httpx

from components.smoke_test.checks.structured import VERDICT
from components.smoke_test.checks.tools import WEATHER
from components.smoke_test.checks.vision import picture
from toolchain.real_vllm.alphabet import STEER, token

Shape = dict[str, set[str]]
"""Path of a value in a JSON text -> the types that were seen there."""

HELLO = [{"role": "user", "content": "Hello"}]
PICTURE = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"
STRICT_WEATHER = {**WEATHER, "function": {**WEATHER["function"], "strict": True}}
TRACE_FIRST = {str(token("[THINK]")): STEER}
"""Makes the tiny model begin with a trace; a server with a model of its own need not care."""


@dataclasses.dataclass(frozen=True)
class Question:
    """A request; `body` is None for a GET, and a model's name is put into any other."""

    path: str
    body: dict[str, Any] | None = None


def chat(**more: Any) -> Question:
    """Ask for a chat."""
    return Question("/v1/chat/completions", {"messages": HELLO, "max_tokens": 64, **more})


QUESTIONS = {
    "models": Question("/v1/models"),
    "version": Question("/version"),
    "load": Question("/load"),
    "tokenize": Question("/tokenize", {"prompt": "Hello"}),
    "tokenize a chat": Question("/tokenize", {"messages": HELLO, "return_token_strs": True}),
    "detokenize": Question("/detokenize", {"tokens": [72, 73]}),
    "chat": chat(),
    "chat without effort": chat(reasoning_effort="none"),
    "chat with a trace": chat(reasoning_effort="high", logit_bias=TRACE_FIRST),
    "chat cut short": chat(max_tokens=2),
    "chat under a schema": chat(
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "verdict", "schema": VERDICT},
        }
    ),
    "chat with a picture": chat(
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Which colour?"},
                    {"type": "image_url", "image_url": {"url": PICTURE}},
                ],
            }
        ]
    ),
    "chat with log probabilities": chat(logprobs=True, top_logprobs=1, max_tokens=2),
    "chat that must call a tool": chat(
        tools=[STRICT_WEATHER], tool_choice="required", max_tokens=128
    ),
    "chat after a tool": chat(
        tools=[WEATHER],
        tool_choice="none",
        messages=[
            *HELLO,
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {
                        "id": "abcDEF123",
                        "type": "function",
                        "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "abcDEF123", "content": "{}"},
        ],
    ),
    "stream": chat(stream=True),
    "stream with usage": chat(stream=True, stream_options={"include_usage": True}),
    "stream with a trace": chat(stream=True, reasoning_effort="high", logit_bias=TRACE_FIRST),
    "stream that must call a tool": chat(
        stream=True, tools=[STRICT_WEATHER], tool_choice="required", max_tokens=128
    ),
    "completion": Question("/v1/completions", {"prompt": "Hello", "max_tokens": 4}),
    "completion as a stream": Question(
        "/v1/completions", {"prompt": "Hello", "max_tokens": 4, "stream": True}
    ),
    "message": Question("/v1/messages", {"messages": HELLO, "max_tokens": 32}),
    "count of a message": Question("/v1/messages/count_tokens", {"messages": HELLO}),
    "no messages": Question("/v1/chat/completions", {}),
    "a wrong type": chat(max_tokens="many"),
    "another model": chat(model="nobody/nothing"),
    "too many tokens": chat(max_tokens=10**7),
    "an effort that Mistral has not": chat(reasoning_effort="low"),
    "a temperature below zero": chat(temperature=-1),
    "a tool that is not there": chat(
        tools=[WEATHER], tool_choice={"type": "function", "function": {"name": "nothing"}}
    ),
    "a picture that is none": chat(
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
                ],
            }
        ]
    ),
}
"""By a name for people. Those that a server refuses are last."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came back, without what differs from one answer to the next."""

    status: int
    kind: str
    """The content type."""
    shape: Shape
    """Of the JSON, or of all events of a stream together."""
    error: tuple[object, object]
    """`type` and `param` of an error, None where there is none."""


def ask(client: httpx.Client, model: str, question: Question) -> Answer:
    """Put a question to a server."""
    if question.body is None:
        answer = client.get(question.path)
    else:
        answer = client.post(question.path, json={"model": model, **question.body})
    kind = answer.headers.get("content-type", "")
    bodies = events(answer.text) if kind.startswith("text/event-stream") else [answer.json()]
    shape: Shape = {}
    for body in bodies:
        add_shape(body, "", shape)
    first = bodies[0] if isinstance(bodies[0], dict) else {}
    error = first.get("error")
    told = (error.get("type"), error.get("param")) if isinstance(error, dict) else (None, None)
    return Answer(answer.status_code, kind, shape, told)


def events(text: str) -> list[Any]:
    """Give the events of a stream, which must end as OpenAI's do."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data:")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def add_shape(value: object, path: str, shape: Shape) -> None:
    """Add the paths and types of a JSON value to `shape`."""
    shape.setdefault(path, set()).add(type(value).__name__)
    if isinstance(value, dict):
        for key, inside in value.items():
            add_shape(inside, f"{path}.{key}", shape)
    if isinstance(value, list):
        for inside in value:
            add_shape(inside, f"{path}[]", shape)


def differences(real: Answer, stand_in: Answer) -> list[str]:
    """Say in what two answers differ: status, kind, error, keys, and types that exclude another.

    Of a key that only one of them has, what is below it is not named.
    """
    found = []
    for name in ("status", "kind", "error"):
        ours, theirs = getattr(stand_in, name), getattr(real, name)
        if ours != theirs:
            found.append(f"{name}: real {theirs!r}, stand-in {ours!r}")
    found += [f"lacks {path}" for path in _uppermost(real.shape.keys() - stand_in.shape.keys())]
    found += [f"adds {path}" for path in _uppermost(stand_in.shape.keys() - real.shape.keys())]
    for path in sorted(real.shape.keys() & stand_in.shape.keys()):
        theirs, ours = real.shape[path] - {"NoneType"}, stand_in.shape[path] - {"NoneType"}
        if theirs and ours and theirs != ours:
            found.append(f"{path}: real {sorted(theirs)}, stand-in {sorted(ours)}")
    return found


def _uppermost(paths: Iterable[str]) -> list[str]:
    kept: list[str] = []
    for path in sorted(paths):
        if not any(path.startswith((f"{above}.", f"{above}[")) for above in kept):
            kept.append(path)
    return kept
