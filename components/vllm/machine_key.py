"""Which API key a machine takes. Pure.

TLS ends on the rented host, so its owner can read each key that is used there. A machine therefore
takes a key of its own. It is made of the stack's key, which no host is told or shown, and of the
contract's id, which no other machine ever has. A host that was given back opens nothing with it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, NamedTuple


class KeyRule(NamedTuple):
    """What a stack says of its keys."""

    scope: str
    """What `scope_of` gives."""

    generation: int
    """A higher one is another stack's key, and so another key of each machine."""

    shared: bool
    """Whether machines take the stack's key itself, which then survives a replacement."""


def digest(key: str) -> str:
    """SHA-256 of a key in hex: safe to show, since 192 random bits cannot be guessed from it."""
    return hashlib.sha256(key.encode()).hexdigest()


def scope_of(project: str, stack: str) -> str:
    """Name whose keys they are: one stack's key in two stacks makes different ones."""
    return f"vast-vllm/{project}/{stack}/"


def machine_key(stack_key: str, scope: str, contract: int) -> str:
    """HMAC-SHA256 of scope and contract's id under the stack's key, 64 hex digits.

    Who holds the stack's key computes the key of any machine, such as a router in front of several:
    `printf %s "$SCOPE$CONTRACT" | openssl dgst -sha256 -hmac "$STACK_KEY"`.
    """
    return hmac.new(stack_key.encode(), f"{scope}{contract}".encode(), hashlib.sha256).hexdigest()


def taken(olds: Mapping[str, Any], news: Mapping[str, Any]) -> str:
    """Give the key that a server's machine takes.

    `news` are the server's inputs. `olds` are its outputs on the same machine, or empty: a machine
    keeps its key until it is replaced, the stack's key has another generation, or the key becomes a
    shared one.
    """
    if news["shared_api_key"]:
        return str(news["stack_key"])
    if _keeps(olds, news):
        return str(olds["api_key"])
    contract = int(news["instance_id"])
    return machine_key(str(news["stack_key"]), str(news["key_scope"]), contract)


def will_change(olds: Mapping[str, Any], news: Mapping[str, Any], *, known: bool) -> bool:
    """Whether clients need another key after an update, or after a move to another machine.

    Args:
        olds: the server's outputs.
        news: its inputs.
        known: whether the stack's key is known, which it is not in a preview that makes a new one.
            The settings say it then; a state of an older release does not tell its generation.
    """
    if olds.get("instance_id") != news["instance_id"] and not news["shared_api_key"]:
        return True
    if known:
        return digest(taken(olds, news)) != olds.get("key_digest")
    risen = news["key_generation"] != olds.get("key_generation", news["key_generation"])
    becomes_shared = news["shared_api_key"] and not olds.get("shared_api_key", True)
    return bool(risen or becomes_shared)


def _keeps(olds: Mapping[str, Any], news: Mapping[str, Any]) -> bool:
    """Whether a machine's key is of the stack's key, or of the one that this took over from."""
    # An older release gave its machines the stack's key itself.
    made_of = olds.get("stack_key_digest") or olds.get("key_digest")
    return bool(made_of) and made_of in {news["stack_key_digest"], news.get("previous_key_digest")}
