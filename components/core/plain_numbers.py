"""Numbers as people type them: digits alone, so that no other number is read than is meant. Pure.

`int` and `float` read much more: `2_0` as 20, blanks, a plus, digits of other scripts, `1e3` and
`inf`. Whoever types one of those has most likely meant something else, and pays for what is read.
"""

from __future__ import annotations

import re
from decimal import Decimal

LONGEST = 19
"""Digits before and after the point: those of 64 bits."""

_DIGITS = re.compile(rf"[0-9]{{1,{LONGEST}}}")

_WHOLE = re.compile(rf"-?[0-9]{{1,{LONGEST}}}")
_DECIMAL = re.compile(
    rf"-?(?:[0-9]{{1,{LONGEST}}}(?:\.[0-9]{{0,{LONGEST}}})?|\.[0-9]{{1,{LONGEST}}})"
)


def is_count(text: str) -> bool:
    """Whether a text is a count or an id, which `int` reads as it stands.

    `str.isdigit` is true of `²` as well, of which `int` makes an error.
    """
    return _DIGITS.fullmatch(text) is not None


def whole(text: str) -> int:
    """Read a whole number.

    Raises:
        ValueError: one sentence without a full stop, if it is none.
    """
    if not _WHOLE.fullmatch(text):
        raise ValueError("a whole number has digits alone, such as 20")
    return int(text)


def decimal(text: str) -> float:
    """Read a number that may have a fraction.

    Raises:
        ValueError: one sentence without a full stop, if it is none.
    """
    if not _DECIMAL.fullmatch(text):
        raise ValueError("a number has digits and one point at most, such as 20 or 0.5")
    return float(text)


def written(number: float) -> str:
    """Write a number of at most nine digits before the point as `decimal` reads it: no `1e-05`."""
    return format(Decimal(repr(number)), "f")
