"""Machines that serve one endpoint together, each rented by a resource of its own. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

from components.core.property_bag import Properties
from components.vast.labels import partition_by_owner, renter_of, resource_of

if TYPE_CHECKING:
    from components.vast.api.models import Instance, Offer

Spread = Literal["machine", "host"]
"""What no two replicas share: a machine, or all machines of one host."""

FLEET = "fleet"
"""The property of an endpoint with several machines."""


@dataclasses.dataclass(frozen=True)
class Fleet:
    """How many machines an endpoint has, and what they do not share."""

    replicas: int
    spread: Spread = "machine"

    @classmethod
    def from_bag(cls, bag: Mapping[str, Any]) -> Self | None:
        """Read it out of a resource's properties; None for an endpoint with one machine."""
        fleet = bag.get(FLEET)
        if not fleet:
            return None
        return cls(int(fleet["replicas"]), "host" if fleet["spread"] == "host" else "machine")

    def place_of(self, found: Offer | Instance) -> int:
        """Give the number of what no two replicas share; 0 if the market does not say it."""
        return found.host_id if self.spread == "host" else found.machine_id


def fleet_property(fleet: Fleet | None) -> Properties:
    """Write the property; nothing for an endpoint with one machine."""
    return {FLEET: dataclasses.asdict(fleet)} if fleet else {}


def siblings_of(
    contracts: Iterable[Instance], label_prefix: str, owner: str
) -> tuple[Instance, ...]:
    """Select the contracts of the endpoint's other replicas.

    `label_prefix` is the resource's. A machine of another generation is no sibling: it is replaced
    by the machines of this generation together.
    """
    mine = renter_of(label_prefix)
    if not mine.endpoint:
        return ()
    own, _ = partition_by_owner(contracts, mine.prefix, owner, mine.endpoint)
    return tuple(found for found in own if _is_sibling(found.label, label_prefix))


def _is_sibling(label: str, label_prefix: str) -> bool:
    one, mine = renter_of(resource_of(label)), renter_of(label_prefix)
    return one.replica != mine.replica and one.generation == mine.generation
