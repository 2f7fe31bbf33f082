from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest

from tests.emulator.standins.asked_server import chat, post
from tests.emulator.standins.support import MISTRAL

ANTHROPIC_TOOL = {
    "name": "get_weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}


def test_completions(ai: openai.OpenAI) -> None:
    whole = ai.completions.create(model=MISTRAL, prompt=["One", "Two"], max_tokens=20)
    stream = ai.completions.create(model=MISTRAL, prompt="One", max_tokens=20, stream=True)

    assert [choice.index for choice in whole.choices] == [0, 1]
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 40
    assert "".join(chunk.choices[0].text for chunk in stream) == whole.choices[0].text


def test_responses(ai: openai.OpenAI) -> None:
    whole = ai.responses.create(model=MISTRAL, input="Hello", reasoning={"effort": "high"})
    events = list(ai.responses.create(model=MISTRAL, input="Hello", stream=True))

    assert "stand-in" in whole.output_text
    assert [item.type for item in whole.output] == ["reasoning", "message"]
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == whole.output_text
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"


def test_messages_in_anthropics_shape(http: httpx.Client) -> None:
    asked = chat(model=MISTRAL, max_tokens=5, system="Be short")
    whole = post(http, "/v1/messages", asked).json()
    stream = post(http, "/v1/messages", asked | {"stream": True}).text
    counted = post(http, "/v1/messages/count_tokens", asked).json()
    weighed = post(http, "/v1/messages/count_tokens", asked | {"tools": [ANTHROPIC_TOOL]}).json()

    assert (whole["type"], whole["role"]) == ("message", "assistant")
    assert (whole["stop_reason"], whole["usage"]["output_tokens"]) == ("max_tokens", 5)
    tokens = whole["usage"]["input_tokens"]
    assert counted == {
        "input_tokens": tokens,
        "context_management": {"original_input_tokens": tokens},
    }
    assert weighed["input_tokens"] > tokens
    events = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: ")]
    texts = [event["delta"]["text"] for event in events if event["type"] == "content_block_delta"]
    assert "".join(texts) == whole["content"][0]["text"]
    assert (events[0]["type"], events[-1]["type"]) == ("message_start", "message_stop")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/generative_scoring", {"query": "a b", "items": ["a", "c"]}, 200),
        ("/generative_scoring", {"query": "a b"}, 400),
        ("/scale_elastic_ep", {}, 400),
        ("/scale_elastic_ep", {"new_data_parallel_size": 2}, 500),
        ("/v1/completions", {"prompt": []}, 400),
        ("/v1/messages", chat(), 400),
        ("/invocations", {"nothing": 1}, 400),
        ("/tokenize", {}, 400),
    ],
)
def test_other_routes_check_their_bodies(
    http: httpx.Client, path: str, body: Any, status: int
) -> None:
    assert post(http, path, body).status_code == status
