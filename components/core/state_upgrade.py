"""States of older releases: what they lack is filled in, and left out again. Pure.

Typed state reads a property bag in one place and writes it in one place. A property that was added
later stands in a table: its path and the value that its absence means. Until that value changes,
the state is written as it came, so that reading an old state never looks like a change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.core.property_bag import Properties

Additions = Mapping[str, Any]
"""Properties that the first release did not write, by path, with the value that their absence
means. They stand in the order of their releases; `leash.market_end` is a property of `leash`.
"""


def upgraded(bag: Mapping[str, Any], additions: Additions) -> tuple[Properties, Properties]:
    """Return the bag with all additions, and the additions that it lacked, by path."""
    full, lacking = {**bag}, {}
    for path, value in additions.items():
        outer, _, inner = path.rpartition(".")
        if not outer and path not in bag:
            full[path] = lacking[path] = value
        elif isinstance(bag.get(outer), Mapping) and inner not in bag[outer]:
            full[outer] = {**full[outer], inner: value}
            lacking[path] = value
    return full, lacking


def as_written(bag: Mapping[str, Any], lacking: Additions) -> Properties:
    """Leave out what `upgraded` filled in and nothing has changed since."""
    kept = {**bag}
    for path, value in lacking.items():
        outer, _, inner = path.rpartition(".")
        if not outer:
            if path in kept and kept[path] == value:
                del kept[path]
        elif inner in kept[outer] and kept[outer][inner] == value:
            kept[outer] = {name: kept[outer][name] for name in kept[outer] if name != inner}
    return kept


def within(outer: str, additions: Additions) -> Properties:
    """Return the additions of a bag that is itself the property `outer` of another one."""
    return {f"{outer}.{path}": value for path, value in additions.items()}
