"""What the API key in use opens: the account, its credit, and what may be done, by Vast's names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from components.core.display import clipped, shown
from components.vast.api.numbers import number, whole

LONGEST_NAME = 60
"""Characters of a permission's name that are kept."""

MOST_NAMES = 100

Get = Callable[[str], Mapping[str, Any]]
"""Sends a GET to a path and gives the answer."""


@dataclasses.dataclass(frozen=True)
class KeyFacts:
    """An API key, as Vast describes it."""

    account_id: int
    """0 if Vast does not say."""
    credit: float
    """$ that the account can still spend; 0 if Vast does not say."""
    permissions: frozenset[str] | None
    """None for a key that Vast does not list with its permissions.

    A key that was made with permissions is listed with them, under the number that the account's
    page names as the one in use. It is not known whether the account's first key is listed.
    """

    @classmethod
    def ask(cls, get: Get) -> KeyFacts:
        """Ask with two calls.

        Raises:
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: as `get`.
        """
        user = get("/users/current/")
        return cls(
            account_id=whole(user.get("id")) or 0,
            credit=number(user.get("credit")) or 0.0,
            permissions=_permissions(get("/auth/apikeys/").get("apikeys"), user.get("key_id")),
        )


def _permissions(rows: Any, key_id: Any) -> frozenset[str] | None:
    wanted = whole(key_id)
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, Mapping) and wanted and whole(row.get("id")) == wanted:
            return _names(row.get("permissions"))
    return None


def _names(permissions: Any) -> frozenset[str] | None:
    granted = permissions.get("api") if isinstance(permissions, Mapping) else None
    if not isinstance(granted, Mapping):
        return None
    names = [str(name) for name in list(granted)[:MOST_NAMES]]
    return frozenset(shown(clipped(name, LONGEST_NAME)) for name in names)
