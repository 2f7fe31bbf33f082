"""Which keys the gate takes, as digests: the stack's own, and replaced ones until their time. Pure.

The file's lines are what `on_host/key_gate.py` reads: a digest, with ` until <seconds since 1970>`
behind one that was replaced. The gate itself ends a replaced key, so nobody need come back for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Replaced = dict[str, float]
"""Digest of a replaced key -> the second since 1970 from which on it is refused."""


def replaced(olds: Mapping[str, Any], news: Mapping[str, Any], now: float) -> Replaced:
    """Find the keys that still work beside the new one, given the server's old outputs.

    `now`, in seconds since 1970, is the moment that the grace of the key before the new one begins
    at; those that were replaced earlier keep their end.
    """
    current = str(news["key_digest"])
    known = {**(olds.get("replaced_keys") or {})}
    kept = {
        digest: float(until)
        for digest, until in known.items()
        if float(until) > now and digest != current
    }
    before = str(olds.get("key_digest") or "")
    if before not in {"", current}:
        kept[before] = now + float(news["key_grace_minutes"]) * 60
    return kept


def prolonged(keys: Replaced, seconds: float) -> Replaced:
    """Let replaced keys work `seconds` longer: while the new key is not proven yet."""
    return {digest: until + seconds for digest, until in keys.items()}


def lines(current: str, keys: Replaced) -> str:
    """Write the gate's file."""
    ending = "".join(f"{digest} until {round(until)}\n" for digest, until in sorted(keys.items()))
    return f"{current}\n{ending}"
