"""/v1/completions and /v1/responses: the same answers in other shapes."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from emulator.standins.vllm.answers import answer_for
from emulator.standins.vllm.api_errors import ApiError, as_api_error, bad_request, body_of
from emulator.standins.vllm.asking import question_of
from emulator.standins.vllm.chat import EVENT_STREAM
from emulator.standins.vllm.generation import (
    Generation,
    all_to_end,
    generation_of,
    run,
    usage,
)
from emulator.standins.vllm.messages import read_messages
from emulator.standins.vllm.requests import CompletionRequest, ResponsesRequest, read_body
from emulator.standins.vllm.response_items import as_chat
from emulator.standins.vllm.sampling import check_sampling, check_schema, limits_of
from emulator.standins.vllm.served import Served, request_id

_NO_SUFFIX = "suffix is only supported for models with FIM completion rendering"


@dataclass(frozen=True)
class Accepted:
    """One answer that is due."""

    served: Served
    model: str
    id: str
    created: int
    prompt_tokens: int
    generation: Generation

    def text(self) -> str:
        """What is said."""
        return self.generation.text("content")

    def run(self) -> AsyncIterator[Any]:
        """Give the pieces out when they are due."""
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
    if asked.suffix is not None:
        raise ApiError(400, "BadRequestError", _NO_SUFFIX, "suffix")
    served.engine.check()
    identifier = request_id(request, "cmpl")
    accepted = [
        accept(served, model, identifier, [{"role": "user", "content": prompt}], asked)
        for prompt in _prompts(served, asked.prompt)
        for _ in range(asked.answers)
    ]
    if asked.stream:
        return stream(_completion_events(accepted, asked))
    await to_end(request, accepted)
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
    _check_state(asked)
    served.engine.check()
    limits = CompletionRequest(
        prompt="",
        max_tokens=asked.max_output_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
    )
    check_sampling(limits, served.settings.max_sequences)
    spoken = read_messages(as_chat(asked.input, asked.instructions))
    tools = [
        {"type": "function", "function": {"name": tool.name, "parameters": tool.parameters}}
        for tool in asked.tools or ()
        if tool.type == "function"
    ]
    if (schema := _schema(asked)) is not None:
        check_schema(schema)
    effort = served.effort(asked.reasoning.effort if asked.reasoning else None)
    identifier = request_id(request, "resp")
    accepted = accept(
        served,
        model,
        identifier,
        spoken,
        limits,
        tools=tools,
        effort=effort,
        limit_name="max_output_tokens",
    )
    if asked.stream:
        return stream(_response_events(accepted))
    await to_end(request, [accepted])
    return JSONResponse(_response_body(accepted))


def accept(
    served: Served,
    model: str,
    identifier: str,
    spoken: Sequence[Mapping[str, Any]],
    asked: CompletionRequest,
    *,
    tools: Sequence[Mapping[str, Any]] = (),
    effort: str = "none",
    is_chat: bool = False,
    limit_name: str = "max_tokens",
) -> Accepted:
    """Take a conversation in; what is asked with tools counts, and none of them is called.

    Raises:
        ApiError: it is refused.
    """
    question = question_of(served, spoken, tools, is_chat=is_chat)
    prompt_tokens = question.prompt_tokens + served.tool_tokens(tools)
    limits = limits_of(asked, served.max_tokens(prompt_tokens, asked.max_tokens, limit_name))
    answer = answer_for(
        question,
        model=served.root,
        tools=(),
        tool_choice=None,
        schema=None,
        reasoning=effort == "high",
    )
    generation = generation_of(answer, limits)
    return Accepted(served, model, identifier, int(time.time()), prompt_tokens, generation)


async def to_end(request: Request, accepted: Sequence[Accepted]) -> None:
    """Let answers run to their end without giving them out."""
    pairs = [(one.generation, one.prompt_tokens) for one in accepted]
    await all_to_end(accepted[0].served, request, pairs)


def _check_state(asked: ResponsesRequest) -> None:
    """Refuse what needs answers that a server keeps; this one keeps none, as vLLM by default."""
    if asked.previous_response_id is not None:
        raise ApiError(
            404,
            "invalid_request_error",
            f"Response with id '{asked.previous_response_id}' not found.",
            "response_id",
        )
    if asked.background:
        raise ApiError(
            400,
            "invalid_request_error",
            "This vLLM engine does not support `store=True` and therefore does not support the "
            "background mode. To enable these features, set the environment variable "
            "`VLLM_ENABLE_RESPONSES_API_STORE=1` when launching the vLLM server.",
            "background",
        )


def _schema(asked: ResponsesRequest) -> Mapping[str, Any] | None:
    wished = (asked.text or {}).get("format") or {}
    schema = wished.get("schema") if wished.get("type") == "json_schema" else None
    return schema if isinstance(schema, Mapping) else None


def _prompts(served: Served, prompt: str | list[Any]) -> list[str]:
    if isinstance(prompt, str):
        return [prompt]
    if not prompt:
        raise bad_request("Either prompt or prompt_embeds must be provided and non-empty.")
    if isinstance(prompt[0], int):
        return [served.tokenizer.decode(prompt)]
    return [one if isinstance(one, str) else served.tokenizer.decode(one) for one in prompt]


def _completion_choice(index: int, accepted: Accepted, text: str) -> dict[str, Any]:
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
    accepted: Sequence[Accepted], asked: CompletionRequest
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


def _response_body(accepted: Accepted, status: str = "completed") -> dict[str, Any]:
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


def _response_item(accepted: Accepted) -> dict[str, Any]:
    return {
        "id": accepted.id.replace("resp", "msg"),
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [
            {"type": "output_text", "text": accepted.text(), "annotations": [], "logprobs": None}
        ],
    }


async def _response_events(accepted: Accepted) -> AsyncIterator[dict[str, Any]]:
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


def stream(events: AsyncIterator[dict[str, Any]]) -> Response:
    """Answer with events."""
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
