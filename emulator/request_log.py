"""What a request may leave behind in the log: everything but its secrets."""

from __future__ import annotations

import re
from typing import Any

MASK = "********"

_SECRET_FIELDS = {"value", "image_login", "docker_login_pass", "api_key", "password", "secret"}
_SECRET_NAME = re.compile(r"(TOKEN|SECRET|PASS|KEY|CREDENTIAL)", re.IGNORECASE)
_SECRET_TEXT = re.compile(r"\b(hf_|sk-|ghp_|emulator-)[A-Za-z0-9_-]{6,}|\b[0-9a-f]{48,}\b")
_PLAIN_NAMES = {"ssh_key", "key", "key_params", "key_id"}


def masked(value: Any, name: str = "") -> Any:
    """Return a JSON value with every secret in it replaced by asterisks.

    A field counts as secret by its name (`image_login`, an env entry called `…TOKEN`), a piece of
    text by its form (`hf_…`, `sk-…`, 48 and more hex digits). Public SSH keys stay readable.
    """
    if isinstance(value, dict):
        return {key: masked(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [masked(inner, name) for inner in value]
    if not isinstance(value, str):
        return value
    if name in _SECRET_FIELDS or (name not in _PLAIN_NAMES and _SECRET_NAME.search(name)):
        return MASK
    return _SECRET_TEXT.sub(MASK, value)
