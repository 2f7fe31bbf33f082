"""Which replicas of an endpoint run, where a loop may change their number. Pure.

The number is in the stack's state and in no file. A loop gives an order to one `up`, in the
environment, and that `up` writes it into the state before it acts. Every other `up` goes on with
what the state has. So nobody ends a replica by deploying something else, and nobody rents one.

A replica above the floor has a lease, which the loop extends while it is needed. The machine's own
watch ends it after the same time. A replica whose lease is over is not declared any more.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.core.errors import ConfigurationError
from components.core.property_bag import contains_unknowns, reading

VARIABLE = "VAST_VLLM_SCALE"
"""The environment variable with a loop's order, as JSON."""

LEASE_HOURS = 3.0
"""How long a replica above the floor may live without anybody who extends it.

Long enough for a replica to come up (20 to 60 minutes), and for a loop that misses some turns.
"""

MOST_REPLICAS = 32

RENTED = "dynamic/vast:Instance"
"""End of the type of the resource that stands for a replica's machine."""


class OrderRefused(ConfigurationError):
    """The order of a loop cannot be read, or the state does not say how many replicas run.

    Cost: nothing was rented or changed.
    Remedy: run the command again; without a loop, take the variable out of the environment.
    """


class _Checked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Lease(_Checked):
    """Until when a replica above the floor may live."""

    since: Annotated[float, Field(ge=0, le=1e11)]
    """When it was ordered, in seconds since 1970; its container starts later."""
    hours: Annotated[float, Field(gt=0, le=8760)]
    """Counted from `since` here, and from the container's first start by the machine itself. So the
    machine lives at least as long as the lease."""
    contract: Annotated[int, Field(ge=0)] = 0
    """Of the machine that the lease was extended for; 0 if it was not extended yet."""

    @property
    def until(self) -> float:
        """When it is over, in seconds since 1970."""
        return self.since + self.hours * 3600

    def extended(self, now: float, contract: int) -> Lease:
        """Give the lease that ends `LEASE_HOURS` from now."""
        hours = round((now - self.since) / 3600 + LEASE_HOURS, 2)
        return Lease(since=self.since, hours=hours, contract=contract)


def new_lease(now: float) -> Lease:
    """Give the lease of a replica that is ordered now."""
    return Lease(since=now, hours=LEASE_HOURS)


Index = Annotated[int, Field(ge=1, lt=MOST_REPLICAS)]


class Extras(_Checked):
    """The replicas above the floor, by their index."""

    endpoint: Annotated[str, Field(min_length=1, max_length=200)]
    """Whose replicas they are."""
    leases: dict[Index, Lease]

    @classmethod
    def from_bag(cls, bag: Mapping[str, Any]) -> Self:
        """Read inputs or outputs of `Scale`; Pulumi hands numbers over as floats.

        Raises:
            StateUnreadable: if they are none.
        """
        with reading():
            if contains_unknowns(bag["extras"]):
                return cls(endpoint=bag["endpoint"], leases={})
            return cls(endpoint=bag["endpoint"], leases=dict(bag["extras"]))

    def to_bag(self) -> dict[str, Any]:
        """Write what `from_bag` reads."""
        extras = {str(index): lease.model_dump() for index, lease in sorted(self.leases.items())}
        return {"endpoint": self.endpoint, "extras": extras}

    def within(self, floor: int, ceiling: int) -> Extras:
        """Leave out what the settings do not allow."""
        kept = {index: one for index, one in self.leases.items() if floor <= index < ceiling}
        return self.model_copy(update={"leases": kept})


class Running(_Checked):
    """The replicas that a program declares."""

    indices: tuple[int, ...]
    """Ascending, from 0. There may be gaps above the floor, where a replica has ended itself."""
    hours: dict[int, float] = {}
    """Time to live of each replica above the floor, from its container's first start."""

    def time_to_live_hours(self, index: int, setting: float) -> float:
        """Time to live of a replica's machine; `setting` is `timeToLiveHours`, and 0 is never."""
        own = self.hours.get(index, 0.0)
        return min(own, setting) if own and setting else own or setting


def fixed(replicas: int) -> Running:
    """Give what runs where no loop may change it."""
    return Running(indices=tuple(range(replicas)))


def running(
    extras: Extras, *, floor: int, ceiling: int, contracts: Mapping[int, int], now: float
) -> Running:
    """Decide which replicas a program declares.

    Args:
        extras: as the state or an order has them.
        floor: the setting `replicas`.
        ceiling: the setting `replicasMax`.
        contracts: of the machines in the state, by the replica's index.
        now: seconds since 1970.
    """
    hours = {
        index: _hours(lease, contracts.get(index, 0))
        for index, lease in sorted(extras.within(floor, ceiling).leases.items())
        if lease.until > now
    }
    return Running(indices=(*range(floor), *hours), hours=hours)


def described(extras: Extras, found: Running, *, ceiling: int, now: float) -> list[str]:
    """Say what a preview should know of replicas that a loop decides about; nothing if none are."""
    over = [index for index, lease in sorted(extras.leases.items()) if lease.until <= now]
    lines = []
    if found.hours:
        lines.append(
            f"{len(found.indices)} of at most {ceiling} replicas run (replicasMax): the state says "
            "so, and `make scale` changes it"
        )
    if over:
        named = ", ".join(map(str, over))
        lines.append(
            f"the lease of replica {named} is over, so its machine ends or has ended itself: "
            "`make scale` rents another one if it is needed"
        )
    return lines


def ordered(text: str, endpoint: str) -> Extras | None:
    """Read a loop's order; None if there is none, or if it is for another endpoint.

    Raises:
        OrderRefused: if it is no order.
    """
    if not text:
        return None
    try:
        order = Extras.model_validate_json(text)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise OrderRefused(
            f"the variable {VARIABLE} is no order of how many replicas run (at {place or 'all'}): "
            f"`make scale` sets it for its own `pulumi up`; take it out of the environment"
        ) from None
    return order if order.endpoint == endpoint else None


def recorded(outputs: Mapping[str, Mapping[str, Any]], endpoint: str) -> Extras:
    """Read the extras out of a state; none if it has none yet.

    `outputs` are the outputs of each resource, by URN.

    Raises:
        StateUnreadable: if the state's record is none.
    """
    for urn, of_it in outputs.items():
        if urn.rpartition("::")[2] == record_name(endpoint) and "dynamic/scaling:Scale" in urn:
            return Extras.from_bag(of_it)
    return Extras(endpoint=endpoint, leases={})


def record_name(endpoint: str) -> str:
    """Name the resource that keeps the number in the state."""
    return f"{endpoint}-scale"


def contracts_in(outputs: Mapping[str, Mapping[str, Any]], endpoint: str) -> dict[int, int]:
    """Read the contracts of the replicas above 0 out of a state, by index.

    A machine that comes up beside another one has a generation in its name.
    """
    found = {}
    name = re.compile(rf"{re.escape(endpoint)}-r(?P<index>[1-9][0-9]?)(-[^:]+)?-instance")
    for urn, of_it in outputs.items():
        kind, _, last = urn.rpartition("::")
        match = name.fullmatch(last)
        if match and kind.endswith(RENTED):
            found[int(match["index"])] = contract_from_bag(of_it)
    return found


def contract_from_bag(bag: Mapping[str, Any]) -> int:
    """Read the contract of a machine; 0 if the state does not have it.

    Raises:
        StateUnreadable: if it is no number.
    """
    with reading():
        return int(bag.get("instance_id") or 0)


def _hours(lease: Lease, contract: int) -> float:
    """Give a machine's time to live: a lease that was extended for another one says nothing."""
    is_extended = lease.contract and contract in (0, lease.contract)
    return lease.hours if is_extended or not lease.contract else LEASE_HOURS
