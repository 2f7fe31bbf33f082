"""POST /v1/chat/completions, whole and streamed (vllm reference, 3)."""

from __future__ import annotations

import asyncio
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
    answer_for,
)
from emulator.standins.vllm.api_errors import as_api_error, bad_request, body_of
from emulator.standins.vllm.asking import question_of
from emulator.standins.vllm.generation import (
    Generation,
    all_to_end,
    generation_of,
    run,
    usage,
)
from emulator.standins.vllm.messages import read_messages
from emulator.standins.vllm.requests import ChatRequest, NamedChoice, read_body
from emulator.standins.vllm.sampling import check_sampling, check_schema, limits_of
from emulator.standins.vllm.served import Served, request_id

EVENT_STREAM = "text/event-stream; charset=utf-8"

UNTRUSTED_TEMPLATE = (
    "Chat template is passed with request, but --trust-request-chat-template is not set. Refused "
    "request with untrusted chat template."
)
PAUSE = "emulator_pause_seconds"
"""Among `vllm_xargs`, which vLLM passes to its extensions: long streams that cost little CPU."""
LONGEST_PAUSE = 60.0
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
    messages = read_messages(asked.messages)
    model = served.name_for(asked.model)
    _check_overrides(served, asked)
    tools = _tools(served, asked)
    schema = _schema(asked)
    question = question_of(
        served,
        messages,
        tools,
        begins=asked.add_generation_prompt,
        goes_on=asked.continue_final_message,
        is_chat=True,
    )
    _check_grammars(asked, schema)
    check_sampling(asked, served.settings.max_sequences)
    effort = served.effort(asked.reasoning_effort)
    prompt_tokens = question.prompt_tokens + served.tool_tokens(tools)
    field_name = "max_tokens" if asked.max_completion_tokens is None else "max_completion_tokens"
    limits = limits_of(asked, served.max_tokens(prompt_tokens, asked.limit, field_name))
    answer = answer_for(
        question,
        model=served.root,
        tools=tools,
        tool_choice=_choice(asked),
        schema=schema,
        reasoning=effort == "high",
    )
    if answer.reasoning and not served.settings.reasoning_parser:
        # Without a parser the trace stays where the model writes it: in the text.
        answer = Answer("", f"[THINK]{answer.reasoning}[/THINK]{answer.content}", answer.tool_calls)
    generations = [generation_of(answer, limits) for _ in range(asked.answers)]
    return _Chat(served, asked, model, identifier, int(time.time()), prompt_tokens, generations)


def _check_overrides(served: Served, asked: ChatRequest) -> None:
    """Refuse what a request may not change of the server's own ways."""
    given = asked.chat_template is not None or asked.chat_template_kwargs is not None
    if served.shape.mistral and given:
        raise bad_request("chat_template is not supported for Mistral tokenizers.", "chat_template")
    served.check_effort(asked.reasoning_effort)
    template = asked.chat_template or (asked.chat_template_kwargs or {}).get("chat_template")
    if template is not None and not served.settings.trust_request_chat_template:
        raise bad_request(UNTRUSTED_TEMPLATE)
    for name, what in (
        ("mm_processor_kwargs", "multimodal preprocessing"),
        ("media_io_kwargs", "multimodal media loading"),
    ):
        if getattr(asked, name) and not served.settings.trust_request_mm_kwargs:
            raise bad_request(
                f"Per-request {name} are disabled by default because they can change {what} "
                "resource usage. Start the server with --trust-request-mm-kwargs only when "
                "clients are trusted.",
                name,
            )


def _tools(served: Served, asked: ChatRequest) -> list[dict[str, Any]]:
    """Return the tools; Mistral's tokenizer needs no parser to be asked with them."""
    tools = [tool.model_dump(exclude_none=True) for tool in asked.tools or ()]
    settings = served.settings
    choice = asked.tool_choice or ("auto" if tools else "none")
    ready = settings.enable_auto_tool_choice and settings.tool_call_parser
    if served.shape.mistral or choice == "none" or ready:
        return tools
    if choice == "auto":
        raise bad_request(
            '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
        )
    if not settings.tool_call_parser:
        named = choice.function.name if isinstance(choice, NamedChoice) else None
        wanted = f'function "{named}"' if named else f'"{choice}"'
        raise bad_request(f"tool_choice={wanted} requires --tool-call-parser to be set")
    return tools


def _check_grammars(asked: ChatRequest, schema: Mapping[str, Any] | None) -> None:
    if schema is not None:
        check_schema(schema)
    for tool in asked.tools or () if asked.tool_choice != "none" else ():
        if tool.function.strict and tool.function.parameters:
            check_schema(tool.function.parameters)


def _choice(asked: ChatRequest) -> Any:
    choice = asked.tool_choice
    return choice.model_dump() if isinstance(choice, NamedChoice) else choice


def _schema(asked: ChatRequest) -> Mapping[str, Any] | None:
    """Return the JSON schema that the answer has to fit."""
    given = asked.response_format
    if given is not None and given.type == "json_schema":
        return given.json_schema.fields if given.json_schema else None
    if given is not None and given.type == "json_object":
        return {"type": "object", "properties": {"answer": {"type": "string"}}}
    wished = (asked.structured_outputs or {}).get("json")
    if isinstance(wished, str):
        try:
            wished = json.loads(wished)
        except ValueError as error:
            raise bad_request(str(error)) from error
    return wished if isinstance(wished, Mapping) else None


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
    pause = _pause(chat.asked)
    async for piece in run(chat.served, generation, chat.prompt_tokens):
        if pause:
            await asyncio.sleep(pause)
        if piece.part == "tool" and piece.call not in begun:
            begun.add(piece.call)
            yield _event(_chunk(chat, index, _call_begins(generation, piece.call)))
        yield _event(_chunk(chat, index, _delta(piece)))
    last = _chunk(chat, index, {}, generation)
    yield _event(last | {"system_fingerprint": chat.served.fingerprint()})


def _pause(asked: ChatRequest) -> float:
    """Real seconds before each piece of a stream, which a request may ask for."""
    wished = (asked.vllm_xargs or {}).get(PAUSE)
    return min(LONGEST_PAUSE, max(0.0, wished)) if isinstance(wished, int | float) else 0.0


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
