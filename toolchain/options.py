"""Types of what stands on the commands' lines: numbers, and budgets."""

from __future__ import annotations

import argparse
import re

from components.core.argument_types import amount, whole_number

__all__ = ["amount", "budget", "whole_number"]


def budget(text: str) -> float:
    """Read `300/day`, in dollars.

    Raises:
        argparse.ArgumentTypeError: if it is no budget.
    """
    found = re.fullmatch(r"\$?([0-9]{1,7}(?:\.[0-9]{1,2})?)/day", text)
    if found is None or not float(found[1]):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no budget: 300/day is 300 dollars for a day of UTC"
        )
    return float(found[1])
