"""What Mistral's own tokenizer refuses of a conversation (`mistral_common` 1.12, tokenizer v15).

vLLM has it check each chat in its mode `test`. The library is not used here: it takes as long to
import as all of this stand-in, with each server that starts, and 70 MB of disk. `make test-vllm`
holds these rules to it, over conversations that nobody wrote.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any

from emulator.standins.vllm.api_errors import bad_request

Message = Mapping[str, Any]

CALL_ID = 9
"""Most characters of a call's identifier; vLLM keeps the last ones of a longer one."""

_FOLLOWS = {
    "system": ("user", "assistant", "system"),
    "user": ("assistant", "system", "user"),
    "assistant": ("assistant", "user", "tool"),
    "tool": ("assistant", "tool", "user"),
}
"""Roles by the role that they may stand behind."""

_CHUNKS = {
    "text": "TextChunk",
    "image_url": "ImageURLChunk",
    "input_audio": "AudioChunk",
    "audio_url": "AudioURLChunk",
    "thinking": "ThinkChunk",
}
"""The library's names of the parts of a message, by their type."""

_MEDIA = ("text", "image_url", "input_audio", "audio_url")
_ALLOWED = {
    "system": ("text", "input_audio", "audio_url", "thinking"),
    "user": _MEDIA,
    "assistant": ("text", "thinking"),
    "tool": _MEDIA,
}
"""Types of parts by role, as the messages' own classes take them."""

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}\n?")


def with_short_ids(message: Message) -> Message:
    """Cut the identifiers of calls as vLLM does in a chat; other routes keep them.

    Raises:
        ApiError: 400, there is none to cut.
    """
    role = message.get("role")
    if role == "assistant" and message.get("tool_calls"):
        calls = [{**call, "id": call["id"][-CALL_ID:]} for call in message["tool_calls"]]
        return {**message, "tool_calls": calls}
    if role == "tool" and "tool_call_id" in message:
        if message["tool_call_id"] is None:
            raise bad_request("object of type 'NoneType' has no len()")
        return {**message, "tool_call_id": message["tool_call_id"][-CALL_ID:]}
    return message


def check_last(messages: Sequence[Message], *, begins: bool, goes_on: bool) -> None:
    """Refuse an end that fits no answer, as vLLM does before it asks the tokenizer.

    Args:
        messages: the conversation.
        begins: `add_generation_prompt`: an answer is begun behind it.
        goes_on: `continue_final_message`: its last message is gone on with.

    Raises:
        ApiError: 400.
    """
    if begins and goes_on:
        raise bad_request(
            "Cannot set both `add_generation_prompt` and `continue_final_message` to True."
        )
    if not messages:
        raise bad_request("list index out of range")
    answered = messages[-1].get("role") == "assistant"
    if begins and answered:
        raise bad_request(
            "Cannot set `add_generation_prompt` to True when the last message is from the "
            "assistant. Consider using `continue_final_message` instead."
        )
    if goes_on and not answered:
        raise bad_request(
            "Cannot set `continue_final_message` to True when the last message is not from the "
            "assistant."
        )


def check_conversation(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], *, goes_on: bool
) -> None:
    """Refuse what the tokenizer refuses, in its own words and order.

    Args:
        messages: the conversation, in OpenAI's shape.
        tools: in OpenAI's shape.
        goes_on: whether the last message is an answer that is gone on with.

    Raises:
        ApiError: 400.
    """
    for message in messages:
        _check_shape(message)
    _check_ends(messages, goes_on=goes_on)
    _check_order(messages)
    _check_pairs(messages)
    for message in messages:
        _check_content(message)
    for tool in tools:
        _check_function(tool["function"])
    _check_answers(messages, goes_on=goes_on)


def _check_shape(message: Message) -> None:
    """Refuse what has no class of its own in the library."""
    role = str(message.get("role"))
    if role not in _ALLOWED:
        raise bad_request(f"Unknown message role: {role}")
    needed = {"assistant": (), "tool": ("content", "tool_call_id")}.get(role, ("content",))
    for name in needed:
        if name not in message:
            raise bad_request(f"'{name}'")
    kinds = _kinds(message)
    if role == "assistant" and message.get("reasoning") is not None:
        _check_trace(message["reasoning"], kinds)
    if role != "assistant" and message["content"] is None:
        raise bad_request(
            f"2 validation errors for {role.title()}Message\ncontent.str\n  Input should be a "
            "valid string [type=string_type, input_value=None, input_type=NoneType]"
        )
    for kind in kinds:
        if kind not in _ALLOWED[role]:
            raise bad_request(
                f"1 validation error for {role.title()}Message\n  Value error, {_CHUNKS[kind]} "
                f"cannot be used in {role} message."
            )


def _kinds(message: Message) -> list[str]:
    """Return the types of a message's parts.

    Raises:
        ApiError: one is none of the library's.
    """
    for part in _parts(message):
        if isinstance(part, str):
            raise bad_request("'str' object has no attribute 'get'")
        if part["type"] not in _CHUNKS:
            raise bad_request(f"'{part['type']}' is not a valid ChunkTypes")
        if part["type"] == "image_url":
            for name in part["image_url"]:
                if name not in ("url", "detail"):
                    raise bad_request(
                        f"2 validation errors for ImageURLChunk\nimage_url.ImageURL.{name}\n"
                        "  Extra inputs are not permitted"
                    )
    return [part["type"] for part in _parts(message)]


def _check_trace(trace: Any, kinds: Sequence[str]) -> None:
    if not isinstance(trace, str):
        raise bad_request(
            "1 validation error for ThinkChunk\nthinking\n  Input should be a valid string"
        )
    if "thinking" in kinds:
        raise bad_request(
            "Message cannot have both thinking chunks in `content` and a top-level `reasoning` or "
            "`reasoning_content` field."
        )


def _check_ends(messages: Sequence[Message], *, goes_on: bool) -> None:
    if len(messages) == 1 and messages[0]["role"] not in ("user", "system"):
        raise bad_request("Conversation must start with a user message or system message")
    if messages[-1]["role"] == "assistant" and not goes_on:
        raise bad_request(
            "Expected last role User or Tool (or Assistant with prefix) for serving but got "
            "assistant"
        )


def _check_order(messages: Sequence[Message]) -> None:
    for previous, message in pairwise(messages):
        if message["role"] not in _FOLLOWS[previous["role"]]:
            raise bad_request(
                f"Unexpected role '{message['role']}' after role '{previous['role']}'"
            )


def _check_pairs(messages: Sequence[Message]) -> None:
    """Refuse results without a call, and calls without a result before the next answer."""
    called: set[str] = set()
    answered: set[str] = set()
    # The library passes over the first message, whatever it calls.
    for message in messages[1:]:
        if message["role"] == "tool":
            identifier = message["tool_call_id"]
            if identifier in answered:
                raise bad_request(f"Duplicate tool call id {identifier} in tool results")
            if identifier not in called:
                raise bad_request(f"Unexpected tool call id {identifier} in tool results")
            answered.add(identifier)
        elif message["role"] == "assistant":
            if len(called) != len(answered):
                raise bad_request("Not the same number of function calls and responses")
            called.clear()
            answered.clear()
            for call in message.get("tool_calls") or ():
                if call["id"] in called:
                    raise bad_request(f"Duplicate tool call id {call['id']} in assistant message")
                called.add(call["id"])


def _check_content(message: Message) -> None:
    if message["role"] == "system" and any(one["type"] == "thinking" for one in _parts(message)):
        raise bad_request("Unexpected content chunk types in system message: ['ThinkChunk']")
    for call in message.get("tool_calls") or () if message["role"] == "assistant" else ():
        _check_call_id(call["id"])
        _check_name(call["function"]["name"])
    if message["role"] == "tool":
        if message.get("name") is not None:
            _check_name(message["name"])
        _check_call_id(message["tool_call_id"])


def _check_function(function: Mapping[str, Any]) -> None:
    # Only who sends tools waits for it.
    from jsonschema import Draft7Validator, SchemaError  # noqa: PLC0415

    try:
        Draft7Validator.check_schema(function.get("parameters") or {})
    except SchemaError as error:
        raise bad_request(f"Invalid tool schema: {error.message}") from error
    _check_name(function["name"])


def _check_answers(messages: Sequence[Message], *, goes_on: bool) -> None:
    """Refuse an answer that says and calls nothing; answers in a row are one."""
    for role, group in groupby(messages, key=lambda message: message["role"]):
        answers = list(group)
        if role == "assistant" and not any(_says_or_calls(one) for one in answers):
            prefix = goes_on and answers[-1] is messages[-1]
            raise bad_request(
                "Invalid assistant message: role='assistant' content='' tool_calls=None "
                f"prefix={prefix}"
            )


def _says_or_calls(answer: Message) -> bool:
    parts = _parts(answer) or [{"type": "text", "text": answer.get("content")}]
    says = any(part["type"] != "text" or part["text"] for part in parts)
    return says or bool(answer.get("tool_calls")) or answer.get("reasoning") is not None


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise bad_request(
            f"Function name was {name} but must be a-z, A-Z, 0-9, or contain underscores and "
            "dashes, with a maximum length of 64."
        )


def _check_call_id(identifier: str) -> None:
    if not identifier or identifier == "null":
        raise bad_request(
            "Tool call id must be a non-empty string other than 'null' for tokenizer version 13 "
            "or newer."
        )


def _parts(message: Message) -> list[Any]:
    content = message.get("content")
    return list(content) if isinstance(content, list) else []
