"""The prompts of a load, as a file that guidellm reads. Pure.

Words are drawn at random, so that no prompt is in the prefix cache beyond the shared part. The
server says how many tokens words have on average, and so a prompt's length is right on average.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from random import Random

from toolchain.day_two.load.plan import Shape

_TEXT = (
    "the river was quiet when our small boat left early in morning light and nobody spoke about "
    "yesterday because every question had been answered twice already some people carried heavy "
    "bags others looked at distant mountains where snow still covered most of their northern side "
    "we counted seven birds above water before wind turned and took them away over green fields "
    "my brother asked whether this road would ever end she laughed and said that roads do not end "
    "they only change names between one village and another later in summer farmers sold apples "
    "bread cheese honey along it while children played with old wheels under a wooden bridge"
)
WORDS = tuple(_TEXT.split())

SAMPLE = 1500
"""Words whose tokens are counted at once."""

MOST_PROMPTS = 4000
MOST_BYTES = 64_000_000
"""Of one load's prompts; a load that uses them up ends before its time."""


def tokens_per_word(count: Callable[[str], int], seed: int) -> float:
    """Ask how many tokens words have on average, with a sample in one request."""
    return count(_words(Random(seed), SAMPLE)) / SAMPLE  # noqa: S311  (no secret)


def prompts(
    shape: Shape, per_word: float, seed: int, most_bytes: int = MOST_BYTES
) -> Iterator[bytes]:
    """Give the lines of the file; another seed gives other prompts and another shared part."""
    random = Random(seed)  # noqa: S311  (prompts, not secrets)
    shared = _words(random, _count(shape.shared_tokens, per_word)) if shape.shared_tokens else ""
    own = _count(shape.prompt_tokens - shape.shared_tokens, per_word)
    written = 0
    for _ in range(MOST_PROMPTS):
        row = {
            **({"prefix": shared} if shared else {}),
            "prompt": _words(random, own),
            "prompt_tokens_count": shape.prompt_tokens,
            "output_tokens_count": shape.answer_tokens,
        }
        line = json.dumps(row).encode() + b"\n"
        written += len(line)
        if written > most_bytes:
            return
        yield line


def _count(tokens: int, per_word: float) -> int:
    return max(1, round(tokens / per_word))


def _words(random: Random, count: int) -> str:
    return " ".join(random.choices(WORDS, k=count))
