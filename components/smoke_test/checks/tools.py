"""Does the model call a tool, and take the answer to the call?"""

from __future__ import annotations

import json
import re

from openai.types.chat import (
    ChatCompletionMessageFunctionToolCall,
    ChatCompletionMessageParam,
    ChatCompletionToolParam,
)

from components.smoke_test.checks.answers import (
    CheckFailed,
    Finding,
    answer_of,
    is_cut_trace,
    limit,
    message_of,
    with_trace,
)
from components.smoke_test.client import Client
from components.vllm.options.thinking import asked

CALL_ID = re.compile(r"[A-Za-z0-9]{9}")
"""The ids of tool calls that Mistral's models take; vLLM's mistral_tool_parser.py makes such."""

WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


def check_tools(client: Client) -> Finding:
    """A tool is called, and the answer to the call is taken under the id that it came with."""
    question: ChatCompletionMessageParam = {
        "role": "user",
        "content": "How is the weather in Paris? Use the tool.",
    }
    found = _call(client, question)
    if found is None:
        return Finding("its trace met the token limit each time, so no tool was called")
    call, how = found
    identifier = call.id
    if client.target.mistral_call_ids and not CALL_ID.fullmatch(identifier or ""):
        raise CheckFailed(f"the call's id is {identifier!r} and not nine letters and digits")
    answer = client.ai.chat.completions.create(
        model=client.target.model,
        messages=[
            question,
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {
                        "id": identifier,
                        "type": "function",
                        "function": {
                            "name": call.function.name,
                            "arguments": call.function.arguments,
                        },
                    }
                ],
            },
            {"role": "tool", "tool_call_id": identifier, "content": '{"celsius": 21}'},
        ],
        tools=[WEATHER],
        tool_choice="none",
        temperature=0.1,
        max_tokens=limit(client, with_trace(client, 128)),
        extra_body=asked(client.target.thinking, None) or None,
    )
    return Finding(f"called {how} as {identifier}; {answer_of(answer).shown}")


def _call(
    client: Client, question: ChatCompletionMessageParam
) -> tuple[ChatCompletionMessageFunctionToolCall, str] | None:
    """The call that the model makes by itself; a model that would rather talk is instructed to.

    None if all that came are traces which met the token limit.
    """
    cut = 0
    for choice, how in (("auto", "by itself"), ("required", "when required")):
        answer = client.ai.chat.completions.create(
            model=client.target.model,
            messages=[question],
            tools=[WEATHER],
            tool_choice="auto" if choice == "auto" else "required",
            temperature=0.1,
            max_tokens=limit(client, with_trace(client, 128)),
            extra_body=asked(client.target.thinking, None) or None,
        )
        for call in message_of(answer).tool_calls or []:
            if isinstance(call, ChatCompletionMessageFunctionToolCall):
                return _checked(call), how
        cut += is_cut_trace(answer)
    if cut == 2:  # noqa: PLR2004  (both)
        return None
    raise CheckFailed("no tool is called, not even with tool_choice required")


def _checked(
    call: ChatCompletionMessageFunctionToolCall,
) -> ChatCompletionMessageFunctionToolCall:
    if not call.id or call.type != "function":
        raise CheckFailed("the tool call has no id, or is no function's")
    if call.function.name != WEATHER["function"]["name"]:
        raise CheckFailed(f"the tool that is called, {call.function.name!r}, was never offered")
    try:
        arguments = json.loads(call.function.arguments)
    except ValueError:
        raise CheckFailed("the tool call's arguments are no JSON") from None
    if not isinstance(arguments, dict) or not isinstance(arguments.get("city"), str):
        raise CheckFailed("the tool call's arguments lack the required city")
    return call
