"""What several machines of an endpoint are and cost when one of them fails. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from components.vast.labels import is_labelled

if TYPE_CHECKING:
    from components.vast.api.models import Instance

ROUTER_STAYS = "a router that runs already keeps the machines that it has"
"""The consequence of a failed machine for clients, for messages."""


def describe(
    contracts: Sequence[Instance] | None, group: str, *, replicas: int, serving: int | None
) -> str:
    """Say how many machines serve and what is billed, as the end of an error's sentence.

    Args:
        contracts: those of the account; None if the market does not say.
        group: `<project>/<stack>/<endpoint>`.
        replicas: how many machines there shall be.
        serving: how many are known to serve; None if that is not known.
    """
    parts = [] if serving is None else [f"{serving} of {replicas} replicas serve"]
    if contracts is None:
        parts.append("the market does not say what is billed")
    else:
        parts.append(_billed(contracts, group))
    return "; ".join([*parts, ROUTER_STAYS])


def _billed(contracts: Sequence[Instance], group: str) -> str:
    prefix, _, endpoint = group.rpartition("/")
    own = [one for one in contracts if is_labelled(one.label, f"{prefix}/", endpoint)]
    if not own:
        return "no machine of this endpoint is billed"
    total = sum(one.dollars_per_hour for one in own)
    named = ", ".join(str(one.id) for one in sorted(own, key=lambda one: one.id))
    noun = "machine is" if len(own) == 1 else "machines are"
    return f"{len(own)} {noun} billed, ${total:.2f}/h (instance {named})"
