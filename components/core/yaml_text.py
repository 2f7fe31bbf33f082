"""Reads YAML with libyaml, in a tenth of the time, and never deeper than its stack allows."""

from __future__ import annotations

from typing import Any

import yaml

MOST_LEVELS = 100
"""Lists and mappings within each other. Some ten thousand would overflow the stack on which libyaml
puts values together; PyYAML's own reader fails at some three hundred."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""PyYAML's own reader where it was built without libyaml; both read the same safe types."""


class NestsTooDeep(yaml.MarkedYAMLError):
    """A text has more than `MOST_LEVELS` lists and mappings within each other."""


def read(text: str) -> Any:
    """Parse a text into plain values.

    Raises:
        NestsTooDeep: if it nests deeper than `MOST_LEVELS`.
        yaml.YAMLError: if it is no YAML; `MarkedYAMLError` if the place is known.
    """
    check_depth(text)
    return yaml.load(text, _LOADER)  # noqa: S506  (either of the two is a safe one)


def check_depth(text: str) -> None:
    """Refuse a text that nests too deep, in a time that grows with its length alone.

    Raises:
        NestsTooDeep: if it nests deeper than `MOST_LEVELS`.
        yaml.YAMLError: if it is no YAML.
    """
    levels = 0
    for event in yaml.parse(text, _LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            levels += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            levels -= 1
        if levels > MOST_LEVELS:
            problem = f"it has more than {MOST_LEVELS} lists and mappings within each other"
            place: Any = event.start_mark
            raise NestsTooDeep(problem=problem, problem_mark=place)
