"""Who calls: the account, an instance about itself, or a key with fewer rights.

Every key of the emulator begins with `emulator-`, and a key that does not is refused unread: a
real Vast key has no business here. Only digests are stored; an instance's key is derived from the
account's, so that it need not be kept at all.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

PREFIX = "emulator-"
SCOPES = frozenset(
    {
        "misc",
        "instance_read",
        "instance_write",
        "user_read",
        "user_write",
        "billing_read",
        "billing_write",
    }
)


@dataclass(frozen=True)
class Caller:
    """Who sent a request: kind is account, key or instance; an instance has its contract's id."""

    kind: str
    name: str
    scopes: frozenset[str] = SCOPES
    contract_id: int | None = None
    key_id: int = 0
    """The number of a key that was made; the account's own has none."""


ACCOUNT = Caller("account", "account")


def new_key() -> str:
    """Return a fresh random key."""
    return PREFIX + secrets.token_hex(28)


def digest(key: str) -> str:
    """Return what is stored of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def instance_key(account_key: str, contract_id: int) -> str:
    """Return the key that the container of `contract_id` gets as CONTAINER_API_KEY."""
    code = hmac.new(account_key.encode(), f"instance {contract_id}".encode(), hashlib.sha256)
    return PREFIX + code.hexdigest()[:55]


def identify(
    key: str,
    account_key: str,
    contract_ids: Iterable[int],
    created: Iterable[tuple[int, dict[str, Any]]],
) -> Caller | None:
    """Return whose key this is, or None.

    `created` are the account's further keys: (id, {"sha256", "permissions"}).
    """
    if hmac.compare_digest(key.encode(), account_key.encode()):
        return ACCOUNT
    for contract_id in contract_ids:
        if hmac.compare_digest(key.encode(), instance_key(account_key, contract_id).encode()):
            scopes = frozenset({"instance_read", "instance_write"})
            return Caller("instance", f"instance {contract_id}", scopes, contract_id)
    for number, document in created:
        if hmac.compare_digest(digest(key), document["sha256"]):
            granted = frozenset(document["permissions"].get("api", {}))
            return Caller("key", f"key {number}", granted, key_id=number)
    return None
