"""Does a trace come where it is asked for, apart from the answer, and not where it is not?"""

from __future__ import annotations

import openai

from components.smoke_test.checks.answers import (
    LONGEST_REASONING,
    CheckFailed,
    Finding,
    answer_of,
    ask,
    limit,
    message_of,
    trace_of,
)
from components.smoke_test.client import Client

CANNOT_HELP_IT = "if the model cannot do without one, the profile says so: `thinking: always`"
"""What may be the matter where a model thinks though it is asked not to."""

TRACE_MARKS = ("[THINK]", "[/THINK]", "<think>", "</think>")
"""Where a trace begins and ends in a text that no reasoning parser has taken apart."""


def check_reasoning_high(client: Client) -> Finding:
    """Where a trace is asked for, or always comes, it comes apart from the answer."""
    answer = ask(
        client,
        "A bat and a ball cost 1.10 together, the bat 1.00 more than the ball. The ball costs?",
        max_tokens=limit(client, LONGEST_REASONING),
        wanted=True,
    )
    trace = trace_of(message_of(answer))
    if not trace:
        raise CheckFailed(f"{_asked_with(client, True)} there is no trace in message.reasoning")
    _check_apart(message_of(answer).content or "")
    return Finding(f"a trace of {len(trace)} characters, apart from the answer")


def check_reasoning_none(client: Client) -> Finding:
    """Where no trace is asked for, there is an answer and no trace."""
    question = "How many legs has a cat?"
    try:
        answer = ask(client, question, max_tokens=limit(client, 64), wanted=False)
    except openai.BadRequestError as error:
        raise CheckFailed(
            f"{_asked_with(client, False)} it is refused ({error.message}); {CANNOT_HELP_IT}"
        ) from None
    said = answer_of(answer)
    if trace_of(message_of(answer)):
        raise CheckFailed(
            f"{_asked_with(client, False)} there is a trace in message.reasoning; {CANNOT_HELP_IT}"
        )
    _check_apart(said.text)
    return Finding(said.shown)


def _asked_with(client: Client, wanted: bool) -> str:
    """Name what the model was asked with, as the beginning of a sentence."""
    if client.target.thinking == "always":
        return "though its profile says that it always thinks,"
    if client.target.thinking == "switch":
        return f"with thinking switched {'on' if wanted else 'off'}"
    return f"with reasoning_effort {'high' if wanted else 'none'}"


def _check_apart(text: str) -> None:
    for mark in TRACE_MARKS:
        if mark in text:
            raise CheckFailed(f"the answer's text holds {mark}: the trace is not taken out of it")
