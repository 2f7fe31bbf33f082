"""What the stand-in says, and how requests bound it."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest

from emulator.standins import web
from emulator.standins.vllm.answers import (
    Answer,
    Limits,
    ToolCall,
    answer_for,
    bounded,
    completion_tokens,
    read_conversation,
)
from emulator.standins.vllm.pictures import PictureError, Viewer
from emulator.standins.vllm.schema_fill import fill
from emulator.standins.vllm.tokens import Tokenizer, count

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "unit": {"type": "string", "enum": ["kelvin", "celsius"]},
                "days": {"type": "integer", "minimum": 1, "maximum": 7},
            },
            "required": ["city"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "get_time", "description": "The time now"}}


def say(text: str, **given: Any) -> Answer:
    question = read_conversation([{"role": "user", "content": text}], Viewer())
    asked: dict[str, Any] = {
        "model": "some/model",
        "tools": (),
        "tool_choice": None,
        "schema": None,
        "reasoning": False,
    }
    return answer_for(question, **(asked | given))


def test_a_plain_answer_is_honest_and_the_same_each_time() -> None:
    answer = say("What is a hash?")

    assert answer == say("What is a hash?")
    assert "stand-in for some/model" in answer.content
    assert "What is a hash?" in answer.content
    assert answer.reasoning == ""


def test_reasoning_stands_apart() -> None:
    answer = say("Why?", reasoning=True)

    assert "Why?" in answer.reasoning
    assert answer.content == say("Why?").content


@pytest.mark.parametrize(
    ("choice", "text", "name"),
    [
        (None, "What is the weather in Paris for 3 days, in celsius?", "get_weather"),
        ("auto", "What time is it now?", "get_time"),
        ("required", "Hello", "get_weather"),
        ({"type": "function", "function": {"name": "get_time"}}, "weather?", "get_time"),
    ],
)
def test_a_tool_is_called(choice: Any, text: str, name: str) -> None:
    answer = say(text, tools=[WEATHER, CLOCK], tool_choice=choice)

    assert [call.name for call in answer.tool_calls] == [name]
    assert answer.content == ""


def test_arguments_come_from_the_schema_and_the_question() -> None:
    (call,) = say("Weather in Buenos Aires for 3 days in celsius?", tools=[WEATHER]).tool_calls

    assert json.loads(call.arguments) == {"city": "Buenos Aires", "unit": "celsius", "days": 3}


def test_tools_may_be_forbidden() -> None:
    assert say("weather?", tools=[WEATHER], tool_choice="none").tool_calls == ()


def test_a_tools_result_is_cited() -> None:
    call = {
        "id": "abcdefghi",
        "type": "function",
        "function": {"name": "get_weather", "arguments": "{}"},
    }
    question = read_conversation(
        [
            {"role": "user", "content": "Weather in Paris?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "abcdefghi", "content": '{"celsius": 21}'},
        ],
        Viewer(),
    )

    answer = answer_for(
        question, model="m", tools=[WEATHER], tool_choice=None, schema=None, reasoning=False
    )

    assert answer.tool_calls == ()
    assert answer.content.startswith('get_weather says: “{"celsius": 21}”')


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, "Paris"),
        ({"type": "string", "maxLength": 3}, "Par"),
        ({"type": "string", "format": "date"}, "2026-01-01"),
        ({"enum": ["rome", "paris"]}, "paris"),
        ({"const": 7}, 7),
        ({"type": "integer"}, 12),
        ({"type": "integer", "minimum": 20}, 20),
        ({"type": "number", "exclusiveMaximum": 1}, 0.5),
        ({"type": "boolean"}, True),
        ({"type": "null"}, None),
        ({"type": ["null", "integer"]}, 12),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [12, 12]),
        ({"type": "array", "maxItems": 0}, []),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, 12),
        ({"allOf": [{"type": "object"}, {"properties": {"n": {"type": "integer"}}}]}, {"n": 12}),
        (
            {"$ref": "#/$defs/City", "$defs": {"City": {"properties": {"name": {}}}}},
            {"name": "Paris"},
        ),
    ],
)
def test_a_schema_is_satisfied(schema: dict[str, Any], value: object) -> None:
    assert fill(schema, "Tell me 12 things about Paris") == value


def test_a_schema_that_contains_itself_ends() -> None:
    tree = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "child": {"$ref": "#"}},
        "required": ["name"],
    }

    assert fill(tree, "Oak and Ash")["child"]["child"]["name"] == "Ash"


@pytest.mark.parametrize(
    ("limits", "text", "reason", "met"),
    [
        (Limits(100), "0123456789", "stop", None),
        (Limits(2), "01234567", "length", None),
        (Limits(3), "0123456789", "stop", None),
        (Limits(100, stop=("56", "3")), "012", "stop", "3"),
        (Limits(6, min_tokens=5), "0123456789 0123456789", "stop", None),
        (Limits(7, ignore_eos=True), "0123456789 0123456789 012", "length", None),
    ],
)
def test_a_generation_is_bounded(limits: Limits, text: str, reason: str, met: str | None) -> None:
    pieces, finish, stopped_by = bounded(Answer(content="0123456789"), limits)

    said = "".join(piece.text for piece in pieces)
    assert said == text
    assert (finish, stopped_by) == (reason, met)
    assert completion_tokens(pieces, finish) == len(pieces) + (finish != "length")


def test_a_call_that_is_cut_off_ends_for_length() -> None:
    pieces, finish, _ = bounded(Answer(tool_calls=(ToolCall("f", '{"a": 12345}'),)), Limits(1))

    assert ([piece.text for piece in pieces], finish) == (['{"a"'], "length")


def png(width: int, height: int) -> str:
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    content = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + size + b"\x08\x02\0\0\0"
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def test_a_picture_is_measured() -> None:
    picture = Viewer().look_at(png(56, 56))

    assert picture.description == "PNG of 56x56 pixels"
    assert picture.tokens == 9
    assert Viewer().look_at(png(560, 560)).tokens > 100


RECIPE = (
    "https://static.wikia.nocookie.net/essentialsdocs/images/7/70/Battle.png/revision/latest"
    "?cb=20220523172438"
)


def test_a_picture_on_the_web_is_the_emulator_s() -> None:
    there = Viewer(("static.wikia.nocookie.net",), follows=False).look_at(RECIPE)
    assert there.description == "PNG of 720x432 pixels from static.wikia.nocookie.net"
    assert there.tokens == 435
    other = Viewer().look_at("https://images.example.org/some/cat.jpg?size=2")
    assert re.fullmatch(r"JPEG of \d+x\d+ pixels from images\.example\.org", other.description)
    assert other == Viewer().look_at("https://images.example.org/some/cat.jpg?size=2")


@pytest.mark.parametrize(
    ("url", "status", "said"),
    [
        ("https://example.com/cat", 422, "HTTP 404 error"),
        ("https://example.com/secret.png", 422, "HTTP 403 error"),
        ("http://127.0.0.1:8000/cat.png", 500, "Cannot connect to host 127.0.0.1:8000"),
        ("http://localhost/cat.png", 500, "Cannot connect to host"),
        ("http://2130706433/cat.png", 500, "Cannot connect to host"),
        ("http://none.invalid/cat.png", 500, "Cannot connect to host"),
        ("https://example.com/inside.png", 500, "Cannot connect to host 127.0.0.1"),
    ],
)
def test_what_is_not_on_the_web_cannot_be_fetched(url: str, status: int, said: str) -> None:
    with pytest.raises(PictureError, match=said) as refused:
        Viewer().look_at(url)
    assert refused.value.status == status


def test_a_list_of_domains_is_held_to_as_vllm_does_it() -> None:
    listed = Viewer(("example.com",))
    assert listed.look_at("https://EXAMPLE.com/cat.png").description.startswith("PNG")
    assert listed.look_at(png(56, 56)).tokens == 9
    said = r"from one of the allowed domains: \['example.com'\]. Input URL domain: www.example.com"
    with pytest.raises(PictureError, match=said) as refused:
        listed.look_at("https://www.example.com/cat.png")
    assert refused.value.status == 400
    # What it is redirected to is not looked at; that is what it must not follow for.
    assert listed.look_at("https://example.com/moved.png").description.startswith("JPEG")
    still = Viewer(("example.com",), follows=False)
    with pytest.raises(PictureError, match="cannot identify image file"):
        still.look_at("https://example.com/moved.png")
    with pytest.raises(PictureError, match="allowed domains"):
        Viewer(("none.invalid",)).look_at(RECIPE)


def test_each_address_of_the_catalogue_says_what_it_is() -> None:
    for url in web._catalogue():
        page = web.get(url)
        assert [bool(page.kind), bool(page.location), page.status >= 400].count(True) == 1


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("cat.jpg", "The URL must be either a HTTP, data or file URL."),
        ("data:image/png;base64,!!!", "Failed to load image"),
        ("data:image/png;base64,aGVsbG8=", "cannot identify image file"),
        ("data:image/png,abc", "Only base64 data URLs are supported"),
    ],
)
def test_what_is_no_picture_is_refused(url: str, said: str) -> None:
    with pytest.raises(PictureError, match=said):
        Viewer().look_at(url)


def test_tokens_are_about_four_characters_and_can_be_joined() -> None:
    tokenizer = Tokenizer()
    text = "Voilà: a text, with some words."

    numbers = tokenizer.encode(text)

    assert len(numbers) == count(text) == 8
    assert tokenizer.decode(numbers) == text
    assert numbers == Tokenizer().encode(text)
    assert tokenizer.decode([1]) == "\ufffd"
