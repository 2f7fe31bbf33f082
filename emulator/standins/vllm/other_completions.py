"""/v1/completions, /v1/responses and /v1/messages: the same answers in other shapes."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from emulator.standins.vllm.answers import Question, answer_for, read_conversation
from emulator.standins.vllm.api_errors import as_api_error, bad_request, body_of, from_picture
from emulator.standins.vllm.chat import EVENT_STREAM
from emulator.standins.vllm.generation import (
    Generation,
    all_to_end,
    generation_of,
    run,
    usage,
)
from emulator.standins.vllm.pictures import PictureError
from emulator.standins.vllm.requests import (
    CompletionRequest,
    CountRequest,
    MessagesRequest,
    ResponsesRequest,
    check_sampling,
    limits_of,
    read_body,
)
from emulator.standins.vllm.served import Served, request_id

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


@dataclass(frozen=True)
class _Accepted:
    served: Served
    model: str
    id: str
    created: int
    prompt_tokens: int
    generation: Generation

    def text(self) -> str:
        return self.generation.text("content")

    def run(self) -> AsyncIterator[Any]:
        return run(self.served, self.generation, self.prompt_tokens)


async def completions(request: Request) -> Response:
    """Answer POST /v1/completions.

    Raises:
        ApiError: the request is refused.
    """
    served: Served = request.app.state.served
    asked = await read_body(request, CompletionRequest)
    model = served.name_for(asked.model)
    check_sampling(asked, served.settings.max_sequences)
    served.engine.check()
    identifier = request_id(request, "cmpl")
    accepted = [
        _accept(served, model, identifier, [{"role": "user", "content": prompt}], asked)
        for prompt in _prompts(served, asked.prompt)
        for _ in range(asked.n)
    ]
    if asked.stream:
        return _stream(_completion_events(accepted, asked))
    await _to_end(request, accepted)
    generations = [one.generation for one in accepted]
    return JSONResponse(
        {
            "id": identifier,
            "object": "text_completion",
            "created": accepted[0].created,
            "model": model,
            "choices": [_completion_choice(i, one, one.text()) for i, one in enumerate(accepted)],
            "service_tier": None,
            "system_fingerprint": served.fingerprint(),
            "usage": usage(served, sum(one.prompt_tokens for one in accepted), generations),
            "kv_transfer_params": None,
        }
    )


async def responses(request: Request) -> Response:
    """Answer POST /v1/responses.

    Raises:
        ApiError: the request is refused.
    """
    served: Served = request.app.state.served
    asked = await read_body(request, ResponsesRequest)
    model = served.name_for(asked.model)
    served.engine.check()
    messages = (
        [{"role": "user", "content": asked.input}] if isinstance(asked.input, str) else asked.input
    )
    if asked.instructions:
        messages = [{"role": "system", "content": asked.instructions}, *messages]
    limits = CompletionRequest(prompt="", max_tokens=asked.max_output_tokens)
    effort = served.effort((asked.reasoning or {}).get("effort"))
    identifier = request_id(request, "resp")
    accepted = _accept(served, model, identifier, messages, limits, effort=effort)
    if asked.stream:
        return _stream(_response_events(accepted))
    await _to_end(request, [accepted])
    return JSONResponse(_response_body(accepted))


async def messages(request: Request) -> Response:
    """Answer POST /v1/messages, Anthropic's shape.

    Raises:
        ApiError: the request is refused.
    """
    served: Served = request.app.state.served
    asked = await read_body(request, MessagesRequest)
    model = served.name_for(asked.model)
    served.engine.check()
    sampling = CompletionRequest(prompt="", max_tokens=asked.max_tokens, stop=asked.stop_sequences)
    check_sampling(sampling, served.settings.max_sequences)
    spoken = _with_system(asked.messages, asked.system)
    accepted = _accept(served, model, request_id(request, "chatcmpl"), spoken, sampling)
    if asked.stream:
        return _stream(_message_events(accepted))
    await _to_end(request, [accepted])
    return JSONResponse(
        _message_body(accepted)
        | {
            "content": [{"type": "text", "text": accepted.text()}],
            "stop_reason": _stop_reason(accepted),
            "stop_sequence": accepted.generation.stopped_by,
        }
    )


async def count_tokens(request: Request) -> Response:
    """Answer POST /v1/messages/count_tokens.

    Raises:
        ApiError: the request is refused.
    """
    served: Served = request.app.state.served
    asked = await read_body(request, CountRequest)
    served.name_for(asked.model)
    question = _read(served, _with_system(asked.messages, asked.system))
    return JSONResponse({"input_tokens": question.prompt_tokens, "context_management": None})


def _accept(
    served: Served,
    model: str,
    identifier: str,
    spoken: Sequence[Mapping[str, Any]],
    asked: CompletionRequest,
    *,
    effort: str = "none",
) -> _Accepted:
    question = _read(served, spoken)
    served.check_pictures(len(question.pictures))
    limits = limits_of(asked, served.max_tokens(question.prompt_tokens, asked.max_tokens))
    answer = answer_for(
        question,
        model=served.root,
        tools=(),
        tool_choice=None,
        schema=None,
        reasoning=effort == "high",
    )
    generation = generation_of(answer, limits)
    return _Accepted(
        served, model, identifier, int(time.time()), question.prompt_tokens, generation
    )


async def _to_end(request: Request, accepted: Sequence[_Accepted]) -> None:
    pairs = [(one.generation, one.prompt_tokens) for one in accepted]
    await all_to_end(accepted[0].served, request, pairs)


def _read(served: Served, spoken: Sequence[Mapping[str, Any]]) -> Question:
    try:
        return read_conversation(spoken, served.settings.viewer)
    except PictureError as error:
        raise from_picture(error) from error


def _prompts(served: Served, prompt: str | list[Any]) -> list[str]:
    if isinstance(prompt, str):
        return [prompt]
    if not prompt:
        raise bad_request("Either prompt or prompt_embeds must be provided and non-empty.")
    if isinstance(prompt[0], int):
        return [served.tokenizer.decode(prompt)]
    return [one if isinstance(one, str) else served.tokenizer.decode(one) for one in prompt]


def _with_system(spoken: Sequence[Any], system: Any) -> list[dict[str, Any]]:
    told = [message.model_dump() for message in spoken]
    return [{"role": "system", "content": system}, *told] if system else told


def _completion_choice(index: int, accepted: _Accepted, text: str) -> dict[str, Any]:
    return {
        "index": index,
        "text": text,
        "logprobs": None,
        "finish_reason": accepted.generation.finish_reason,
        "stop_reason": accepted.generation.stopped_by,
        "token_ids": None,
        "prompt_logprobs": None,
        "prompt_token_ids": None,
    }


async def _completion_events(
    accepted: Sequence[_Accepted], asked: CompletionRequest
) -> AsyncIterator[dict[str, Any]]:
    for index, one in enumerate(accepted):
        envelope = {
            "id": one.id,
            "object": "text_completion",
            "created": one.created,
            "model": one.model,
        }
        async for piece in one.run():
            choice = _completion_choice(index, one, piece.text)
            yield envelope | {"choices": [choice | {"finish_reason": None, "stop_reason": None}]}
        yield envelope | {"choices": [_completion_choice(index, one, "")]}
        if asked.stream_options and asked.stream_options.include_usage:
            spent = usage(one.served, one.prompt_tokens, [one.generation])
            yield envelope | {"choices": [], "usage": spent}


def _response_body(accepted: _Accepted, status: str = "completed") -> dict[str, Any]:
    spent = usage(accepted.served, accepted.prompt_tokens, [accepted.generation])
    done = status == "completed"
    cut = done and accepted.generation.finish_reason == "length"
    output: list[dict[str, Any]] = []
    thought = accepted.generation.text("reasoning")
    if done and thought:
        output.append(
            {
                "id": accepted.id.replace("resp", "rs"),
                "type": "reasoning",
                "summary": [],
                "content": [{"type": "reasoning_text", "text": thought}],
                "status": None,
            }
        )
    if done:
        output.append(_response_item(accepted))
    return {
        "id": accepted.id,
        "object": "response",
        "created_at": accepted.created,
        "status": "incomplete" if cut else status,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "model": accepted.model,
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": spent["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": spent["completion_tokens"],
            "output_tokens_details": spent["completion_tokens_details"],
            "total_tokens": spent["total_tokens"],
        }
        if done
        else None,
    }


def _response_item(accepted: _Accepted) -> dict[str, Any]:
    return {
        "id": accepted.id.replace("resp", "msg"),
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [
            {"type": "output_text", "text": accepted.text(), "annotations": [], "logprobs": None}
        ],
    }


async def _response_events(accepted: _Accepted) -> AsyncIterator[dict[str, Any]]:
    item = accepted.id.replace("resp", "msg")
    place = {"item_id": item, "output_index": 0, "content_index": 0}
    number = 0
    begun = _response_body(accepted, "in_progress")
    yield {"type": "response.created", "sequence_number": number, "response": begun}
    async for piece in accepted.run():
        if piece.part == "content":
            number += 1
            yield {
                "type": "response.output_text.delta",
                "sequence_number": number,
                **place,
                "delta": piece.text,
                "logprobs": [],
            }
    done = {"type": "response.output_text.done", **place, "text": accepted.text(), "logprobs": []}
    yield done | {"sequence_number": number + 1}
    ended = _response_body(accepted)
    yield {"type": "response.completed", "sequence_number": number + 2, "response": ended}


def _message_body(accepted: _Accepted) -> dict[str, Any]:
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


def _stop_reason(accepted: _Accepted) -> str:
    if accepted.generation.stopped_by:
        return "stop_sequence"
    return _STOP_REASONS[accepted.generation.finish_reason]


async def _message_events(accepted: _Accepted) -> AsyncIterator[dict[str, Any]]:
    yield {"type": "message_start", "message": _message_body(accepted)}
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


def _stream(events: AsyncIterator[dict[str, Any]]) -> Response:
    return StreamingResponse(_lines(events), media_type=EVENT_STREAM)


async def _lines(events: AsyncIterator[dict[str, Any]]) -> AsyncIterator[str]:
    named = False
    try:
        async for event in events:
            # Completions have no event names; the other two name each event by its type.
            named = "type" in event
            name = f"event: {event['type']}\n" if named else ""
            yield f"{name}data: {json.dumps(event, ensure_ascii=False)}\n\n"
    except Exception as error:  # noqa: BLE001  (whatever happens after the first byte is an event)
        yield f"data: {json.dumps(body_of(as_api_error(error)))}\n\n"
    if not named:
        yield "data: [DONE]\n\n"
