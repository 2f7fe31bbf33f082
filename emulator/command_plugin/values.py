"""Property values as they cross the wire: JSON, with marks for what is secret or not known yet.

Pure. The marks are Pulumi's own; values are kept with them, so that whatever came in as a secret
goes out as one.
"""

from __future__ import annotations

from typing import Any

Properties = dict[str, Any]

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""Stands for a value that is known only after another resource is made."""

_SIGNATURE = "4dabf18193072939515e22adb298388d"
_SECRET = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105  (Pulumi's public mark, no secret)

_UNKNOWNS = frozenset(
    {
        UNKNOWN,
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",
        "030794c1-ac77-496b-92df-f27374a8bd58",
        "e48ece36-62e2-4504-bad9-02848725956a",
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",
    }
)
"""The SDK's marks, one for each kind of value: bool, number, array, asset, archive, object."""


def plain(value: Any) -> Any:
    """Take the marks of secrecy off, everywhere in `value`."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    if not isinstance(value, dict):
        return value
    if value.get(_SIGNATURE) == _SECRET:
        return plain(value.get("value"))
    return {key: plain(one) for key, one in value.items()}


def has_unknowns(value: Any) -> bool:
    """Whether anything in `value` is not known yet."""
    if isinstance(value, list):
        return any(has_unknowns(one) for one in value)
    if isinstance(value, dict):
        return any(has_unknowns(one) for one in value.values())
    return isinstance(value, str) and value in _UNKNOWNS


def is_secret(value: Any) -> bool:
    """Whether `value` itself carries the mark."""
    return isinstance(value, dict) and value.get(_SIGNATURE) == _SECRET
