"""Where the emulator's answers differ from a market's: status, keys, types, values. Pure.

Answers to one kind of question are compared together: the rows of a list have one shape, and a
field that is null in one row is no other shape than where it has a value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from emulator.contract_types import Phase
from emulator.replay import Pair

FACTS: Mapping[str, frozenset[str]] = {
    "actual_status": frozenset(
        {"created", "loading", "running", "exited", "stopped", "offline", *Phase}
    ),
    "intended_status": frozenset({"running", "stopped"}),
    "cur_state": frozenset({"running", "stopped"}),
    "next_state": frozenset({"running", "stopped"}),
    "verification": frozenset({"verified", "unverified", "deverified"}),
    "error": frozenset(),
    "success": frozenset(),
    "image_runtype": frozenset(),
    "resource_type": frozenset(),
    "gpu_arch": frozenset({"nvidia", "amd"}),
    "cpu_arch": frozenset({"amd64", "arm64"}),
    "type": frozenset(),
    "frequency": frozenset(),
    "request_method": frozenset(),
}
"""Fields whose values are facts, with what the emulator can say beside what it says here."""

BY_THE_MOMENT = frozenset(
    {
        "actual_status",
        "cpu_util",
        "gpu_temp",
        "gpu_util",
        "instances",
        "mem_usage",
        "status_msg",
        "uptime_mins",
    }
)
"""Fields that the emulator leaves empty before their time or after it, as for a machine that ended.

A report tells when an answer came; the market may have looked some moments before.
"""

HEADERS = ("Content-Type", "Retry-After", "X-RateLimit-Limit", "X-RateLimit-Remaining")

_OK = 300
_PORT = re.compile(r"[0-9]{1,5}/(tcp|udp)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PORT_KEY, _VALUE_KEY = "{port}", "{key}"
"""What stands for keys that are values."""


@dataclass(frozen=True, order=True)
class Difference:
    """One difference of one kind of question."""

    endpoint: str
    """Such as `GET /instances/{id}/`."""
    kind: str
    """`status`, `headers`, `key`, `type` or `value`."""
    where: str
    """The field, such as `instances[].ports`; empty for a status."""
    market: str
    """What the report has."""
    emulator: str
    """What the emulator has."""
    call: int
    """The first line of the report that shows it."""


@dataclass
class _Shape:
    """All that was seen of some answers: by place, the types and where each was seen first."""

    types: dict[str, dict[str, int]] = field(default_factory=dict)
    values: dict[str, dict[str, int]] = field(default_factory=dict)

    def take(self, answer: Any, call: int) -> None:
        for place, name, value in _leaves(answer):
            self.types.setdefault(place, {}).setdefault(_type(value), call)
            if name in FACTS and isinstance(value, str | bool):
                self.values.setdefault(place, {}).setdefault(str(value), call)


def differences(pairs: Sequence[Pair]) -> list[Difference]:
    """Compare the answers to each kind of question."""
    found: list[Difference] = []
    groups: dict[tuple[str, bool], list[Pair]] = {}
    for pair in pairs:
        endpoint = f"{pair.call.method} {template(pair.call.path)}"
        if pair.call.status != pair.status:
            found.append(_of_status(endpoint, pair))
            continue
        groups.setdefault((endpoint, pair.status < _OK), []).append(pair)
    for (endpoint, _), alike in groups.items():
        found += _of_shape(endpoint, alike)
        found += _of_headers(endpoint, alike)
    return _once(found)


def template(path: str) -> str:
    """A path without the ids in it."""
    return re.sub(r"/[0-9]+(?=/|$)", "/{id}", path)


def _of_status(endpoint: str, pair: Pair) -> Difference:
    return Difference(
        endpoint, "status", "", str(pair.call.status), str(pair.status), pair.call.number
    )


def _of_headers(endpoint: str, pairs: Iterable[Pair]) -> Iterator[Difference]:
    for pair in pairs:
        theirs = {name.lower(): value for name, value in pair.call.headers.items()}
        ours = {name.lower(): value for name, value in pair.headers.items()}
        for name in HEADERS:
            is_type = name == "Content-Type"
            one, other = (_header(of.get(name.lower()), whole=is_type) for of in (theirs, ours))
            if one != other:
                yield Difference(endpoint, "headers", name, one, other, pair.call.number)


def _header(value: str | None, *, whole: bool) -> str:
    if value is None:
        return "absent"
    return value.partition(";")[0].strip() if whole else "present"


def _of_shape(endpoint: str, pairs: Sequence[Pair]) -> Iterator[Difference]:
    market, emulator = _Shape(), _Shape()
    for pair in pairs:
        market.take(pair.call.answer, pair.call.number)
        emulator.take(pair.answer, pair.call.number)
    yield from _of_keys(endpoint, market, emulator)
    for place in market.types.keys() & emulator.types.keys():
        for kind, call in market.types[place].items():
            if not _gives(place, kind, emulator.types[place]):
                ours = " or ".join(sorted(emulator.types[place]))
                yield Difference(endpoint, "type", place, kind, ours, call)
    for place, values in market.values.items():
        known = emulator.values.get(place, {})
        can_say = FACTS[_name(place)]
        for value, call in values.items():
            if value not in known and value not in can_say and place in emulator.types:
                ours = " or ".join(sorted(known)) or "none"
                yield Difference(endpoint, "value", place, value, ours, call)


def _gives(place: str, kind: str, types: Mapping[str, int]) -> bool:
    """Say whether the emulator gives a type in a place, here or at another moment."""
    is_empty = kind == "null" or types.keys() == {"null"}
    return kind in types or (is_empty and _name(place) in BY_THE_MOMENT)


def _of_keys(endpoint: str, market: _Shape, emulator: _Shape) -> Iterator[Difference]:
    """Find keys that one side alone has, where both have what they would stand in."""
    for mine, other, is_market in (
        (market, emulator, True),
        (emulator, market, False),
    ):
        for place, types in mine.types.items():
            # A list without rows says nothing of its rows, and a null nothing of its fields.
            if place.endswith("[]") or place in other.types:
                continue
            parent = place.rpartition(".")[0]
            if "object" not in other.types.get(parent, {}) or _has_no_entry(place, other):
                continue
            there, missing = " or ".join(sorted(types)), "absent"
            one, two = (there, missing) if is_market else (missing, there)
            yield Difference(endpoint, "key", place, one, two, min(types.values()))


def _has_no_entry(place: str, shape: _Shape) -> bool:
    """Say whether a place is an entry, as of ports, of what never has one in a shape."""
    entries = f"{place.rpartition('.')[0]}."
    is_entry = place.endswith((_PORT_KEY, _VALUE_KEY))
    return is_entry and not any(known.startswith(entries) for known in shape.types)


def _leaves(value: Any, place: str = "", name: str = "") -> Iterator[tuple[str, str, Any]]:
    """Give each place of an answer, with the name of its field and what stands there."""
    yield place, name, value
    if isinstance(value, Mapping):
        for key, one in value.items():
            plain = _plain(str(key))
            yield from _leaves(one, f"{place}.{plain}".removeprefix("."), plain)
    elif isinstance(value, list):
        for one in value:
            yield from _leaves(one, f"{place}[]", name)


def _name(place: str) -> str:
    return place.rpartition(".")[2].removesuffix("[]")


def _plain(key: str) -> str:
    """Name a key that is a value by what it is."""
    if _PORT.fullmatch(key):
        return _PORT_KEY
    return key if _NAME.fullmatch(key) else _VALUE_KEY


def _type(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "text"
    return "list" if isinstance(value, list) else "object"


def _once(found: Iterable[Difference]) -> list[Difference]:
    """Keep the first call of each difference."""
    first: dict[tuple[str, ...], Difference] = {}
    for one in sorted(found, key=lambda one: one.call):
        first.setdefault((one.endpoint, one.kind, one.where, one.market, one.emulator), one)
    return sorted(first.values())
