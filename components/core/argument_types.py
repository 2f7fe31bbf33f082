"""Numbers on a command's line, as types of `argparse`: digits alone, within their limits."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

from components.core.plain_numbers import decimal, whole


def whole_number(least: int = 0, most: int | None = None) -> Callable[[str], int]:
    """Make the type of a whole number, from `least` to `most`; None is no limit."""

    def read(text: str) -> int:
        try:
            found = whole(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is none: {error}") from None
        if found < least or (most is not None and found > most):
            limits = f"{least} to {most}" if most is not None else f"{least} or more"
            raise argparse.ArgumentTypeError(f"{text} is none of {limits}")
        return found

    return read


def amount(
    above: float = 0.0, most: float = math.inf, *, or_zero: bool = False
) -> Callable[[str], float]:
    """Make the type of a number above `above`, and `most` at most; with `or_zero` also of 0."""

    def read(text: str) -> float:
        try:
            found = decimal(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is none: {error}") from None
        if or_zero and found == 0:
            return 0.0
        if not above < found <= most:
            limit = "" if math.isinf(most) else f" and at most {most:g}"
            raise argparse.ArgumentTypeError(f"{text} is not above {above:g}{limit}")
        return found

    return read
