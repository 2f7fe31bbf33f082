"""The messages of a conversation: read as vLLM's schema and its reader of parts read them.

vLLM takes a message for one of several shapes, and names the first of them when none fits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emulator.standins.vllm.api_errors import ApiError, bad_request, schema_error

_FIRST_SHAPE = "ChatCompletionDeveloperMessageParam"
_CALL_SHAPE = "ChatCompletionMessageFunctionToolCallParam"
_TEXT_TYPES = ("text", "input_text", "output_text", "refusal", "thinking")
_DETAILS = ("auto", "low", "high")
_NOT_SERVED = {
    "input_audio": "audio",
    "audio_url": "audio",
    "video_url": "video",
}
"""Types of parts that the models here take none of, by what they are."""
_CLOSED = {
    "image_embeds": "--enable-mm-embeds",
    "audio_embeds": "--enable-mm-embeds",
    "video_embeds": "--enable-mm-embeds",
    "prompt_embeds": "--enable-prompt-embeds",
}
"""Types of parts that wait for an option, by that option."""
_SUPPORTED = (
    "audio_embeds, audio_url, image_embeds, image_pil, image_url, input_audio, input_image, "
    "input_text, output_text, prompt_embeds, refusal, text, thinking, tool_reference, "
    "video_embeds, video_url"
)


def read_messages(given: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the messages with their old names renamed, and their calls as lists.

    Raises:
        ApiError: 400, one has not the shape of a message.
    """
    return [_read(index, message) for index, message in enumerate(given)]


def check_parts(messages: Sequence[Mapping[str, Any]]) -> None:
    """Refuse parts that vLLM itself does not take, before it asks a tokenizer.

    Raises:
        ApiError: 400, or 500 where vLLM breaks.
    """
    for message in messages:
        content = message.get("content")
        if isinstance(content, Mapping):
            raise _bad_part("text", "text")
        for part in content if isinstance(content, list) else ():
            if not isinstance(part, str):
                _check_part(part)
        for call in message.get("tool_calls") or () if message["role"] == "assistant" else ():
            if call["type"] != "function":
                raise bad_request(
                    "chat completions only support assistant tool_calls of type 'function'.",
                    "tool_calls",
                )


def _read(index: int, message: Any) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise _misshapen(index, None, "dict_type", "Input should be a valid dictionary", message)
    read = dict(message)
    old_name = read.pop("reasoning_content", None)
    if read.get("reasoning") is None and old_name is not None:
        read["reasoning"] = old_name
    role = read.get("role")
    if not isinstance(role, str):
        raise _misshapen(index, "role", "literal_error", "Input should be 'developer'", role)
    if "content" in read:
        _check_content(index, role, read["content"])
    for name in ("name", "tool_call_id"):
        if not isinstance(read.get(name), str | None):
            raise _misshapen(index, "role", "literal_error", "Input should be 'developer'", role)
    calls = read.get("tool_calls")
    if calls is not None:
        read["tool_calls"] = list(calls)
        for at, call in enumerate(read["tool_calls"] if role == "assistant" else ()):
            _check_call(at, call)
    return read


def _check_content(index: int, role: str, content: Any) -> None:
    if content is None and role == "assistant":
        return
    if not isinstance(content, str | list | dict):
        message = "Input should be a valid string"
        raise _misshapen(index, "content", "string_type", message, content)


def _check_call(at: int, call: Any) -> None:
    if not isinstance(call, dict):
        raise _bad_call(at, None, "dict_type", "Input should be a valid dictionary", call)
    if not isinstance(call.get("id"), str):
        raise _bad_call(at, "id", "string_type", "Input should be a valid string", call.get("id"))
    kind = call.get("type")
    if kind == "custom" and isinstance(call.get("custom"), dict):
        return
    function = call.get("function")
    if not isinstance(function, dict):
        raise _bad_call(at, "function", "missing", "Field required", call)
    for name in ("arguments", "name"):
        if not isinstance(function.get(name), str):
            message = "Input should be a valid string"
            raise _bad_call(at, "function", "string_type", message, function.get(name))
    if kind != "function":
        raise _bad_call(at, "type", "literal_error", "Input should be 'function'", kind)


def _check_part(part: Any) -> None:
    if not isinstance(part, Mapping):
        raise bad_request(
            "1 validation error for ValidatorIterator\n0.ChatCompletionContentPartTextParam\n"
            "  Input should be a valid dictionary"
        )
    kind = part.get("type")
    if kind is None and "image_url" in part:
        # It finds the picture, and no place for it in the text.
        raise ApiError(
            500,
            "InternalServerError",
            "Expected there to be 1 prompt placeholders corresponding to 1 image items, but "
            "instead found 0 prompt placeholders!",
        )
    if kind == "file":
        raise bad_request(
            f"Unsupported chat content part type: 'file'. Supported types: {_SUPPORTED}.", "type"
        )
    if kind in _NOT_SERVED:
        what = _NOT_SERVED[kind]
        raise bad_request(f"At most 0 {what}(s) may be provided in one prompt.", what)
    if kind in _CLOSED:
        raise bad_request(f"You must set `{_CLOSED[kind]}` to input `{kind}`", kind)
    if kind == "image_url":
        _check_picture(part.get("image_url"))
    elif kind in _TEXT_TYPES:
        name = kind if kind in ("refusal", "thinking") else "text"
        if not isinstance(part.get(name), str):
            raise _bad_part(kind, name)
    elif kind != "tool_reference":
        raise _bad_part("text", "text")


def _check_picture(picture: Any) -> None:
    if not isinstance(picture, Mapping) or not isinstance(picture.get("url"), str):
        raise _bad_part("image", "image_url")
    if picture.get("detail", "auto") not in _DETAILS:
        raise _bad_part("image", "image_url.detail")


def _misshapen(index: int, field: str | None, kind: str, message: str, given: Any) -> ApiError:
    place = ("messages", index, _FIRST_SHAPE, *((field,) if field else ()))
    return schema_error([{"type": kind, "loc": place, "msg": message, "input": given}])


def _bad_call(at: int, field: str | None, kind: str, message: str, given: Any) -> ApiError:
    place = (at, _CALL_SHAPE, *((field,) if field else ()))
    return schema_error([{"type": kind, "loc": place, "msg": message, "input": given}])


def _bad_part(kind: str, field: str) -> ApiError:
    shape = f"ChatCompletionContentPart{kind.title()}Param"
    return bad_request(
        f"1 validation error for ValidatorIterator\n0.{shape}.{field}\n"
        "  Input should be a valid string"
    )
