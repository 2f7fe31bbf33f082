"""A value that satisfies a JSON schema, filled from a text as well as can be without a model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_DEEPEST = 12
_NAME = re.compile(r"[A-Z][\w'-]+(?: [A-Z][\w'-]+)*")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_FORMATS = {
    "date": "2026-01-01",
    "time": "12:00:00Z",
    "date-time": "2026-01-01T12:00:00Z",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
}


def fill(schema: Mapping[str, Any], text: str) -> Any:
    """Return a value for `schema`: the same for the same `text`.

    Knows type, enum, const, default, properties, items, the bounds of numbers, strings and arrays,
    anyOf, oneOf, allOf, $ref and the usual formats; patterns are not looked at.
    """
    return _fill(schema, text, schema, 0)


def _fill(schema: Any, text: str, root: Mapping[str, Any], depth: int) -> Any:
    schema = _resolved(schema, root)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return _choice(schema["enum"], text)
    kind = schema.get("type") or ("object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "null")
    if kind in ("object", "array"):
        nested = _object if kind == "object" else _array
        return nested(schema, text, root, depth)
    return _plain(kind, schema, text)


def _plain(kind: str, schema: Mapping[str, Any], text: str) -> Any:
    if kind in ("integer", "number"):
        return _number(schema, text, whole=kind == "integer")
    if kind == "boolean":
        return True
    return None if kind == "null" else _string(schema, text)


def _resolved(schema: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    for _ in range(_DEEPEST):
        if not isinstance(schema, Mapping):
            # `true` stands for a schema that anything fits.
            return {}
        if "$ref" in schema:
            schema = _referenced(schema["$ref"], root)
        elif schema.get("anyOf") or schema.get("oneOf"):
            options = schema.get("anyOf") or schema["oneOf"]
            schema = next((one for one in options if not _is_null(one)), options[0])
        elif schema.get("allOf"):
            merged: dict[str, Any] = {}
            for part in schema["allOf"]:
                merged |= _resolved(part, root)
            return merged
        else:
            break
    return schema if isinstance(schema, Mapping) else {}


def _is_null(schema: Any) -> bool:
    return isinstance(schema, Mapping) and schema.get("type") == "null"


def _referenced(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    place: Any = root
    for step in reference.removeprefix("#").strip("/").split("/"):
        if step:
            place = place.get(step) if isinstance(place, Mapping) else None
    return place if isinstance(place, Mapping) else {}


def _object(schema: Mapping[str, Any], text: str, root: Mapping[str, Any], depth: int) -> Any:
    required = set(schema.get("required", ()))
    properties = schema.get("properties", {})
    if depth >= _DEEPEST:
        properties = {name: one for name, one in properties.items() if name in required}
    return {name: _fill(one, text, root, depth + 1) for name, one in properties.items()}


def _array(schema: Mapping[str, Any], text: str, root: Mapping[str, Any], depth: int) -> Any:
    least = int(schema.get("minItems", 0))
    wanted = max(least, 0 if depth >= _DEEPEST or schema.get("maxItems") == 0 else 1)
    items = schema.get("items") or {"type": "string"}
    return [_fill(items, text, root, depth + 1) for _ in range(wanted)]


def _number(schema: Mapping[str, Any], text: str, *, whole: bool) -> Any:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is not None and "exclusiveMinimum" in schema and "minimum" not in schema:
        low += 1 if whole else 0.5
    if high is not None and "exclusiveMaximum" in schema and "maximum" not in schema:
        high -= 1 if whole else 0.5
    found = [float(one) for one in _NUMBER.findall(text)]
    for number in found:
        if (low is None or number >= low) and (high is None or number <= high):
            return int(number) if whole else number
    value = low if low is not None else min(1, high if high is not None else 1)
    return int(value) if whole else float(value)


def _string(schema: Mapping[str, Any], text: str) -> str:
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    names = _names(text)
    value = names[-1] if names else " ".join(text.split()[:8]) or "unknown"
    value = value[: schema.get("maxLength", len(value))]
    return value.ljust(schema.get("minLength", 0), ".")


def _names(text: str) -> list[str]:
    """Capitalised words that do not begin a sentence: most often what a question is about."""
    return [
        match.group()
        for match in _NAME.finditer(text)
        if match.start() > 0 and text[: match.start()].rstrip()[-1:] not in ".?!:"
    ]


def _choice(options: list[Any], text: str) -> Any:
    said = text.lower()
    for option in options:
        if isinstance(option, str) and option.lower() in said:
            return option
    return options[0]
