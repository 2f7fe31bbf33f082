"""Whose a contract is, by its label: one account can have two stacks of one name. Pure.

A label ends in `<owner><order>`. The owner is a digest of the stack's SSH key, which stands in one
state alone; a stack of the same name in another backend has another one. What carries our stack's
label and another owner is not ours to end. Labels of before had no owner and count as ours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from components.vast.api.models import Instance

OWNER_DIGITS = 6
ORDER_DIGITS = 10


def owner_of(public_key: str) -> str:
    """Name the owner of what `public_key` (an OpenSSH line) opens."""
    return hashlib.sha256(public_key.encode()).hexdigest()[:OWNER_DIGITS]


def owner_in(props: Mapping[str, Any]) -> str:
    """Name it by a resource's `public_key`; empty where a state of before or a preview has none."""
    key = props.get("public_key")
    return owner_of(key) if isinstance(key, str) else ""


def nonce(owner: str, order: str) -> str:
    """Build a label's last part, for an order whose facts are written down as `order`."""
    return owner + hashlib.sha256(order.encode()).hexdigest()[:ORDER_DIGITS]


def resource_of(label: str) -> str:
    """Give the part of a label that all contracts of one resource share: all but the nonce."""
    return label.rsplit("/", 1)[0] + "/"


def is_foreign(label: str, owner: str) -> bool:
    """Whether a contract is somebody else's; without an `owner` to compare with, it is not."""
    named = _named(label)
    return bool(owner and named) and named != owner


def is_own(label: str, owner: str) -> bool:
    """Whether a contract is this owner's for sure: a label of before names nobody."""
    return bool(owner) and _named(label) == owner


def told_apart(
    contracts: Iterable[Instance], prefix: str, owner: str
) -> tuple[list[Instance], list[Instance]]:
    """The contracts whose label begins with `prefix`: the owner's own, and those of others."""
    under = [one for one in contracts if one.label.startswith(prefix)]
    mine = [one for one in under if not is_foreign(one.label, owner)]
    return mine, [one for one in under if is_foreign(one.label, owner)]


def _named(label: str) -> str:
    """The owner in a label; empty in one of before."""
    # A mark, such as that of an unfit machine, stands before the nonce and a dash.
    last = label.rsplit("/", 1)[-1].rsplit("-", 1)[-1]
    return last[:OWNER_DIGITS] if len(last) == OWNER_DIGITS + ORDER_DIGITS else ""
