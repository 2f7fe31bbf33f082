"""The owner of a contract, by its label: stack, endpoint and SSH key. Pure.

A label is `<project>/<stack>/<endpoint>[-r<replica>][-<generation>]-instance/<owner><order>`. An
account can have two stacks of one name, and a stack can have several endpoints. The name tells
endpoints of one stack apart. Replica 0 has no number in its label. The owner is a digest of the
endpoint's SSH key, which is in one state alone. It tells stacks of the same name in two backends
apart, and it is a second lock between endpoints. Labels from older releases have no owner. They
were written when a stack had one endpoint.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from components.vast.api.models import Instance


OWNER_DIGITS = 6
ORDER_DIGITS = 10

NOBODY = "nobody"
"""An owner that no label can name, since it has letters that are no hex digits."""

Whose = Literal["own", "other", "none"]
"""A contract is this endpoint's (`own`), rented with another SSH key under its name (`other`), or
neither (`none`).
"""

_SUFFIX = r"(-r(?P<replica>[1-9][0-9]?))?(-(?P<generation>[0-9a-f]{8}))?-instance"
"""What follows an endpoint's name in the name of a resource that rents: the replica's number, and
the generation that `create-first` puts into it.
"""

_INSTANCE = re.compile(rf"(?P<endpoint>.+?){_SUFFIX}")


class Renter(NamedTuple):
    """The resource that rents under a label."""

    prefix: str
    """`<project>/<stack>/`, as `stack_prefix` gives it."""
    endpoint: str
    """Empty if no endpoint calls its machine so, as in the two below."""
    replica: int
    generation: str


def stack_prefix(project: str, stack: str) -> str:
    """Give what all labels of a stack begin with."""
    return f"{project}/{stack}/"


def owner_of(public_key: str) -> str:
    """Name the owner of what `public_key` (an OpenSSH line) opens."""
    return hashlib.sha256(public_key.encode()).hexdigest()[:OWNER_DIGITS]


def order_digest(owner: str, order: str) -> str:
    """Build a label's last part, for an order whose facts are written down as `order`."""
    return owner + hashlib.sha256(order.encode()).hexdigest()[:ORDER_DIGITS]


def resource_of(label: str) -> str:
    """Give the part of a label that all contracts of one resource share: all but the last part."""
    return label.rsplit("/", 1)[0] + "/"


def renter_of(resource_prefix: str) -> Renter:
    """Read `<prefix><resource>/`, as `resource_of` gives it."""
    prefix, _, resource = resource_prefix.rstrip("/").rpartition("/")
    found = _INSTANCE.fullmatch(resource)
    if found is None:
        return Renter(f"{prefix}/", "", 0, "")
    number, generation = int(found["replica"] or 0), found["generation"] or ""
    return Renter(f"{prefix}/", found["endpoint"], number, generation)


def endpoint_of(resource_prefix: str) -> tuple[str, str]:
    """Split `<prefix><resource>/` into the prefix and the endpoint's name.

    The name is empty if no endpoint calls its machine so.
    """
    return renter_of(resource_prefix)[:2]


def is_labelled(label: str, prefix: str, endpoint: str = "") -> bool:
    """Whether a label begins with `prefix` and, if `endpoint` is given, names that endpoint.

    The labels of its replicas do.
    """
    if not label.startswith(prefix):
        return False
    if not endpoint:
        return True
    resource, _, last = label.removeprefix(prefix).partition("/")
    found = re.fullmatch(rf"{re.escape(endpoint)}{_SUFFIX}", resource)
    return found is not None and "/" not in last


def belongs_to_other(label: str, owner: str) -> bool:
    """Whether a contract is somebody else's; without an `owner` to compare with, it is not."""
    named = _named(label)
    return bool(owner and named) and named != owner


def is_own(label: str, owner: str) -> bool:
    """Whether a contract surely is this owner's; a label from an older release names nobody."""
    return bool(owner) and _named(label) == owner


def whose(label: str, prefix: str, owner: str, endpoint: str = "") -> Whose:
    """Decide whose a contract is, for an endpoint whose labels begin with `prefix`.

    Args:
        label: the contract's.
        prefix: `<project>/<stack>/`, or that of one resource.
        owner: see `owner_of`; empty takes any.
        endpoint: its name; empty takes any, as finalizers from older releases do.
    """
    if not is_labelled(label, prefix, endpoint):
        return "none"
    return "other" if belongs_to_other(label, owner) else "own"


def partition_by_owner(
    contracts: Iterable[Instance], prefix: str, owner: str, endpoint: str = ""
) -> tuple[list[Instance], list[Instance]]:
    """Divide contracts into the owner's own and those of another owner; see `whose`."""
    by_owner: dict[Whose, list[Instance]] = {"own": [], "other": [], "none": []}
    for contract in contracts:
        by_owner[whose(contract.label, prefix, owner, endpoint)].append(contract)
    return by_owner["own"], by_owner["other"]


def _named(label: str) -> str:
    """The owner in a label; empty in one from an older release."""
    # A mark, such as that of a machine in quarantine, stands before the digest and a dash.
    last = label.rsplit("/", 1)[-1].rsplit("-", 1)[-1]
    return last[:OWNER_DIGITS] if len(last) == OWNER_DIGITS + ORDER_DIGITS else ""
