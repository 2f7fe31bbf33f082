"""How a question is asked, how its answer is read, and what comes of a check.

Shapes are checked strictly. The content of an answer is not judged. The shapes are those of vLLM's
OpenAI API.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionMessage

from components.core.errors import StackError
from components.smoke_test.client import Client
from components.vllm.options.thinking import asked

LONGEST_REASONING = 4096
"""Tokens of trace and answer together: a thorough model thinks for longer than it speaks."""

MOST_TOKENS = 10**9
"""Of a question or an answer; no model's context is nearly as long."""


class CheckFailed(StackError):
    """The endpoint answered the smoke test otherwise than it must.

    The message says which check failed and how.

    Cost: the machine is billed on.
    Remedy: correct what the message names, then run `pulumi up` again.
    """


class NoConnection(CheckFailed):
    """The endpoint did not answer the smoke test at all.

    The remaining checks are left out, since they would wait in vain.

    Cost: the machine is billed on.
    Remedy: run `pulumi up` again, and replace the machine if it stays silent.
    """


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a check found, for the report."""

    detail: str
    measures: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """By name with unit, for the report's top level."""


Check = Callable[[Client], Finding]


def ask(
    client: Client, content: Any, *, max_tokens: int, wanted: bool | None = None
) -> ChatCompletion:
    """Ask for an answer; `wanted` says whether for one with a trace, if that matters."""
    return client.ai.chat.completions.create(
        model=client.target.model,
        messages=[{"role": "user", "content": content}],
        temperature=0.1,
        max_tokens=max_tokens,
        extra_body=asked(client.target.thinking, wanted) or None,
    )


def message_of(answer: ChatCompletion) -> ChatCompletionMessage:
    """The first choice's message, after a look at what stands around it."""
    if not isinstance(answer, ChatCompletion) or not answer.choices:
        raise CheckFailed("the answer is no chat completion with choices")
    choice = answer.choices[0]
    if choice.finish_reason not in ("stop", "length", "tool_calls"):
        raise CheckFailed(f"the answer's finish_reason is {choice.finish_reason!r}")
    if choice.message.role != "assistant":
        raise CheckFailed(f"the answer's role is {choice.message.role!r} and not 'assistant'")
    return choice.message


def usage_of(answer: ChatCompletion) -> CompletionUsage:
    """Return the tokens that an answer says it used."""
    used = answer.usage
    if used is None or not (is_count(used.prompt_tokens) and is_count(used.completion_tokens)):
        raise CheckFailed("the answer does not say how many tokens it used")
    return used


def is_count(tokens: object) -> bool:
    """Whether tokens can have been counted so: a whole number, and no more than a context has."""
    return isinstance(tokens, int) and 1 <= tokens <= MOST_TOKENS


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came: text, or a trace that met the token limit before there was any."""

    text: str
    is_cut: bool = False

    @property
    def shown(self) -> str:
        """For the report."""
        return (
            f"a trace that met the token limit, {quoted(self.text)}"
            if self.is_cut
            else quoted(self.text)
        )


def answer_of(answer: ChatCompletion) -> Answer:
    """Return the text of an answer, or its trace if nothing else came before the limit."""
    message = message_of(answer)
    content = message.content
    usage_of(answer)
    if isinstance(content, str) and content.strip():
        return Answer(content)
    if is_cut_trace(answer):
        return Answer(trace_of(message), is_cut=True)
    raise CheckFailed("the answer has no text in message.content")


def is_cut_trace(answer: ChatCompletion) -> bool:
    """Whether nothing but a trace came before the token limit."""
    message = message_of(answer)
    is_cut = answer.choices[0].finish_reason == "length"
    return is_cut and not (message.content or "").strip() and bool(trace_of(message).strip())


def with_trace(client: Client, tokens: int) -> int:
    """Leave a model that always thinks room for its trace, where an answer has to follow."""
    return LONGEST_REASONING if client.target.thinking == "always" else tokens


def trace_of(message: ChatCompletionMessage) -> str:
    """Return what the model thought, as vLLM takes it apart; empty without a trace."""
    return str((message.model_extra or {}).get("reasoning") or "")


def limit(client: Client, tokens: int) -> int:
    """Leave half of a short context to the question."""
    return max(1, min(tokens, client.target.max_model_len // 2))


def quoted(text: str) -> str:
    """Write a text in one line for the report, cut where it is long."""
    words = " ".join(text.split())
    return f"“{words[:80]}…”" if len(words) > 80 else f"“{words}”"  # noqa: PLR2004  (a line's worth)
