"""How long vLLM's steps take, and who gets a token in each: a scheduler in virtual time.

vLLM works in steps. Each running sequence gets one token in a step, and what is left of the step's
budget of tokens reads prompts, first come first served. A step's prompts are chosen while the step
before it runs, as vLLM's asynchronous scheduling does.

The times were measured with Mistral Small 4 (FP8) on two H200 and on one, and vLLM 0.26.0. They lie
in docs/measured. Every model and every GPU gets these.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Speeds:
    """Milliseconds of steps as they were measured."""

    decode: Mapping[int, float]
    """Of a step without prompts, by the sequences that get a token in it."""
    prompts: Mapping[int, float]
    """Of a step with prompts, by its tokens."""


RECIPE = Speeds(
    decode={1: 5.13, 16: 10.19, 64: 17.68, 256: 24.47},
    prompts={
        64: 24.3,
        256: 29.4,
        512: 31.9,
        768: 87.7,
        1024: 92.1,
        2048: 97.6,
        4096: 95.8,
        8192: 147.9,
    },
)
"""The run `recipe-b` on two GPUs. Steps above 512 tokens run outside CUDA graphs."""

LATENCY = Speeds(
    decode={1: 4.45, 16: 10.48, 64: 17.31, 256: 23.88},
    prompts={
        64: 25.6,
        256: 30.0,
        512: 35.5,
        768: 48.3,
        1024: 45.9,
        2048: 49.5,
        4096: 76.9,
        8192: 138.4,
    },
)
"""The run `latency-a` on two GPUs: CUDA graphs up to 8192 tokens, and the Triton MoE."""

ONE_GPU = Speeds(
    decode={1: 5.21, 8: 10.64, 32: 22.25, 128: 33.24},
    prompts={
        64: 35.2,
        256: 42.1,
        512: 45.5,
        768: 48.6,
        1024: 50.6,
        2048: 72.3,
        4096: 116.3,
        8192: 186.2,
    },
)
"""The run `graphs-a` on one GPU: CUDA graphs up to 8192 tokens."""

THROUGHPUT = Speeds(
    decode={1: 6.57, 8: 11.39, 32: 19.05, 128: 24.85},
    prompts={
        64: 31.1,
        256: 34.7,
        512: 42.6,
        768: 45.4,
        1024: 63.3,
        2048: 75.4,
        4096: 111.2,
        8192: 197.9,
    },
)
"""Each of two engines, with half the sequences: the run `throughput-e`. Its prompts were timed with
two API servers, in the run `dp2-ep-graphs-c`."""

LARGEST_GRAPH = 8192
"""Tokens of the largest graph of `LATENCY`, `ONE_GPU` and `THROUGHPUT`."""


@dataclass(eq=False)
class Sequence:
    """One request: tokens of its prompt that are still to be read, and tokens that it has got."""

    unread: int
    wanted: int
    """Tokens of its answer."""
    given: int = 0

    @property
    def ended(self) -> bool:
        """True once it has got every token."""
        return self.given >= self.wanted


@dataclass
class Steps:
    """The steps of one engine: `begin` gives the next one's seconds, `end` its tokens."""

    budget: int = 8192
    """Tokens of one step at most, prompts and answers together (`max-num-batched-tokens`)."""
    speeds: Speeds = RECIPE
    _waiting: list[Sequence] = field(default_factory=list)
    """Prompts that are still to be read; the first may be read in part."""
    _chosen: dict[Sequence, int] = field(default_factory=dict)
    """Prompts of the next step, with the tokens that are read of each."""
    _reading: dict[Sequence, int] = field(default_factory=dict)
    """The same of the step under way."""
    _running: list[Sequence] = field(default_factory=list)
    """Sequences that get a token in each step."""

    @property
    def sequences(self) -> int:
        """Those that wait, are read or get tokens."""
        return len({*self._waiting, *self._chosen, *self._reading, *self._running})

    @property
    def busy(self) -> bool:
        """True while there is anything to do."""
        return bool(self._waiting or self._chosen or self._reading or self._running)

    def add(self, sequence: Sequence) -> None:
        """Let a sequence wait for its turn."""
        self._waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence, wherever it is: its client is gone."""
        for held in (self._waiting, self._running):
            if sequence in held:
                held.remove(sequence)
        self._chosen.pop(sequence, None)
        self._reading.pop(sequence, None)

    def begin(self) -> float:
        """Begin a step and return its seconds."""
        if not self._running and not self._chosen:
            self._chosen = self._choose(self.budget)
        self._reading, self._chosen = self._chosen, {}
        taken = len(self._running) + len(self._reading)
        self._chosen = self._choose(self.budget - taken)
        return step_seconds(self.speeds, sum(self._reading.values()), len(self._running))

    def end(self) -> list[Sequence]:
        """End the step that was begun, and return the sequences that got a token in it."""
        begun = [one for one in self._reading if not one.unread and one not in self._chosen]
        self._reading = {}
        served = [*self._running, *begun]
        for sequence in served:
            sequence.given += 1
        self._running = [sequence for sequence in served if not sequence.ended]
        return served

    def _choose(self, budget: int) -> dict[Sequence, int]:
        """Take prompts for the next step, as many tokens of them as `budget` allows."""
        chosen: dict[Sequence, int] = {}
        while self._waiting and budget > 0:
            sequence = self._waiting[0]
            tokens = min(budget, max(1, sequence.unread))
            sequence.unread = max(0, sequence.unread - tokens)
            budget -= tokens
            chosen[sequence] = tokens
            if not sequence.unread:
                self._waiting.pop(0)
        return chosen


def speeds_of(
    moe_backend: str | None,
    compilation_config: Mapping[str, Any] | None,
    tensor_parallel_size: int,
    data_parallel_size: int = 1,
) -> Speeds:
    """Choose what was measured with these options; the recipe on two GPUs for all others."""
    sizes = (compilation_config or {}).get("cudagraph_capture_sizes") or [0]
    if max(sizes) < LARGEST_GRAPH:
        return RECIPE
    if data_parallel_size > 1:
        return THROUGHPUT if tensor_parallel_size == 1 else RECIPE
    if tensor_parallel_size == 1:
        return ONE_GPU
    return LATENCY if moe_backend == "triton" else RECIPE


def step_seconds(speeds: Speeds, prompt_tokens: int, sequences: int) -> float:
    """Seconds of a step that reads `prompt_tokens` and gives `sequences` a token each."""
    decode = _between(speeds.decode, max(1, sequences))
    if not prompt_tokens:
        return decode / 1000
    return max(_between(speeds.prompts, prompt_tokens + sequences), decode) / 1000


def _between(table: Mapping[int, float], number: int) -> float:
    """Read a table between its entries, evenly in the number's logarithm.

    Below the first entry it is that one. Above the last it goes on as between the last two.
    """
    numbers = list(table)
    if number <= numbers[0]:
        return table[numbers[0]]
    low, high = numbers[-2:]
    if number >= high:
        return table[high] + (table[high] - table[low]) / (high - low) * (number - high)
    after = bisect.bisect_left(numbers, number)
    low, high = numbers[after - 1], numbers[after]
    share = math.log(number / low) / math.log(high / low)
    return table[low] + share * (table[high] - table[low])
