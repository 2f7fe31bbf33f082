"""What the router adds to an answer: to its beginning, and to each of its pieces."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import time
from collections.abc import Sequence

from toolchain.load_client import percentile
from toolchain.scale_out.connection import Connection, Target
from toolchain.scale_out.member_server import CHAT
from toolchain.scale_out.spread import Spread, differences

WARM_UPS = 20
PIECES = 25
PIECE_SECONDS = 0.04
"""Between two tokens, of a model that writes 25 a second."""

ENDING = b"\n\n"


@dataclasses.dataclass(frozen=True)
class Latency:
    """Milliseconds of one target, round by round."""

    target: str
    times: tuple[float, ...]

    @property
    def p50(self) -> float:
        """The median."""
        return percentile(self.times, 0.5)

    @property
    def p99(self) -> float:
        """What one answer of a hundred takes longer than."""
        return percentile(self.times, 0.99)

    def added_to(self, other: Latency) -> Spread:
        """How much longer it takes than another target in the same round."""
        return differences(other.times, self.times)


@dataclasses.dataclass(frozen=True)
class Pieces:
    """How the pieces of streams arrived."""

    target: str
    sent: int
    merged: int
    """Events that came in one chunk with another, or in several chunks."""
    p50: float
    """Milliseconds from the sending of a piece to its arrival."""
    p99: float


def latencies(targets: Sequence[Target], *, rounds: int, seconds: float) -> list[Latency]:
    """Ask all targets in turn on one connection each, so that a busy moment meets them alike.

    `seconds` is what the model takes for an answer.
    """
    return asyncio.run(_latencies(targets, rounds, seconds))


def streams(target: Target, *, clients: int) -> Pieces:
    """Stream from a target, with so many clients at once."""
    return asyncio.run(_streams(target, clients))


async def _latencies(targets: Sequence[Target], rounds: int, seconds: float) -> list[Latency]:
    body = chat("a short question", seconds=seconds)
    names = [target.name for target in targets]
    taken: dict[str, list[float]] = {name: [] for name in names}
    async with contextlib.AsyncExitStack() as stack:
        connections = {
            target.name: await stack.enter_async_context(Connection(target)) for target in targets
        }
        for number in range(rounds + WARM_UPS):
            for name in names if number % 2 else reversed(names):
                begun = time.perf_counter()
                await connections[name].ask(CHAT, body)
                if number >= WARM_UPS:
                    taken[name].append((time.perf_counter() - begun) * 1000)
    return [Latency(name, tuple(times)) for name, times in taken.items()]


async def _streams(target: Target, clients: int) -> Pieces:
    results = await asyncio.gather(*(_stream(target, number) for number in range(clients)))
    delays = [delay for one, _ in results for delay in one]
    merged = sum(one for _, one in results)
    return Pieces(
        target.name,
        clients * PIECES,
        merged,
        percentile(delays, 0.5) * 1000,
        percentile(delays, 0.99) * 1000,
    )


async def _stream(target: Target, number: int) -> tuple[list[float], int]:
    """Give the delays of an answer's events, and how many came in no chunk of their own."""
    body = chat(f"question {number}", seconds=PIECE_SECONDS, pieces=PIECES)
    delays = []
    alone = 0
    async with Connection(target) as connection:
        async for piece in connection.pieces(CHAT, body):
            now = time.monotonic()
            sent = [moment for moment in map(_sent, piece.split(ENDING)) if moment]
            alone += len(sent) == 1 and piece.endswith(ENDING)
            delays += [now - moment for moment in sent]
    return delays, PIECES - alone


def _sent(event: bytes) -> float:
    """The moment at which a member has sent an event; 0 for the last one, and for half an event."""
    try:
        (choice,) = json.loads(event.removeprefix(b"data: "))["choices"]
        return float(choice["delta"]["content"])
    except (ValueError, TypeError):
        return 0.0


def chat(question: str, *, seconds: float, pieces: int = 0) -> dict[str, object]:
    """A request that a member's model answers as `seconds` and `pieces` say."""
    return {
        "messages": [{"role": "user", "content": question}],
        "stream": pieces > 0,
        "plan": {"seconds": seconds, "pieces": pieces},
    }
