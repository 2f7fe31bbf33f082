"""Is the right model served, does it answer in text, and does an answer come as a stream?"""

from __future__ import annotations

from openai.types import CompletionUsage

from components.smoke_test.checks.answers import (
    CheckFailed,
    Finding,
    answer_of,
    ask,
    is_count,
    limit,
)
from components.smoke_test.client import Client

LONGEST_STREAM = 512
"""Tokens; a server with a short context is asked for fewer."""


def check_model(client: Client) -> Finding:
    """The endpoint names the model, with the context length that was ordered."""
    served = client.ai.models.list().data or []
    known = {one.id: one for one in served}
    target = client.target
    if target.model not in known:
        raise CheckFailed(f"it serves {', '.join(known) or 'nothing'} and not {target.model}")
    length = (known[target.model].model_extra or {}).get("max_model_len")
    if length != target.max_model_len:
        raise CheckFailed(f"its context is {length} tokens and not {target.max_model_len}")
    return Finding(f"{target.model} with {length} tokens of context")


def check_text(client: Client) -> Finding:
    """A question gets an answer in text."""
    answer = ask(client, "In one short sentence: what are you?", max_tokens=limit(client, 64))
    return Finding(answer_of(answer).shown)


def check_streaming(client: Client) -> Finding:
    """An answer comes in pieces, ends, and says what it used; here speed is measured."""
    started = client.clock.monotonic()
    pieces: list[float] = []
    ended: str | None = None
    usage: CompletionUsage | None = None
    with client.ai.chat.completions.create(
        model=client.target.model,
        messages=[{"role": "user", "content": "Count from one to sixty, in words."}],
        temperature=0.1,
        max_tokens=limit(client, LONGEST_STREAM),
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        for chunk in stream:
            usage = chunk.usage or usage
            for choice in chunk.choices or []:
                ended = choice.finish_reason or ended
                delta = choice.delta
                if delta.content or (delta.model_extra or {}).get("reasoning"):
                    pieces.append(client.clock.monotonic())
    if len(pieces) < 2:  # noqa: PLR2004  (one piece is no stream)
        raise CheckFailed(f"the stream had {len(pieces)} pieces of text, so it is none")
    if ended is None:
        raise CheckFailed("the stream broke off without a finish_reason")
    if usage is None or not is_count(usage.completion_tokens):
        raise CheckFailed("the stream did not end with its usage, though it was asked to")
    return _speed(started, pieces, usage.completion_tokens)


def _speed(started: float, pieces: list[float], tokens: int) -> Finding:
    first = pieces[0] - started
    # The first token ends the wait for the prompt, so it is no part of the generation.
    generation = pieces[-1] - pieces[0]
    if generation <= 0:
        raise CheckFailed(f"all {len(pieces)} pieces of the stream came at once, so it is none")
    rate = (tokens - 1) / generation
    return Finding(
        f"{tokens} tokens, the first after {first:.2f} s, then {rate:.0f} a second",
        {"seconds_to_first_token": first, "tokens_per_second": rate},
    )
