"""One generation: what will be said is decided at once, then it is given out token by token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect, Request

from emulator.standins.vllm.answers import (
    Answer,
    Limits,
    Piece,
    bounded,
    completion_tokens,
)
from emulator.standins.vllm.engine import EngineDeadError
from emulator.standins.vllm.served import Served


@dataclass(frozen=True)
class Generation:
    """What one choice will be. `stopped_by` is the stop text that was met."""

    pieces: tuple[Piece, ...]
    finish_reason: str
    stopped_by: str | None
    answer: Answer

    @property
    def tokens(self) -> int:
        """Tokens that are generated."""
        return completion_tokens(self.pieces, self.finish_reason)

    @property
    def reasoning_tokens(self) -> int:
        """Those of them that are reasoning."""
        return sum(1 for piece in self.pieces if piece.part == "reasoning")

    def text(self, part: str, call: int = 0) -> str:
        """Return one part of what is said: reasoning, content, or the arguments of a call."""
        return "".join(
            piece.text for piece in self.pieces if piece.part == part and piece.call == call
        )

    def calls(self) -> list[tuple[str, str]]:
        """Return the calls that are made: name and JSON text."""
        begun = sorted({piece.call for piece in self.pieces if piece.part == "tool"})
        return [(self.answer.tool_calls[index].name, self.text("tool", index)) for index in begun]


def generation_of(answer: Answer, limits: Limits) -> Generation:
    """Return what `limits` leave of `answer`."""
    pieces, reason, met = bounded(answer, limits)
    return Generation(tuple(pieces), reason, met, answer)


async def run(served: Served, generation: Generation, prompt_tokens: int) -> AsyncIterator[Piece]:
    """Give the pieces out when they are due, and count how it ended.

    Raises:
        EngineDeadError: the engine died.
        ShutDownError: the server drains.
    """
    reason = "abort"
    try:
        async for index in served.engine.tokens(prompt_tokens, max(1, generation.tokens)):
            if index < len(generation.pieces):
                yield generation.pieces[index]
        reason = "length" if generation.finish_reason == "length" else "stop"
    except EngineDeadError:
        reason = "error"
        raise
    finally:
        served.metrics.finished[reason] += 1


async def all_to_end(
    served: Served, request: Request, generations: Sequence[tuple[Generation, int]]
) -> None:
    """Let generations (each with its prompt's tokens) run without giving them out.

    A client that hangs up ends them, as vLLM does.

    Raises:
        EngineDeadError: the engine died.
        ShutDownError: the server drains.
        ClientDisconnect: nobody waits for the answer any more.
    """
    work = asyncio.gather(*(_to_end(served, one, tokens) for one, tokens in generations))
    gone = asyncio.ensure_future(_gone(request))
    await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
    gone.cancel()
    if work.done():
        await work
        return
    work.cancel()
    raise ClientDisconnect


async def _to_end(served: Served, generation: Generation, prompt_tokens: int) -> None:
    async for _ in run(served, generation, prompt_tokens):
        pass


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def usage(served: Served, prompt_tokens: int, generations: list[Generation]) -> dict[str, Any]:
    """Return the usage of one request."""
    said = sum(generation.tokens for generation in generations)
    details = (
        {"cached_tokens": 0, "created_cache_tokens": 0, "multimodal_tokens": None}
        if served.settings.enable_prompt_tokens_details
        else None
    )
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + said,
        "completion_tokens": said,
        "prompt_tokens_details": details,
        "completion_tokens_details": {
            "reasoning_tokens": sum(one.reasoning_tokens for one in generations)
        },
    }
