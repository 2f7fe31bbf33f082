"""What a state keeps of a rented machine: inputs and outputs, read and written here alone. Pure.

States of older releases lack what was added later (`instance_additions.py`). Such a state is
written as it came until a value changes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from components.core.property_bag import Properties, contains_unknowns, reading
from components.core.state_upgrade import Additions, as_written, upgraded
from components.vast.contract_state import MarketState
from components.vast.fleet import FLEET, Fleet, fleet_property
from components.vast.instance_additions import INPUT_ADDITIONS, OUTPUT_ADDITIONS, UNMAPPED
from components.vast.labels import owner_of
from components.vast.lifecycle.auto_shutdown import AutoShutdown
from components.vast.lifecycle.contract_expiry import ContractTerm, ExpiryPolicy
from components.vast.lifecycle.market_end import NONE, MarketJob
from components.vast.lifecycle.preemption import PreemptionPolicy, Preemptions
from components.vast.market.ranking import hourly_cap
from components.vast.market.requirements import ADDITIONS, NEEDS, Requirements, Search

if TYPE_CHECKING:
    from components.vast.api.models import Instance, PriceAsked

SSH_PORT = "22/tcp"

_UNKNOWN: Properties = {
    "label_prefix": "",
    "search": {"query": "", **dict.fromkeys(NEEDS, 0.0), **ADDITIONS},
    "image": "",
    "disk_gb": 0.0,
    "port": 0,
    "public_key": "",
    "private_key": "",
    "min_driver": "",
    "boot_minutes": 0.0,
    **INPUT_ADDITIONS,
}
"""What stands for an input that a preview does not know; `InstanceInputs.unknown` names it."""


@dataclasses.dataclass(frozen=True)
class InstanceInputs:
    """The machine that the stack asks for."""

    label_prefix: str
    """`<project>/<stack>/<resource>/`, which the labels of its contracts begin with."""
    search: Search
    image: str
    disk_gb: float
    port: int
    """The container's port that serves."""
    public_key: str
    """One OpenSSH line."""
    private_key: str = dataclasses.field(repr=False)
    """OpenSSH's private format; secret."""
    min_driver: str
    boot_minutes: float
    adopt: int = 0
    """Id of the contract that is to be taken over; 0 rents one."""
    outbid_policy: PreemptionPolicy = dataclasses.field(default_factory=PreemptionPolicy)
    losses: Preemptions = dataclasses.field(default_factory=dict)
    leash: AutoShutdown = dataclasses.field(default_factory=AutoShutdown)
    term: ExpiryPolicy = dataclasses.field(default_factory=ExpiryPolicy)
    first_contact: str = ""
    """The setting as it is written; empty from an older release, which asked nobody."""
    token_for: tuple[str, ...] = ()
    """Repositories that the Hub gives to the holder of the stack's token alone."""
    fleet: Fleet | None = None
    """Of the endpoint; None if it has one machine. It changes nothing about a running one."""
    unknown: frozenset[str] = frozenset()
    """Names of the properties that a preview does not know yet; their values here say nothing."""
    lacking: Additions = dataclasses.field(default_factory=dict, compare=False, repr=False)
    """Additions that the bag lacked, which an older release wrote."""

    @classmethod
    @reading()
    def from_bag(cls, bag: Mapping[str, Any]) -> Self:
        """Read the inputs out of a bag of any release, which may hold outputs as well.

        Raises:
            StateUnreadable: if it lacks what every release has written, or cannot be read.
        """
        unknown = frozenset(name for name in INPUTS if contains_unknowns(bag.get(name)))
        known = {**bag, **{name: _UNKNOWN[name] for name in unknown}}
        full, lacking = upgraded(known, INPUT_ADDITIONS)
        return cls(
            label_prefix=str(full["label_prefix"]),
            search=Search.from_bag(full["search"]),
            image=str(full["image"]),
            disk_gb=float(full["disk_gb"]),
            port=int(full["port"]),
            public_key=str(full["public_key"]),
            private_key=str(full["private_key"]),
            min_driver=str(full["min_driver"]),
            boot_minutes=float(full["boot_minutes"]),
            adopt=int(full["adopt"]),
            outbid_policy=PreemptionPolicy.from_bag(full["outbid_policy"]),
            losses={
                contract: {"at": float(loss["at"]), "dollars": float(loss["dollars"])}
                for contract, loss in full["losses"].items()
            },
            leash=AutoShutdown.from_bag(full["leash"]),
            term=ExpiryPolicy.from_bag(full["term"]),
            first_contact=str(full["first_contact"]),
            token_for=tuple(str(repository) for repository in full["token_for"]),
            fleet=Fleet.from_bag(full),
            unknown=unknown,
            lacking=lacking,
        )

    def to_bag(self) -> Properties:
        """Write them, without what an older release did not write and nothing has changed."""
        written: Properties = {
            "label_prefix": self.label_prefix,
            "search": self.search.to_bag(),
            "image": self.image,
            "disk_gb": self.disk_gb,
            "port": self.port,
            "public_key": self.public_key,
            "private_key": self.private_key,
            "min_driver": self.min_driver,
            "boot_minutes": self.boot_minutes,
            "adopt": self.adopt,
            "outbid_policy": self.outbid_policy.to_bag(),
            "losses": self.losses,
            "leash": self.leash.to_bag(),
            "term": self.term.to_bag(),
            "first_contact": self.first_contact,
            "token_for": list(self.token_for),
            FLEET: {},
            **fleet_property(self.fleet),
        }
        return as_written(written, self.lacking)

    @property
    def need(self) -> Requirements:
        """What the machine has to have."""
        return self.search.need

    @property
    def served(self) -> str:
        """The port that serves, as the market maps it, such as `8000/tcp`."""
        return f"{self.port}/tcp"

    @property
    def ports(self) -> tuple[str, str]:
        """The ports that have to be mapped."""
        return (SSH_PORT, self.served)

    @property
    def owner(self) -> str:
        """Whose contracts are the stack's (`owner.py`); empty while its key is not known."""
        return "" if "public_key" in self.unknown else owner_of(self.public_key)

    @property
    def cap(self) -> float | None:
        """The highest $/h with the disk, if it is known."""
        return None if "search" in self.unknown else hourly_cap(self.need)

    @property
    def lacking_of_search(self) -> frozenset[str]:
        """Names of the additions that the search lacked."""
        prefix = "search."
        return frozenset(
            path.removeprefix(prefix) for path in self.lacking if path.startswith(prefix)
        )


INPUTS = tuple(
    field.name
    for field in dataclasses.fields(InstanceInputs)
    if field.name not in {"unknown", "lacking"}
)
"""Names of the inputs, which are those of their properties."""


@dataclasses.dataclass(frozen=True)
class Observed:
    """What a refresh may find changed. Prices are $/h, moments are seconds since 1970."""

    instance_id: int
    machine_id: int
    status: str
    intended_status: str
    """Empty from an older release, as are the two below."""
    current_state: str
    next_state: str
    carried_label: str
    """The label that the contract has now."""
    interruptible: bool
    bid: float
    """For the GPUs alone; 0 if it is not known."""
    min_bid: float
    storage_per_hour: float
    public_ip: str
    ssh_port: int
    host_port: int
    """Where the container's port is reached from outside."""
    gpu: str
    gpu_name: str
    num_gpus: int
    hourly_cost: float
    """With the disk, without traffic."""
    location: str
    datacenter: bool
    contract_ends_at: float
    """0 if it is not known."""

    @classmethod
    def of(cls, live: Instance, served: str, last: Observed | None = None) -> Observed:
        """Read a contract; a port that is not mapped now is where it was at the `last` look.

        Raises:
            KeyError: if a port is not mapped and there was no earlier look.
        """
        ports = {SSH_PORT: last.ssh_port, served: last.host_port} if last else {}
        ports |= live.ports
        return cls(
            instance_id=live.id,
            machine_id=live.machine_id,
            status=live.actual_status,
            intended_status=live.intended_status,
            current_state=live.current_state,
            next_state=live.next_state,
            carried_label=live.label,
            interruptible=live.interruptible,
            bid=live.bid,
            min_bid=live.min_bid,
            storage_per_hour=round(live.storage_dollars_per_hour, 4),
            public_ip=live.public_ip,
            ssh_port=ports[SSH_PORT],
            host_port=ports[served],
            gpu=f"{live.num_gpus}x {live.gpu_name}",
            gpu_name=live.gpu_name,
            num_gpus=live.num_gpus,
            hourly_cost=round(live.dollars_per_hour, 4),
            location=live.location,
            datacenter=live.datacenter,
            contract_ends_at=live.ends_at,
        )

    @classmethod
    def from_bag(cls, full: Mapping[str, Any]) -> Observed:
        """Read an upgraded bag."""
        read = {"int": int, "float": float, "bool": bool, "str": str}
        # The annotations are text, by `from __future__ import annotations`.
        return cls(**{one.name: read[str(one.type)](full[one.name]) for one in _OBSERVED})

    @property
    def market_state(self) -> MarketState:
        """What the states and the bid say of a stop."""
        return MarketState(
            self.interruptible,
            self.status,
            self.intended_status,
            self.current_state,
            self.next_state,
            self.bid,
            self.min_bid,
        )


_OBSERVED = dataclasses.fields(Observed)


@dataclasses.dataclass(frozen=True)
class InstanceState:
    """A rented machine, as the state keeps it."""

    inputs: InstanceInputs
    observed: Observed
    label: str
    """The one that it was rented with."""
    host_key: str
    host_key_from: str | None
    """Who vouched for the host key; None from an older release, which asked nobody."""
    host_facts: Mapping[str, Any]
    """For people alone: what the host check found."""
    boot_seconds: Mapping[str, float]
    adopted: bool
    strays: tuple[int, ...] = ()
    """Other contracts of the same resource that a refresh found."""
    price_asked: PriceAsked | None = None
    ends_itself_at: float = 0.0
    """When its time to live is over, in seconds since 1970; 0 for never."""
    market_job: MarketJob = NONE
    """The market's own job to destroy it."""
    account_id: int = 0
    """Vast's account that it was rented on; 0 if that is not known."""
    other: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    """Properties that this release does not know, which a newer one wrote."""
    lacking: Additions = dataclasses.field(default_factory=dict, compare=False, repr=False)
    """Additions that the bag lacked, which an older release wrote."""

    @classmethod
    @reading()
    def from_bag(cls, bag: Mapping[str, Any]) -> Self:
        """Read a state of any release; raises what `InstanceInputs.from_bag` does."""
        additions = {**UNMAPPED, **OUTPUT_ADDITIONS, "carried_label": bag["label"]}
        full, lacking = upgraded(bag, additions)
        asked = full["price_asked"]
        return cls(
            inputs=InstanceInputs.from_bag(bag),
            observed=Observed.from_bag(full),
            label=str(full["label"]),
            host_key=str(full["host_key"]),
            host_key_from=full["host_key_from"],
            host_facts=full["host_facts"],
            boot_seconds=full["boot_seconds"],
            adopted=bool(full["adopted"]),
            strays=tuple(int(stray) for stray in full["strays"]),
            price_asked=_price_asked_from_bag(asked) if asked else None,
            ends_itself_at=float(full["ends_itself_at"]),
            market_job=MarketJob(int(full["market_job"]), float(full["market_ends_at"])),
            account_id=int(full["account_id"]),
            other={name: bag[name] for name in bag.keys() - _NAMES},
            lacking=lacking,
        )

    def to_bag(self) -> Properties:
        """Write it, without what an older release did not write and nothing has changed."""
        written = {
            **dataclasses.asdict(self.observed),
            "label": self.label,
            "host_key": self.host_key,
            "host_key_from": self.host_key_from,
            "host_facts": dict(self.host_facts),
            "boot_seconds": dict(self.boot_seconds),
            "adopted": self.adopted,
            "strays": list(self.strays),
            "price_asked": dataclasses.asdict(self.price_asked) if self.price_asked else None,
            "ends_itself_at": self.ends_itself_at,
            "market_job": self.market_job.number,
            "market_ends_at": self.market_job.starts_at,
            "account_id": self.account_id,
        }
        return {**self.other, **self.inputs.to_bag(), **as_written(written, self.lacking)}

    def term(self, cap: float | None) -> ContractTerm:
        """The known facts of the contract's term; `cap` is the highest $/h, if it is known."""
        observed = self.observed
        return ContractTerm(
            observed.contract_ends_at, observed.storage_per_hour, cap, self.price_asked
        )


OUTPUTS = (
    *(field.name for field in _OBSERVED),
    *(
        field.name
        for field in dataclasses.fields(InstanceState)
        if field.name not in {"inputs", "observed", "other", "lacking"}
    ),
    "market_ends_at",
)
"""Names of the outputs."""

_NAMES = frozenset({*INPUTS, *OUTPUTS, "__provider"})


def _price_asked_from_bag(bag: Mapping[str, Any]) -> PriceAsked:
    from components.vast.api.models import PriceAsked  # noqa: PLC0415

    return PriceAsked(**{**bag, "id": int(bag["id"])})
