"""Numbers of the market, of which hosts write some. Pure.

They stand apart from the rows, since a reader of queries needs nothing else of the client.
"""

from __future__ import annotations

import math
from typing import Any

MOST, LEAST = 1e15, 1e-9
"""Limits of an amount: a value beyond them is no price, rate, size or time."""

LARGEST_ID = 2**63 - 1

LONGEST_NUMBER = 40
"""Characters of a number that comes as a text."""


def number(value: Any) -> float | None:
    """Read a number or a text with a number; None for anything else, and beyond the limits."""
    if isinstance(value, str):
        is_plain = len(value) <= LONGEST_NUMBER and value.isascii() and "_" not in value
        value = value if is_plain else None
    elif isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        read = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return read if math.isfinite(read) and abs(read) <= MOST else None


def whole(value: Any) -> int | None:
    """Read an id or a count; None for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if 0 <= value <= LARGEST_ID else None
    read = number(value)
    return int(read) if read is not None and read >= 0 and read.is_integer() else None
