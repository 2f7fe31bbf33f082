"""What the stand-in says: honest, short, the same for the same question. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emulator.standins.vllm.pictures import Picture, Viewer
from emulator.standins.vllm.schema_fill import fill
from emulator.standins.vllm.tokens import count, split

_MESSAGE_TOKENS = 4
_QUOTED = 160
_END = 1


@dataclass(frozen=True)
class ToolCall:
    """One call that the stand-in makes; `arguments` is JSON text."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Answer:
    """What is said, in this order. Empty parts are not said."""

    reasoning: str = ""
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True)
class Piece:
    """One token of an answer: of `reasoning`, `content`, or the arguments of call `call`."""

    part: str
    text: str
    call: int = 0


@dataclass(frozen=True)
class Question:
    """What a conversation asks: the last user's text, pictures, and a tool's result if it came."""

    text: str
    pictures: tuple[Picture, ...]
    tool_name: str | None
    tool_result: str | None
    prompt_tokens: int


def read_conversation(messages: Sequence[Mapping[str, Any]], viewer: Viewer) -> Question:
    """Find what is asked; `viewer` gets at its pictures.

    Raises:
        PictureError: a picture that is none.
    """
    tokens = 3
    text = ""
    pictures: list[Picture] = []
    for message in messages:
        said, shown = _content(message.get("content"), viewer)
        tokens += _MESSAGE_TOKENS + count(said) + sum(picture.tokens for picture in shown)
        tokens += count(json.dumps(message["tool_calls"])) if message.get("tool_calls") else 0
        if message.get("role") == "user":
            text = said
            pictures = shown
    last = messages[-1] if messages else {}
    result = _content(last.get("content"), viewer)[0] if last.get("role") == "tool" else None
    return Question(text, tuple(pictures), _tool_name(messages), result, tokens)


def answer_for(
    question: Question,
    *,
    model: str,
    tools: Sequence[Mapping[str, Any]],
    tool_choice: Any,
    schema: Mapping[str, Any] | None,
    reasoning: bool,
) -> Answer:
    """Say something about `question`.

    `tools` and `tool_choice` are those of the request, `schema` what the answer must satisfy.
    """
    thought = _thought(question) if reasoning else ""
    if isinstance(tool_choice, Mapping):
        chosen = tool_choice["function"]["name"]
        named = [tool for tool in tools if tool["function"]["name"] == chosen]
        return Answer(thought, tool_calls=(_call(named[0], question),))
    wants_call = tools and tool_choice != "none" and question.tool_result is None
    if tool_choice == "required" or (wants_call and schema is None):
        return Answer(thought, tool_calls=(_call(_fitting(tools, question.text), question),))
    if schema is not None:
        return Answer(thought, json.dumps(fill(schema, question.text), ensure_ascii=False))
    return Answer(thought, _text(question, model))


def pieces_of(answer: Answer) -> list[Piece]:
    """Return the answer token by token."""
    pieces = [Piece("reasoning", text) for text in split(answer.reasoning)]
    pieces += [Piece("content", text) for text in split(answer.content)]
    for index, call in enumerate(answer.tool_calls):
        pieces += [Piece("tool", text, index) for text in split(call.arguments)]
    return pieces


@dataclass(frozen=True)
class Limits:
    """What bounds a generation: tokens, and texts that end it."""

    max_tokens: int
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False


def bounded(answer: Answer, limits: Limits) -> tuple[list[Piece], str, str | None]:
    """Return the pieces that are generated, the finish reason, and the stop text that was met."""
    content, met = _stopped(answer.content, limits.stop)
    calls = () if met else answer.tool_calls
    pieces = pieces_of(Answer(answer.reasoning, content, calls))
    goes_on = limits.ignore_eos and not calls and not met
    if not calls and not met:
        wanted = limits.max_tokens if goes_on else limits.min_tokens
        pieces = _lengthened(pieces, content, wanted)
    if goes_on or len(pieces) > limits.max_tokens:
        return pieces[: limits.max_tokens], "length", None
    return pieces, "tool_calls" if calls else "stop", met


def completion_tokens(pieces: Sequence[Piece], reason: str) -> int:
    """Return how many tokens were generated: the end of a text is one as well."""
    return len(pieces) + (0 if reason == "length" else _END)


def _lengthened(pieces: list[Piece], content: str, wanted: int) -> list[Piece]:
    while content and len(pieces) < wanted:
        pieces = pieces + pieces_of(Answer(content=f" {content}"))
    return pieces


def _content(content: Any, viewer: Viewer) -> tuple[str, list[Picture]]:
    if isinstance(content, str):
        return content, []
    texts: list[str] = []
    pictures: list[Picture] = []
    for part in content or ():
        if isinstance(part, str):
            texts.append(part)
            continue
        kind = part.get("type")
        if kind in ("text", "input_text", "output_text"):
            texts.append(str(part.get("text", "")))
        elif kind in ("image_url", "input_image"):
            given = part.get("image_url")
            url = given["url"] if isinstance(given, Mapping) else str(given)
            pictures.append(viewer.look_at(url))
    return "\n".join(texts), pictures


def _tool_name(messages: Sequence[Mapping[str, Any]]) -> str | None:
    if not messages or messages[-1].get("role") != "tool":
        return None
    wanted = messages[-1].get("tool_call_id")
    for message in reversed(messages):
        for call in message.get("tool_calls") or ():
            if call.get("id") == wanted:
                return str(call["function"]["name"])
    return str(messages[-1].get("name") or "the tool")


def _text(question: Question, model: str) -> str:
    if question.tool_result is not None:
        return (
            f"{question.tool_name} says: {_quoted(question.tool_result)} "
            f"(read by the emulator's stand-in for {model})"
        )
    said = f"This is the emulator's stand-in for {model}: no model has read this. "
    said += f"You asked: {_quoted(question.text)}"
    if question.pictures:
        shown = "; ".join(picture.description for picture in question.pictures)
        number = len(question.pictures)
        said += f" With {number} picture{'s' if number > 1 else ''}: {shown}."
    return said


def _thought(question: Question) -> str:
    return (
        f"The question is: {_quoted(question.text)} A stand-in does not reason, so it repeats the "
        "question and answers that it is a stand-in."
    )


def _quoted(text: str) -> str:
    words = " ".join(text.split())
    return f"“{words[:_QUOTED]}…”" if len(words) > _QUOTED else f"“{words}”"


def _fitting(tools: Sequence[Mapping[str, Any]], text: str) -> Mapping[str, Any]:
    """Return the tool whose name and description share most words with the question."""
    asked = set(text.lower().replace("?", " ").split())

    def shared(tool: Mapping[str, Any]) -> int:
        function = tool["function"]
        told = f"{function['name']} {function.get('description', '')}"
        return len(asked & set(told.lower().replace("_", " ").split()))

    return max(tools, key=shared)


def _call(tool: Mapping[str, Any], question: Question) -> ToolCall:
    function = tool["function"]
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    return ToolCall(function["name"], json.dumps(fill(schema, question.text), ensure_ascii=False))


def _stopped(content: str, stops: Sequence[str]) -> tuple[str, str | None]:
    found = [(content.find(stop), stop) for stop in stops if stop and stop in content]
    if not found:
        return content, None
    at, stop = min(found)
    return content[:at], stop
