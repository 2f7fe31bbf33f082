"""POST /v1/chat/completions, whole and streamed (vllm reference, 3)."""

from __future__ import annotations

import json
import secrets
import string
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from emulator.standins.vllm.answers import (
    Answer,
    Piece,
    Question,
    answer_for,
    read_conversation,
)
from emulator.standins.vllm.api_errors import (
    as_api_error,
    bad_request,
    body_of,
    from_picture,
    schema_error,
)
from emulator.standins.vllm.generation import (
    Generation,
    all_to_end,
    generation_of,
    run,
    usage,
)
from emulator.standins.vllm.pictures import PictureError
from emulator.standins.vllm.requests import (
    ChatRequest,
    NamedChoice,
    check_sampling,
    limits_of,
    read_body,
)
from emulator.standins.vllm.served import Served, request_id

EVENT_STREAM = "text/event-stream; charset=utf-8"

_NO_SUCH_TOOL = (
    "Value error, The tool specified in `tool_choice` does not match any of the specified `tools`"
)
_ALPHABET = string.ascii_letters + string.digits
_CALL_ID = 9


@dataclass(frozen=True)
class _Chat:
    """One request that was accepted."""

    served: Served
    asked: ChatRequest
    model: str
    id: str
    created: int
    prompt_tokens: int
    generations: list[Generation]


async def chat_completions(request: Request) -> Response:
    """Answer a chat.

    Raises:
        ApiError: the request is refused.
    """
    served: Served = request.app.state.served
    asked = await read_body(request, ChatRequest)
    chat = _accept(served, asked, request_id(request, "chatcmpl"))
    served.engine.check()
    if asked.stream:
        return StreamingResponse(_events(chat), media_type=EVENT_STREAM)
    await all_to_end(served, request, [(one, chat.prompt_tokens) for one in chat.generations])
    return JSONResponse(_whole(chat))


def _accept(served: Served, asked: ChatRequest, identifier: str) -> _Chat:
    model = served.name_for(asked.model)
    check_sampling(asked, served.settings.max_sequences)
    tools = _tools(served, asked)
    question = _question(served, asked)
    served.check_pictures(len(question.pictures))
    _check_order(served, asked)
    effort = served.effort(asked.reasoning_effort)
    tool_tokens = len(json.dumps(tools)) // 4 if tools else 0
    prompt_tokens = question.prompt_tokens + tool_tokens
    wish = asked.max_completion_tokens or asked.max_tokens
    limits = limits_of(asked, served.max_tokens(prompt_tokens, wish))
    answer = answer_for(
        question,
        model=served.root,
        tools=tools,
        tool_choice=_choice(asked),
        schema=_schema(asked),
        reasoning=effort == "high",
    )
    if answer.reasoning and not served.settings.reasoning_parser:
        # Without a parser the trace stays where the model writes it: in the text.
        answer = Answer("", f"[THINK]{answer.reasoning}[/THINK]{answer.content}", answer.tool_calls)
    generations = [generation_of(answer, limits) for _ in range(asked.n)]
    return _Chat(served, asked, model, identifier, int(time.time()), prompt_tokens, generations)


def _question(served: Served, asked: ChatRequest) -> Question:
    messages = [message.model_dump() for message in asked.messages]
    if not messages:
        raise bad_request("Conversation must have at least one message")
    try:
        return read_conversation(messages, served.settings.viewer)
    except PictureError as error:
        raise from_picture(error) from error


def _check_order(served: Served, asked: ChatRequest) -> None:
    last = asked.messages[-1]
    if served.shape.mistral and last.role not in ("user", "tool"):
        extra = last.model_extra or {}
        if last.role == "assistant" and extra.get("prefix"):
            return
        raise bad_request(
            "Expected last role User or Tool (or Assistant with prefix or continue_final_message "
            f"set to True) for serving but got {last.role}"
        )


def _tools(served: Served, asked: ChatRequest) -> list[dict[str, Any]]:
    tools = [tool.model_dump(exclude_none=True) for tool in asked.tools or ()]
    choice = asked.tool_choice
    if not tools:
        if choice not in (None, "none", "auto"):
            raise schema_error(["Value error, When using `tool_choice`, `tools` must be set."])
        return []
    if isinstance(choice, NamedChoice):
        names = [tool["function"]["name"] for tool in tools]
        if choice.function.name not in names:
            raise schema_error([_NO_SUCH_TOOL])
        return tools
    settings = served.settings
    ready = settings.enable_auto_tool_choice and settings.tool_call_parser
    if choice in (None, "auto") and not ready:
        raise bad_request(
            '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
        )
    return [] if choice == "none" else tools


def _choice(asked: ChatRequest) -> Any:
    choice = asked.tool_choice
    return choice.model_dump() if isinstance(choice, NamedChoice) else choice


def _schema(asked: ChatRequest) -> Mapping[str, Any] | None:
    given = asked.response_format or {}
    if given.get("type") == "json_schema":
        envelope = given.get("json_schema")
        if not isinstance(envelope, dict) or "schema" not in envelope:
            raise schema_error(
                ["Value error, response_format of type json_schema needs json_schema.schema"]
            )
        schema: Mapping[str, Any] = envelope["schema"]
        return schema
    if given.get("type") == "json_object":
        return {"type": "object", "properties": {"answer": {"type": "string"}}}
    wished: Mapping[str, Any] | None = (asked.structured_outputs or {}).get("json")
    return wished


def _whole(chat: _Chat) -> dict[str, Any]:
    return {
        "id": chat.id,
        "object": "chat.completion",
        "created": chat.created,
        "model": chat.model,
        "choices": [
            {
                "index": index,
                "message": _message(generation),
                "logprobs": None,
                "finish_reason": generation.finish_reason,
                "stop_reason": generation.stopped_by,
                "token_ids": None,
                "routed_experts": None,
            }
            for index, generation in enumerate(chat.generations)
        ],
        "service_tier": None,
        "system_fingerprint": chat.served.fingerprint(),
        "usage": usage(chat.served, chat.prompt_tokens, chat.generations),
        "prompt_logprobs": None,
        "prompt_token_ids": None,
        "prompt_text": None,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "metrics": None,
    }


def _message(generation: Generation) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": generation.text("content"),
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        "reasoning": generation.text("reasoning") or None,
    }
    calls = generation.calls()
    if calls:
        message["tool_calls"] = [
            {
                "id": _call_id(),
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            }
            for name, arguments in calls
        ]
    return message


async def _events(chat: _Chat) -> AsyncIterator[str]:
    options = chat.asked.stream_options
    wants_usage = chat.served.settings.enable_force_include_usage or bool(
        options and options.include_usage
    )
    try:
        for index in range(len(chat.generations)):
            first = _chunk(chat, index, {"role": "assistant", "content": ""})
            yield _event(first | {"prompt_token_ids": None, "prompt_text": None})
        for index, generation in enumerate(chat.generations):
            async for event in _choice_events(chat, index, generation):
                yield event
    except Exception as error:  # noqa: BLE001  (whatever happens after the first byte is an event)
        yield _event(body_of(as_api_error(error)))
        yield "data: [DONE]\n\n"
        return
    if wants_usage:
        last = _envelope(chat) | {
            "choices": [],
            "usage": usage(chat.served, chat.prompt_tokens, chat.generations),
        }
        yield _event(last)
    yield "data: [DONE]\n\n"


async def _choice_events(chat: _Chat, index: int, generation: Generation) -> AsyncIterator[str]:
    begun: set[int] = set()
    async for piece in run(chat.served, generation, chat.prompt_tokens):
        if piece.part == "tool" and piece.call not in begun:
            begun.add(piece.call)
            yield _event(_chunk(chat, index, _call_begins(generation, piece.call)))
        yield _event(_chunk(chat, index, _delta(piece)))
    last = _chunk(chat, index, {}, generation)
    yield _event(last | {"system_fingerprint": chat.served.fingerprint()})


def _delta(piece: Piece) -> dict[str, Any]:
    if piece.part == "tool":
        return {"tool_calls": [{"index": piece.call, "function": {"arguments": piece.text}}]}
    return {piece.part: piece.text}


def _call_begins(generation: Generation, index: int) -> dict[str, Any]:
    name = generation.answer.tool_calls[index].name
    call = {
        "id": _call_id(),
        "type": "function",
        "index": index,
        "function": {"name": name, "arguments": ""},
    }
    return {"tool_calls": [call]}


def _envelope(chat: _Chat) -> dict[str, Any]:
    return {
        "id": chat.id,
        "object": "chat.completion.chunk",
        "created": chat.created,
        "model": chat.model,
    }


def _chunk(
    chat: _Chat, index: int, delta: dict[str, Any], ended: Generation | None = None
) -> dict[str, Any]:
    choice = {
        "index": index,
        "delta": delta,
        "logprobs": None,
        "finish_reason": ended.finish_reason if ended else None,
        "token_ids": None,
    }
    if ended:
        choice["stop_reason"] = ended.stopped_by
    return _envelope(chat) | {"choices": [choice]}


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


def _call_id() -> str:
    """Nine letters and digits: Mistral's own rule for calls."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(_CALL_ID))
