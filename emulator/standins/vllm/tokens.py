"""Tokens of the stand-in: four characters each, with numbers that stay the same."""

from __future__ import annotations

import zlib

CHARACTERS = 4
_FIRST = 1000
VOCABULARY = 131_072
"""Tokens that there are, as Mistral's tokenizer has them."""


class Tokenizer:
    """Splits text and joins it again; what it has split it can join."""

    def __init__(self) -> None:
        """Begin with an empty memory."""
        self._known: dict[int, str] = {}

    def encode(self, text: str) -> list[int]:
        """Return the numbers of the text's tokens."""
        numbers = []
        for piece in split(text):
            number = _FIRST + zlib.crc32(piece.encode()) % (VOCABULARY - _FIRST)
            self._known[number] = piece
            numbers.append(number)
        return numbers

    def decode(self, numbers: list[int]) -> str:
        """Return the text of numbers that `encode` gave; others become a replacement character."""
        return "".join(self._known.get(number, "\ufffd") for number in numbers)


def split(text: str) -> list[str]:
    """Return the pieces of `text` that are one token each."""
    return [text[at : at + CHARACTERS] for at in range(0, len(text), CHARACTERS)]


def count(text: str) -> int:
    """Return how many tokens `text` has."""
    return -(-len(text) // CHARACTERS)
