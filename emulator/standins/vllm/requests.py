"""The bodies of requests: what is read of them, checked as vLLM's own schema does."""

from __future__ import annotations

import json
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request

from emulator.standins.vllm.answers import Limits
from emulator.standins.vllm.api_errors import bad_request, from_validation, schema_error

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]

_Body = TypeVar("_Body", bound=BaseModel)


class _Open(BaseModel):
    """Unknown fields are accepted, as vLLM does."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())


class StreamOptions(_Open):
    """What a stream ends with."""

    include_usage: bool = False
    continuous_usage_stats: bool = False


class Function(_Open):
    """A function that may be called."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(_Open):
    """A tool: a function in an envelope."""

    type: Literal["function"] = "function"
    function: Function


class FunctionName(_Open):
    """The function that must be called."""

    name: str


class NamedChoice(_Open):
    """`tool_choice` that names one function."""

    type: Literal["function"] = "function"
    function: FunctionName


class Message(_Open):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None


class Sampling(_Open):
    """What all kinds of completion have in common."""

    model: str | None = None
    max_tokens: int | None = None
    min_tokens: int = 0
    temperature: float | None = None
    top_p: float | None = None
    n: int = 1
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    ignore_eos: bool = False


class ChatRequest(Sampling):
    """POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=0)
    max_completion_tokens: int | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedChoice | None = None
    reasoning_effort: Effort | None = None
    response_format: dict[str, Any] | None = None
    structured_outputs: dict[str, Any] | None = None


class CompletionRequest(Sampling):
    """POST /v1/completions."""

    prompt: str | list[str] | list[int] | list[list[int]]
    echo: bool = False


class ResponsesRequest(_Open):
    """POST /v1/responses."""

    model: str | None = None
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    reasoning: dict[str, Any] | None = None
    stream: bool = False


class MessagesRequest(_Open):
    """POST /v1/messages: Anthropic's shape."""

    model: str | None = None
    messages: list[Message]
    max_tokens: int
    system: str | list[dict[str, Any]] | None = None
    temperature: float | None = None
    stop_sequences: list[str] | None = None
    stream: bool = False


class CountRequest(_Open):
    """POST /v1/messages/count_tokens."""

    model: str | None = None
    messages: list[Message]
    system: str | list[dict[str, Any]] | None = None


class TokenizeRequest(_Open):
    """POST /tokenize: a prompt or messages."""

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    return_token_strs: bool | None = None


class DetokenizeRequest(_Open):
    """POST /detokenize."""

    model: str | None = None
    tokens: list[int]


async def read_body(request: Request, kind: type[_Body]) -> _Body:
    """Read a JSON body of the shape `kind`.

    Raises:
        ApiError: another content type, no JSON, or another shape.
    """
    media = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media != "application/json":
        raise schema_error(["Unsupported Media Type: Only 'application/json' is allowed"])
    try:
        content = json.loads(await request.body())
    except ValueError as error:
        at = getattr(error, "pos", 0)
        raise schema_error(
            [
                {
                    "type": "json_invalid",
                    "loc": (at,),
                    "msg": "JSON decode error",
                    "input": {},
                }
            ]
        ) from error
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise from_validation(error) from error


def check_sampling(asked: Sampling, most: int) -> None:
    """Refuse numbers that no sampler takes, and more than `most` answers to one request.

    Raises:
        ApiError: with the engine's words.
    """
    if asked.temperature is not None and asked.temperature < 0:
        raise bad_request(
            f"temperature must be non-negative, got {asked.temperature}.", "temperature"
        )
    if asked.top_p is not None and not 0 < asked.top_p <= 1:
        raise bad_request(f"top_p must be in (0, 1], got {asked.top_p}.", "top_p")
    if asked.n < 1:
        raise bad_request(f"n must be at least 1, got {asked.n}.", "n")
    if asked.n > most:
        raise bad_request(
            f"n must be at most {most}, got {asked.n}. To increase this limit, set the "
            "VLLM_MAX_N_SEQUENCES environment variable.",
            "n",
        )
    limit = getattr(asked, "max_completion_tokens", None) or asked.max_tokens
    if limit is not None and limit < 1:
        raise bad_request(f"max_tokens must be at least 1, got {limit}.", "max_tokens")


def limits_of(asked: Sampling, max_tokens: int) -> Limits:
    """Return what bounds a generation of at most `max_tokens`."""
    stop = (asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ())
    return Limits(max_tokens, asked.min_tokens, stop, asked.ignore_eos)
