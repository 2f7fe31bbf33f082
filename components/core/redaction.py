"""Secrets taken out of a text before it is shown. Pure."""

from __future__ import annotations

from collections.abc import Iterable

SHORTEST = 6
"""Characters; something shorter would be found in ordinary words."""

MASK = "***"


def redacted(text: str, secrets: Iterable[str]) -> str:
    """Replace every secret in `text`, the longest first, since one may hold another."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= SHORTEST:
            text = text.replace(secret, MASK)
    return text
