"""Keys by which clients are let in: digests, and the key that one machine takes. Pure.

The server of a machine, and a router in front of several, make the same key with these functions.
"""

from __future__ import annotations

import hashlib
import hmac


def digest(key: str) -> str:
    """SHA-256 of a key in hex: safe to show, since 192 random bits cannot be guessed from it."""
    return hashlib.sha256(key.encode()).hexdigest()


def scope_of(project: str, stack: str) -> str:
    """Name the keys' owner, so that one stack's key makes different keys in two stacks."""
    return f"vast-vllm/{project}/{stack}/"


def machine_message(scope: str, contract: int) -> str:
    """What is signed with the stack's key to make a machine's."""
    return f"{scope}{contract}"


METRICS = "metrics"
"""What stands in the place of a contract's id for the key that opens counters alone."""


def metrics_key(stack_key: str, scope: str) -> str:
    """HMAC-SHA256 of scope and `metrics` under the stack's key, 64 hex digits.

    It opens a router's `/metrics`. `machine_key` makes that of each machine out of it, so a host
    that reads its own opens its own counters alone. Neither leads back to the stack's key.
    """
    return hmac.new(stack_key.encode(), f"{scope}{METRICS}".encode(), hashlib.sha256).hexdigest()


def machine_key(stack_key: str, scope: str, contract: int) -> str:
    """HMAC-SHA256 of scope and contract's id under the stack's key, 64 hex digits.

    A holder of the stack's key, such as a router in front of several machines, can compute each
    machine's key: `printf %s "$SCOPE$CONTRACT" | openssl dgst -sha256 -hmac "$STACK_KEY"`.
    """
    message = machine_message(scope, contract)
    return hmac.new(stack_key.encode(), message.encode(), hashlib.sha256).hexdigest()
