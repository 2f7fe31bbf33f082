"""Whether conversations find their beginning in a cache: a toy model of vLLM's prefix cache.

60 conversations of 6 questions begin with one of 5 system prompts. Each member keeps blocks of 64
characters, and too few for all conversations. Which share of the blocks was there depends on the
toy's sizes; what differs between two ways of routing does not depend on this computer.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Mapping, Sequence
from typing import Any

from toolchain.scale_out.connection import Connection, Target
from toolchain.scale_out.member_server import CHAT

CONVERSATIONS = 60
QUESTIONS = 6
SYSTEM_PROMPTS = 5
SYSTEM_CHARACTERS = 3000
QUESTION_CHARACTERS = 250
ANSWER_CHARACTERS = 350

SECONDS = 0.03
"""Of an answer, so that several are in flight."""


@dataclasses.dataclass(frozen=True)
class Affinity:
    """What became of the conversations."""

    name: str
    share: float
    """Of the prompts' blocks, those that were there; 0 to 1."""
    places: Mapping[int, frozenset[int]]
    """The members that each conversation was on."""
    requests: Mapping[int, int]
    """By member."""

    @property
    def spread(self) -> int:
        """Conversations that were on more than one member."""
        return sum(len(members) > 1 for members in self.places.values())

    def moved(self, then: Affinity, without: int) -> int:
        """Conversations on one remaining member each that are elsewhere afterwards."""
        return sum(
            before != then.places[number]
            for number, before in self.places.items()
            if without not in before
        )


def play(name: str, target: Target, *, at_once: int) -> Affinity:
    """Play all conversations, `at_once` requests in flight."""
    return asyncio.run(_play(name, target, at_once))


async def _play(name: str, target: Target, at_once: int) -> Affinity:
    slots = asyncio.Semaphore(at_once)
    chance = random.Random(7)  # noqa: S311  (texts, not secrets)
    talks = [_texts(chance, number) for number in range(CONVERSATIONS)]
    answers = await asyncio.gather(*(_talk(target, slots, texts) for texts in talks))
    flat = [answer for one in answers for answer in one]
    members = {int(answer["contract"]) for answer in flat}
    return Affinity(
        name,
        sum(answer["there"] for answer in flat) / sum(answer["blocks"] for answer in flat),
        {n: frozenset(int(a["contract"]) for a in one) for n, one in enumerate(answers)},
        {one: sum(int(a["contract"]) == one for a in flat) for one in sorted(members)},
    )


def _texts(chance: random.Random, number: int) -> Sequence[str]:
    """A conversation: the system prompt, then questions with an answer between each two."""
    system = random.Random(number % SYSTEM_PROMPTS)  # noqa: S311  (texts, not secrets)
    texts = [_text(system, SYSTEM_CHARACTERS)]
    for turn in range(QUESTIONS):
        if turn:
            texts.append(_text(chance, ANSWER_CHARACTERS))
        texts.append(f"{number} {turn} " + _text(chance, QUESTION_CHARACTERS))
    return texts


def _text(chance: random.Random, characters: int) -> str:
    return "".join(chance.choices("abcdefghijklmnopqrstuvwxyz ", k=characters))


async def _talk(
    target: Target, slots: asyncio.Semaphore, texts: Sequence[str]
) -> list[dict[str, Any]]:
    answers = []
    roles = ["system", *["user", "assistant"] * QUESTIONS]
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    for turn in range(QUESTIONS):
        body = {"messages": messages[: 2 + 2 * turn], "plan": {"seconds": SECONDS}}
        async with slots, Connection(target) as connection:
            answers.append(await connection.ask(CHAT, body))
    return answers
