"""From the messages of a request to what is asked: every route that takes messages comes here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emulator.standins.vllm.answers import Question, read_conversation
from emulator.standins.vllm.api_errors import bad_request, from_picture
from emulator.standins.vllm.messages import check_parts
from emulator.standins.vllm.mistral_rules import check_conversation, check_last, with_short_ids
from emulator.standins.vllm.pictures import PictureError
from emulator.standins.vllm.served import Served

_PICTURES = ("image_url", "input_image")


def question_of(
    served: Served,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] = (),
    *,
    begins: bool = True,
    goes_on: bool = False,
    is_chat: bool = False,
) -> Question:
    """Return what a conversation asks.

    Args:
        served: the server.
        messages: the conversation, in OpenAI's shape.
        tools: in OpenAI's shape.
        begins: `add_generation_prompt`.
        goes_on: `continue_final_message`.
        is_chat: whether vLLM makes the identifiers of calls fit, which it does for chats alone.

    Raises:
        ApiError: vLLM or the model's tokenizer refuses it, or a picture cannot be had.
    """
    if is_chat and served.shape.mistral:
        messages = [with_short_ids(message) for message in messages]
    check_parts(messages)
    served.check_pictures(sum(_pictures(message) for message in messages))
    try:
        question = read_conversation(messages, served.settings.viewer)
    except PictureError as error:
        raise from_picture(error) from error
    if served.shape.mistral:
        check_last(messages, begins=begins, goes_on=goes_on)
        check_conversation(messages, tools, goes_on=goes_on)
    elif not messages:
        raise bad_request("list index out of range")
    return question


def _pictures(message: Mapping[str, Any]) -> int:
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    return sum(1 for part in parts if isinstance(part, Mapping) and part.get("type") in _PICTURES)
