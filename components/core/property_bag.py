"""Property bags as Pulumi hands them over, and what is not known of them yet. Loads no Pulumi."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Properties = dict[str, Any]
"""A property bag as Pulumi hands it over: all numbers are floats."""


def changed(olds: Mapping[str, Any], news: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    """Name the keys whose value differs; a value that is not known yet counts as different."""
    return [
        key for key in keys if contains_unknowns(news.get(key)) or olds.get(key) != news.get(key)
    ]


def contains_unknowns(value: Any) -> bool:
    """Whether a value, or anything within it, is known only after a preview.

    Says what `pulumi.contains_unknowns` says of values without cycles.
    """
    if isinstance(value, dict):
        return any(contains_unknowns(within) for within in value.values())
    if isinstance(value, list):
        return any(contains_unknowns(within) for within in value)
    kind = type(value)
    # By name: a decision must not load Pulumi, and where that is not loaded all is known.
    return (kind.__module__, kind.__name__) == ("pulumi.output", "Unknown")
