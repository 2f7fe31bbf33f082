"""/v1/messages and /v1/messages/count_tokens: Anthropic's shape, which vLLM turns into a chat."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from emulator.standins.vllm.api_errors import ApiError, as_api_error, bad_request
from emulator.standins.vllm.asking import question_of
from emulator.standins.vllm.engine import EngineDeadError, ShutDownError
from emulator.standins.vllm.other_completions import Accepted, accept, stream, to_end
from emulator.standins.vllm.requests import (
    CompletionRequest,
    ContentBlock,
    CountRequest,
    MessagesRequest,
    SpokenMessage,
    read_body,
)
from emulator.standins.vllm.sampling import check_sampling
from emulator.standins.vllm.served import Served, request_id

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
_ERRORS = {400: "invalid_request_error", 404: "not_found_error"}


async def messages(request: Request) -> Response:
    """Answer POST /v1/messages.

    Raises:
        ApiError: the body is not of the schema.
    """
    asked = await read_body(request, MessagesRequest)
    try:
        accepted = _accept(request, asked)
        if asked.stream:
            return stream(_events(accepted))
        await to_end(request, [accepted])
    except (ApiError, EngineDeadError, ShutDownError) as error:
        return _refusal(error)
    return JSONResponse(_whole(accepted))


async def count_tokens(request: Request) -> Response:
    """Answer POST /v1/messages/count_tokens.

    Raises:
        ApiError: the body is not of the schema.
    """
    asked = await read_body(request, CountRequest)
    served: Served = request.app.state.served
    try:
        served.name_for(asked.model)
        _check_ways(served, asked)
        question = question_of(served, _as_chat(asked), _as_tools(asked), is_chat=True)
    except ApiError as error:
        return _refusal(error)
    tokens = question.prompt_tokens + served.tool_tokens(_as_tools(asked))
    return JSONResponse(
        {"input_tokens": tokens, "context_management": {"original_input_tokens": tokens}}
    )


def _accept(request: Request, asked: MessagesRequest) -> Accepted:
    served: Served = request.app.state.served
    model = served.name_for(asked.model)
    served.engine.check()
    _check_ways(served, asked)
    sampling = CompletionRequest(
        prompt="",
        max_tokens=asked.max_tokens,
        stop=asked.stop_sequences,
        temperature=asked.temperature,
        top_p=asked.top_p,
        top_k=asked.top_k,
    )
    check_sampling(sampling, served.settings.max_sequences)
    identifier = request_id(request, "chatcmpl")
    return accept(
        served, model, identifier, _as_chat(asked), sampling, tools=_as_tools(asked), is_chat=True
    )


def _check_ways(served: Served, asked: CountRequest) -> None:
    if served.shape.mistral and asked.chat_template_kwargs is not None:
        raise bad_request("chat_template is not supported for Mistral tokenizers.", "chat_template")
    served.check_effort(asked.output_config.effort if asked.output_config else None)
    wanted = asked.tool_choice.name if asked.tool_choice else None
    if wanted and wanted not in [tool.name for tool in asked.tools or ()]:
        raise bad_request(
            f"Tool choice requires the {wanted} tool but no tools with this name has been passed."
        )


def _as_tools(asked: CountRequest) -> list[dict[str, Any]]:
    return [
        {
            "type": "function",
            "function": {"name": tool.name, "parameters": {"type": "object"} | tool.input_schema},
        }
        for tool in asked.tools or ()
    ]


def _as_chat(asked: CountRequest) -> list[dict[str, Any]]:
    """Return the conversation in OpenAI's shape, with all that the system says at its head."""
    said = _texts(asked.system or "")
    said += [
        text for message in asked.messages if message.role == "system"
        for text in _texts(message.content)
    ]  # fmt: skip
    spoken: list[dict[str, Any]] = [{"role": "system", "content": "".join(said)}] if said else []
    for message in asked.messages:
        if message.role != "system":
            spoken += _as_messages(message)
    return spoken


def _texts(content: str | Sequence[ContentBlock]) -> list[str]:
    if isinstance(content, str):
        return [content] if content else []
    return [block.text for block in content if block.type == "text" and block.text]


def _as_messages(message: SpokenMessage) -> list[dict[str, Any]]:
    """Return one message, behind the results of tools that it carries."""
    if isinstance(message.content, str):
        return [{"role": message.role, "content": message.content}]
    results = [
        {"role": "tool", "tool_call_id": block.tool_use_id or "", "content": _result(block)}
        for block in message.content
        if block.type == "tool_result" and message.role == "user"
    ]
    parts = [part for block in message.content for part in _parts(block)]
    traces = [block.thinking for block in message.content if block.thinking is not None]
    calls = [_call(block) for block in message.content if block.type == "tool_use"]
    own: dict[str, Any] = {"role": message.role}
    if traces:
        own["reasoning"] = "".join(traces)
    if calls:
        own["tool_calls"] = calls
    if parts:
        own["content"] = parts
    if message.role == "user" and not parts:
        return results
    return [*results, own]


def _parts(block: ContentBlock) -> list[dict[str, Any]]:
    if block.type == "text" and block.text:
        return [{"type": "text", "text": block.text}]
    if block.type == "image" and block.source:
        source = block.source
        inside = f"data:{source.get('media_type', 'image/jpeg')};base64,{source.get('data', '')}"
        url = source.get("url", "") if source.get("type") == "url" else inside
        return [{"type": "image_url", "image_url": {"url": url}}]
    return []


def _result(block: ContentBlock) -> str:
    if isinstance(block.content, list):
        return "\n".join(str(item.get("text", "")) for item in block.content)
    return block.content or ""


def _call(block: ContentBlock) -> dict[str, Any]:
    function = {"name": block.name or "", "arguments": json.dumps(block.input or {})}
    return {"id": block.id or "call", "type": "function", "function": function}


def _whole(accepted: Accepted) -> dict[str, Any]:
    body = _body(accepted) | {
        "content": [{"type": "text", "text": accepted.text()}],
        "stop_reason": _stop_reason(accepted),
        "stop_sequence": accepted.generation.stopped_by,
    }
    return {name: value for name, value in body.items() if value is not None}


def _body(accepted: Accepted) -> dict[str, Any]:
    return {
        "id": accepted.id,
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": accepted.model,
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {
            "input_tokens": accepted.prompt_tokens,
            "output_tokens": accepted.generation.tokens,
        },
    }


def _stop_reason(accepted: Accepted) -> str:
    if accepted.generation.stopped_by:
        return "stop_sequence"
    return _STOP_REASONS[accepted.generation.finish_reason]


async def _events(accepted: Accepted) -> AsyncIterator[dict[str, Any]]:
    yield {"type": "message_start", "message": _body(accepted)}
    yield {
        "type": "content_block_start",
        "index": 0,
        "content_block": {"type": "text", "text": ""},
    }
    async for piece in accepted.run():
        delta = {"type": "text_delta", "text": piece.text}
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    yield {
        "type": "message_delta",
        "delta": {
            "stop_reason": _stop_reason(accepted),
            "stop_sequence": accepted.generation.stopped_by,
        },
        "usage": {"output_tokens": accepted.generation.tokens},
    }
    yield {"type": "message_stop"}


def _refusal(error: Exception) -> Response:
    """Return a refusal in Anthropic's words, as 0.33 has them; 0.32 has its own for the type."""
    refused = as_api_error(error)
    kind = _ERRORS.get(refused.status, "api_error")
    body = {"type": "error", "error": {"type": kind, "message": str(refused)}}
    return JSONResponse(body, status_code=refused.status)
