"""Requests that vLLM with Mistral's tokenizer refuses, and their neighbours that it accepts.

The stand-in is held to them by `make test`, and a real vLLM by `make test-vllm`: what is written
here is what the real one answered.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

CHAT = "/v1/chat/completions"
SCHEMA = "Bad Request"
"""The type of a refusal by the schema; all others are `BadRequestError`."""

Body = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Asked:
    """A request and what comes back."""

    body: Body
    path: str = CHAT
    status: int = 200
    kind: str | None = None
    """`type` of the error."""
    param: str | None = None
    """`param` of the error."""
    said: str = ""
    """Stands in the error's message."""


SHAPE = "ChatCompletionDeveloperMessageParam"
CALL_SHAPE = "ChatCompletionMessageFunctionToolCallParam"
"""The shapes that vLLM names when a message or a call has none."""

USER: Body = {"role": "user", "content": "Hello"}
SYSTEM: Body = {"role": "system", "content": "Be short"}
SPOKEN: Body = {"role": "assistant", "content": "Hi"}
WEATHER: Body = {"type": "object", "properties": {"city": {"type": "string"}}}
FUNCTION: Body = {"name": "get_weather", "parameters": WEATHER}
PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAA"
    "AElFTkSuQmCC"
)
TOOL_ID = "abcDEF123"


def called(*identifiers: str, name: str = "get_weather", **function: Any) -> Body:
    """A message in which the model calls the same function once for each identifier."""
    call = {"name": name, "arguments": "{}", **function}
    calls = [{"id": one, "type": "function", "function": call} for one in identifiers or (TOOL_ID,)]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def result(identifier: str = TOOL_ID, **more: Any) -> Body:
    """What a tool answered to the call of this identifier."""
    return {"role": "tool", "tool_call_id": identifier, "content": "{}", **more}


def parts(*given: Any, role: str = "user") -> Body:
    """A message of parts."""
    return {"role": role, "content": list(given)}


def text(said: str = "Hello") -> Body:
    """A part of text."""
    return {"type": "text", "text": said}


def ok(*messages: Body, **more: Any) -> Asked:
    """A chat that is answered."""
    return Asked({"messages": list(messages or (USER,)), "max_tokens": 2, **more})


def no(*messages: Body, said: str, param: str | None = None, **more: Any) -> Asked:
    """A chat that is refused."""
    return dataclasses.replace(
        ok(*messages, **more), status=400, kind="BadRequestError", param=param, said=said
    )


def by_schema(*messages: Body, param: str, said: str = "", **more: Any) -> Asked:
    """A chat that the schema does not fit."""
    return dataclasses.replace(
        ok(*messages, **more), status=400, kind=SCHEMA, param=param, said=said
    )


def tool(**function: Any) -> Body:
    """A tool with another function."""
    return {"type": "function", "function": {**FUNCTION, **function}}


BAD_NAME = "must be a-z, A-Z, 0-9, or contain underscores and dashes, with a maximum length of 64."
BAD_ID = "Tool call id must be a non-empty string other than 'null'"
UNPAIRED = "Not the same number of function calls and responses"
PREFILL: Body = {"add_generation_prompt": False, "continue_final_message": True}

CONVERSATIONS: dict[str, Asked] = {
    "a user": ok(),
    "a system prompt": ok(SYSTEM, USER),
    "two users in a row": ok(USER, USER),
    "an assistant first": ok(SPOKEN, USER),
    "a system prompt last": ok(USER, SYSTEM),
    "a system prompt alone": ok(SYSTEM),
    "a system prompt between users": ok(USER, SYSTEM, USER),
    "no messages": no(said="", messages=[]),
    "a developer": no(
        {"role": "developer", "content": "be short"}, USER, said="Unknown message role: developer"
    ),
    "a function as role": no(
        USER,
        {"role": "function", "name": "f", "content": "x"},
        said="Unknown message role: function",
    ),
    "a role of one's own": no(
        {"role": "critic", "content": "x"}, said="Unknown message role: critic"
    ),
    "no role": by_schema({"content": "x"}, param=f"body.messages.0.{SHAPE}.role"),
    "a system prompt after an answer": no(
        USER, SPOKEN, SYSTEM, USER, said="Unexpected role 'system' after role 'assistant'"
    ),
    "a system prompt after a tool": no(
        USER, called(), result(), SYSTEM, USER, said="Unexpected role 'system' after role 'tool'"
    ),
    "an assistant alone": no(SPOKEN, said="Cannot set `add_generation_prompt` to True"),
    "an assistant last": no(USER, SPOKEN, said="Cannot set `add_generation_prompt` to True"),
    "an assistant last, with a prefix": no(
        USER, {**SPOKEN, "prefix": True}, said="Cannot set `add_generation_prompt` to True"
    ),
    "an answer to go on with": ok(USER, SPOKEN, **PREFILL),
    "an answer to go on with, alone": no(
        SPOKEN, said="Conversation must start with a user message or system message", **PREFILL
    ),
    "a question to go on with": no(
        USER, said="Cannot set `continue_final_message` to True", **PREFILL
    ),
    "an answer to go on with and to begin": no(
        USER,
        SPOKEN,
        continue_final_message=True,
        add_generation_prompt=True,
        said="Cannot set both `continue_final_message` and `add_generation_prompt` to True.",
    ),
    "an assistant last, and nothing to begin": no(
        USER, SPOKEN, add_generation_prompt=False, said="Expected last role User or Tool"
    ),
    "an empty answer": no(USER, {**SPOKEN, "content": ""}, USER, said="Invalid assistant message"),
    "an answer without content": no(
        USER, {"role": "assistant"}, USER, said="Invalid assistant message"
    ),
    "an answer with a trace": ok(USER, {**SPOKEN, "reasoning": "Why?"}, USER),
    "an answer with a trace by its other name": ok(
        USER, {**SPOKEN, "reasoning_content": "Why?"}, USER
    ),
    "a trace alone": ok(USER, {"role": "assistant", "reasoning": "Why?"}, USER),
    "a user without content": by_schema(
        {"role": "user", "content": None}, param=f"body.messages.0.{SHAPE}.content"
    ),
    "a user with a name": ok({**USER, "name": "Bob"}),
}

TOOLS: dict[str, Asked] = {
    "a call and its result": ok(USER, called(), result()),
    "two calls and their results": ok(
        USER, called("aaaaaaaaa", "bbbbbbbbb"), result("bbbbbbbbb"), result("aaaaaaaaa")
    ),
    "an answer beside a call": ok(USER, {**called(), "content": "I look"}, result()),
    "a short identifier": ok(USER, called("a"), result("a")),
    "an identifier of OpenAI's": ok(
        USER, called("call_0123456789abcdef"), result("call_0123456789abcdef")
    ),
    "identifiers that end alike": no(
        USER,
        called("call_1_abcdefghi", "call_2_abcdefghi"),
        result("call_1_abcdefghi"),
        said="Duplicate tool call id abcdefghi in assistant message",
    ),
    "an unknown identifier": no(
        USER,
        called(),
        result("zzzzzzzzz"),
        said="Unexpected tool call id zzzzzzzzz in tool results",
    ),
    "an identifier that was answered": no(
        USER, called(), result(), result(), said=f"Duplicate tool call id {TOOL_ID} in tool results"
    ),
    "an identifier twice": no(
        USER,
        called(TOOL_ID, TOOL_ID),
        result(),
        said=f"Duplicate tool call id {TOOL_ID} in assistant",
    ),
    "an identifier of an earlier call": no(
        USER,
        called(),
        result(),
        called("bbbbbbbbb"),
        result(TOOL_ID),
        said=f"Unexpected tool call id {TOOL_ID} in tool results",
    ),
    "an empty identifier": no(USER, called(""), result(""), said=BAD_ID),
    "an identifier null": no(USER, called("null"), result("null"), said=BAD_ID),
    "a result without identifier": no(
        USER, called(), {"role": "tool", "content": "{}"}, said="'tool_call_id'"
    ),
    "a call without identifier": by_schema(
        USER,
        {"role": "assistant", "tool_calls": [{"type": "function", "function": FUNCTION}]},
        param=f"body.0.{CALL_SHAPE}.id",
    ),
    "a call that nobody answered, and a user": ok(USER, called(), USER),
    "a call that nobody answered, and an answer": no(
        USER, called(), USER, SPOKEN, USER, said=UNPAIRED
    ),
    "one of two calls answered": no(
        USER, called("aaaaaaaaa", "bbbbbbbbb"), result("aaaaaaaaa"), SPOKEN, USER, said=UNPAIRED
    ),
    "a result without a call": no(USER, result(), said="Unexpected role 'tool' after role 'user'"),
    "a result alone": no(
        result(), said="Conversation must start with a user message or system message"
    ),
    "a result after the system prompt": no(
        SYSTEM, result(), said="Unexpected role 'tool' after role 'system'"
    ),
    "a call of a function with a blank": no(
        USER, called(name="get weather"), result(), said=BAD_NAME
    ),
    "a call of a function with a dot": no(USER, called(name="a.b"), result(), said=BAD_NAME),
    "a call of a function of 65 letters": no(USER, called(name="a" * 65), result(), said=BAD_NAME),
    "a call of a function of 64 letters": ok(USER, called(name="a" * 64), result()),
    "a result of a function with a blank": no(
        USER, called(), result(name="get weather"), said=BAD_NAME
    ),
    "a result of a function by its name": ok(USER, called(), result(name="get_weather")),
    "arguments that are no JSON": ok(USER, called(arguments="{oops"), result()),
    "arguments that are a list": ok(USER, called(arguments="[1]"), result()),
    "arguments as an object": by_schema(
        USER,
        called(arguments={"city": "Rome"}),
        result(),
        param=f"body.0.{CALL_SHAPE}.function",
    ),
    "a tool": ok(tools=[tool()]),
    "a tool without parameters": ok(tools=[{"type": "function", "function": {"name": "get_time"}}]),
    "a tool with a blank": no(tools=[tool(name="get weather")], said=BAD_NAME),
    "a tool with a blank, not to be called": no(
        tools=[tool(name="get weather")], tool_choice="none", said=BAD_NAME
    ),
    "a tool without a name": no(tools=[tool(name="")], said=BAD_NAME),
    "a tool of 65 letters": no(tools=[tool(name="a" * 65)], said=BAD_NAME),
    "a tool with an umlaut": no(tools=[tool(name="größe")], said=BAD_NAME),
    "a tool of an unknown type of JSON": no(
        tools=[tool(parameters={"type": "dict"})], said="Invalid tool schema: 'dict' is not valid"
    ),
    "a tool that requires by a word": no(
        tools=[tool(parameters={**WEATHER, "required": "city"})],
        said="Invalid tool schema: 'city' is not of type 'array'",
    ),
    "a tool that requires in the property": no(
        tools=[tool(parameters={"properties": {"city": {"type": "string", "required": True}}})],
        said="Invalid tool schema: True is not of type 'array'",
    ),
    "a tool with a pattern that is none": no(
        tools=[tool(parameters={"properties": {"city": {"pattern": "("}}})],
        said="Invalid tool schema: '(' is not a 'regex'",
    ),
    "a tool of another kind": by_schema(tools=[{"type": "web_search"}], param="body.tools.0.type"),
    "no tool": no(tools=[], said="`tools` must not be an empty array.", param="tools"),
    "a tool to call, and none there": no(
        tool_choice="required",
        said="When using `tool_choice`, `tools` must be set.",
        param="tool_choice",
    ),
    "any tool, and none there": no(
        tool_choice="auto",
        said="When using `tool_choice`, `tools` must be set.",
        param="tool_choice",
    ),
    "a tool to call that is another": no(
        tools=[tool()],
        tool_choice={"type": "function", "function": {"name": "nothing"}},
        said="does not match any of the specified `tools`",
        param="tool_choice",
    ),
    "a tool to call by no name": no(
        tools=[tool()],
        tool_choice={"type": "function", "function": {}},
        said="Expected field `name` in `function`",
        param="tool_choice.function.name",
    ),
    "a choice that is none": no(
        tools=[tool()],
        tool_choice="any",
        said="Invalid value for `tool_choice`: any!",
        param="tool_choice",
    ),
}

CONTENT: dict[str, Asked] = {
    "parts of text": ok(parts(text(), text())),
    "a part that is a text": no(parts("Hello"), said=""),
    "no part": ok(parts()),
    "a picture": ok(parts(text(), {"type": "image_url", "image_url": {"url": PICTURE}})),
    "a picture with a detail": ok(
        parts({"type": "image_url", "image_url": {"url": PICTURE, "detail": "high"}})
    ),
    "a file": no(
        parts({"type": "file", "file": {"file_id": "file-1"}}),
        said="Unsupported chat content part type: 'file'.",
        param="type",
    ),
    "a part of an unknown type": no(parts({"type": "document", "document": "x"}), said=""),
    "a part of no type": no(parts({"words": "x"}), said=""),
    "a text of Responses": no(parts({"type": "input_text", "text": "x"}), said=""),
    "a refusal": no(
        USER,
        parts({"type": "refusal", "refusal": "no"}, role="assistant"),
        USER,
        said="'refusal' is not a valid ChunkTypes",
    ),
    "sound": no(
        parts({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}),
        said="At most 0 audio(s) may be provided in one prompt.",
        param="audio",
    ),
    "a film": no(
        parts({"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}}),
        said="At most 0 video(s) may be provided in one prompt.",
        param="video",
    ),
    "a picture in the system prompt": no(
        parts({"type": "image_url", "image_url": {"url": PICTURE}}, role="system"),
        USER,
        said="ImageURLChunk cannot be used in system message.",
    ),
    "a picture in an answer": no(
        USER,
        parts({"type": "image_url", "image_url": {"url": PICTURE}}, role="assistant"),
        USER,
        said="ImageURLChunk cannot be used in assistant message.",
    ),
    "a trace in an answer": ok(
        USER, parts({"type": "thinking", "thinking": "Why?"}, text(), role="assistant"), USER
    ),
    "a trace in a question": no(
        parts({"type": "thinking", "thinking": "Why?"}),
        said="ThinkChunk cannot be used in user message.",
    ),
    "a trace in the system prompt": no(
        parts({"type": "thinking", "thinking": "Why?"}, role="system"),
        USER,
        said="Unexpected content chunk types in system message: ['ThinkChunk']",
    ),
    "a result of parts": ok(USER, called(), result(content=[text("{}")])),
}

FIELDS: dict[str, Asked] = {
    "arguments for a template": no(
        chat_template_kwargs={"enable_thinking": False},
        said="chat_template is not supported for Mistral tokenizers.",
        param="chat_template",
    ),
    "no arguments for a template": no(
        chat_template_kwargs={},
        said="chat_template is not supported for Mistral tokenizers.",
        param="chat_template",
    ),
    "a template": no(
        chat_template="{{ messages }}",
        said="chat_template is not supported for Mistral tokenizers.",
        param="chat_template",
    ),
    "options of a stream without one": no(
        stream_options={"include_usage": True},
        said="Stream options can only be defined when `stream=True`.",
        param="stream_options",
    ),
    "no options of a stream": ok(stream_options={}),
    "an effort that Mistral has not": no(
        reasoning_effort="medium",
        said="reasoning_effort=medium is not supported by Mistral models.",
        param="reasoning_effort",
    ),
    "an effort of no model": by_schema(reasoning_effort="hard", param="body.reasoning_effort"),
    "a schema that is missing": no(
        response_format={"type": "json_schema"},
        said="the 'json_schema' field must be provided.",
        param="response_format",
    ),
    "a schema of no name": by_schema(
        response_format={"type": "json_schema", "json_schema": {"schema": WEATHER}},
        param="body.response_format.json_schema.name",
    ),
    "a format of no kind": by_schema(
        response_format={"type": "xml"}, param="body.response_format.type"
    ),
    "two constraints": no(
        structured_outputs={"regex": "a", "choice": ["a"]},
        said="You can only use one kind of constraints for structured outputs",
    ),
    "probabilities of the best without any": no(
        top_logprobs=2,
        said="when using `top_logprobs`, `logprobs` must be set to true.",
        param="top_logprobs",
    ),
    "fewer than no probabilities": no(
        logprobs=True, top_logprobs=-2, said="must be a positive value or -1.", param="top_logprobs"
    ),
    "too many probabilities": no(
        logprobs=True,
        top_logprobs=21,
        said="Requested sample logprobs of 21, which is greater than max allowed: 20",
        param="logprobs",
    ),
    "probabilities of a prompt in a stream": no(
        stream=True,
        prompt_logprobs=1,
        said="`prompt_logprobs` are not available when `stream=True`.",
        param="prompt_logprobs",
    ),
    "a salt of a path": no(cache_salt="a/b", said="must not contain '@'", param="cache_salt"),
    "a salt": ok(cache_salt="kiZ3m0h4Tq"),
    "options for a picture's reader": no(
        media_io_kwargs={"image": {"rgba_background_color": [1, 2, 3]}},
        said="Per-request media_io_kwargs are disabled by default",
        param="media_io_kwargs",
    ),
    "options for a picture's processor": no(
        mm_processor_kwargs={"num_crops": 4},
        said="Per-request mm_processor_kwargs are disabled by default",
        param="mm_processor_kwargs",
    ),
    "a field that nobody knows": ok(nothing="x"),
}

SAMPLING: dict[str, Asked] = {
    "a temperature below zero": no(
        temperature=-1, said="must be non-negative", param="temperature"
    ),
    "a temperature above two": no(temperature=2.5, said="must be in [0, 2]", param="temperature"),
    "a temperature of two": ok(temperature=2),
    "top_p of zero": no(top_p=0, said="top_p must be in (0, 1]", param="top_p"),
    "top_k below minus one": no(top_k=-2, said="top_k must be 0 (disable), or at least 1, got -2."),
    "top_k of a half": by_schema(top_k=0.5, param="body.top_k"),
    "min_p above one": no(min_p=1.5, said="min_p must be in [0, 1], got 1.5."),
    "a presence that is too dear": no(
        presence_penalty=3, said="presence_penalty must be in [-2, 2]"
    ),
    "a frequency that is too dear": no(
        frequency_penalty=-3, said="frequency_penalty must be in [-2, 2]"
    ),
    "a repetition that costs nothing": no(
        repetition_penalty=0, said="repetition_penalty must be greater than zero"
    ),
    "no tokens": no(max_tokens=0, said="max_tokens must be at least 1, got 0.", param="max_tokens"),
    "fewer than no tokens": no(
        max_tokens=-1, said="max_tokens must be at least 1", param="max_tokens"
    ),
    "no completion tokens": no(
        max_completion_tokens=0, said="max_tokens must be at least 1, got 0.", param="max_tokens"
    ),
    "more tokens than there is room for": no(
        max_tokens=131_073,
        said="max_tokens=131073 cannot be greater than max_model_len=131072.",
        param="max_tokens",
    ),
    "more completion tokens than there is room for": no(
        max_completion_tokens=131_073,
        said="max_completion_tokens=131073 cannot be greater than max_model_len=131072.",
        param="max_completion_tokens",
    ),
    "all tokens that there are, and a prompt": ok(max_tokens=131_072),
    "at least fewer than none": no(
        min_tokens=-1, said="min_tokens must be greater than or equal to 0"
    ),
    "at least more than at most": no(min_tokens=3, said="min_tokens must be less than or equal to"),
    "no answer": no(n=0, said="n must be at least 1, got 0."),
    "too many answers": no(n=65, said="n must be at most 64, got 65."),
    "two answers that are one": no(
        n=2, temperature=0, said="n must be 1 when using greedy sampling, got 2."
    ),
    "two answers": ok(n=2),
    "an empty end": no(stop="", said="stop cannot contain an empty string."),
    "an empty end of several": no(stop=["a", ""], said="stop cannot contain an empty string."),
    "ends that are numbers": by_schema(stop=[1], param="body.stop"),
    "an end by a token": ok(stop_token_ids=[5]),
    "an end by a token that is none": no(
        stop_token_ids=[10**9],
        said="in stop_token_ids contain out-of-vocab",
        param="stop_token_ids",
    ),
    "a token that is none to favour": no(
        logit_bias={"1000000000": 1}, said="in logit_bias contain out-of-vocab", param="logit_bias"
    ),
    "a token by its text to favour": no(
        logit_bias={"a": 1}, said="cannot be converted to integer token IDs", param="logit_bias"
    ),
    "no token allowed": no(
        allowed_token_ids=[],
        said="allowed_token_ids is not None and empty!",
        param="allowed_token_ids",
    ),
    "an empty word that is bad": no(
        bad_words=[""], said="bad_words cannot contain an empty string."
    ),
    "a seed that is too large": by_schema(seed=2**63, param="body.seed"),
    "a whole number as text": by_schema(max_tokens="many", param="body.max_tokens"),
    "a number that is none": by_schema(temperature="hot", param="body.temperature"),
}


def recorded() -> dict[str, Asked]:
    """Read what a real vLLM 0.32 answered to requests that only differ in a detail."""
    lines = Path(__file__).with_name("real_answers.jsonl").read_text().splitlines()
    told = [json.loads(line) for line in lines]
    return {
        one["why"]: Asked(
            one["body"] if "path" in one else {"max_tokens": 2, **one["body"]},
            one.get("path", CHAT),
            status=one["must"],
            kind=one.get("type"),
            param=one.get("param"),
        )
        for one in told
    }


CHATS: dict[str, Asked] = CONVERSATIONS | TOOLS | CONTENT | FIELDS | SAMPLING | recorded()
"""By a name for people."""
