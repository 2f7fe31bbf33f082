"""Vast's tokens of a page: base64 of `{"values": {...}}`, the last row's own values."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from emulator.errors import ApiError


def encoded(values: dict[str, Any]) -> str:
    """Return the token of the page that begins after a row with `values`."""
    return base64.b64encode(json.dumps({"values": values}).encode()).decode()


def decoded(token: str) -> dict[str, Any]:
    """Return the values of the row that a page begins after.

    Raises:
        ApiError: 400 `invalid_token`.
    """
    try:
        values = json.loads(base64.b64decode(token, validate=True))["values"]
    except (ValueError, KeyError, TypeError, binascii.Error):
        values = None
    if not isinstance(values, dict) or not isinstance(values.get("id"), int):
        raise ApiError(400, "invalid_token", "Invalid pagination token")
    return values
