"""Vast's JSON as types: an offer, an instance, a charge. Nulls and newlines end here.

The market is a stranger as well, and hosts write some of its fields. A number must be finite and a
text must be text; anything else becomes 0 or empty. Only a contract or a price without its own id
is refused, since an action would follow from its absence.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from components.core.display import clipped, shown
from components.core.plain_numbers import is_count
from components.machine.addresses import address
from components.vast.api.numbers import LEAST, MOST, number, whole
from components.vast.errors import ApiFailed

LONGEST_TEXT = 2000
"""Characters of a market's text that are kept. Hosts write some of these texts."""

Json = Mapping[str, Any]
"""One JSON object of an answer."""

HIGHEST_PORT = 65535

LOST = {"stopped", "exited", "offline", "unknown", "frozen"}
"""Statuses of a contract that do not get better while it boots (vast-api reference, 4.4)."""

_DESTROYS = re.compile(r"/api/v0/instances/([0-9]{1,18})/?")
"""What a scheduled job calls to destroy an instance."""


@dataclasses.dataclass(frozen=True)
class Offer:
    """One row of the market: a share of a machine at a price. Its id lives for minutes.

    A field that a row lacks is 0 or empty.
    """

    id: int
    machine_id: int
    host_id: int
    """Of the machine's owner, who may have several."""
    gpu_name: str
    num_gpus: int
    gpu_ram_mib: float
    dollars_per_hour: float
    """GPU and the disk that was asked for, `dph_total`."""
    storage_dollars_per_hour: float
    """Of that disk alone."""
    min_bid: float
    """The least $/h for the GPUs alone that an interruptible contract wins with."""
    inet_down_mbps: float
    inet_down_dollars_per_gb: float
    reliability: float
    location: str
    datacenter: bool
    cuda: float
    driver: str
    days_left: float
    """Until the host's own contract with the market ends."""
    raw: Json = dataclasses.field(repr=False)

    @classmethod
    def from_json(cls, raw: Json) -> Offer:
        """Read an element of `offers` (vast-api reference, 2.6); what is no offer has the id 0."""
        raw = raw if isinstance(raw, Mapping) else {}
        return cls(
            id=_whole(raw, "id"),
            machine_id=_whole(raw, "machine_id"),
            host_id=_whole(raw, "host_id"),
            gpu_name=_text(raw, "gpu_name"),
            num_gpus=_whole(raw, "num_gpus"),
            gpu_ram_mib=_number(raw, "gpu_ram"),
            dollars_per_hour=_number(raw, "dph_total"),
            storage_dollars_per_hour=_number(raw, "storage_total_cost"),
            min_bid=_number(raw, "min_bid"),
            inet_down_mbps=_number(raw, "inet_down"),
            inet_down_dollars_per_gb=_number(raw, "inet_down_cost"),
            reliability=_number(raw, "reliability2") or _number(raw, "reliability"),
            location=_text(raw, "geolocation"),
            datacenter=raw.get("hosting_type") == 1,
            cuda=_number(raw, "cuda_max_good"),
            driver=_text(raw, "driver_version"),
            days_left=_number(raw, "duration") / 86400,
            raw=raw,
        )


@dataclasses.dataclass(frozen=True)
class Instance:
    """One contract and what is known of its container."""

    id: int
    machine_id: int
    host_id: int
    label: str
    actual_status: str
    """`created`, `loading`, `running`, `exited`, ...; empty while Vast has none yet."""
    intended_status: str
    """`running` or `stopped`: of the container, by order of market or owner (marketplace-facts,
    1).
    """
    current_state: str
    next_state: str
    """Of the contract, `running` or `stopped`; empty where a row does not say."""
    status_message: str
    public_ip: str
    """An IP address; empty until there is one, and where the market's text is none."""
    ports: Mapping[str, int]
    """Host port by container port, such as `{"22/tcp": 40022}`; empty until it runs."""
    gpu_name: str
    num_gpus: int
    gpu_ram_mib: float
    driver: str
    cuda: float
    dollars_per_hour: float
    storage_dollars_per_hour: float
    inet_down_dollars_per_gb: float
    interruptible: bool
    bid: float
    """What is paid for the GPUs alone in $/h, which is the bid of an interruptible contract."""
    min_bid: float
    """The $/h for the GPUs alone that a bid has to reach now."""
    location: str
    datacenter: bool
    image: str
    disk_gb: float
    """As it was ordered."""
    started_at: float
    """Seconds since 1970."""
    ends_at: float
    """When the host's contract with the market ends; seconds since 1970, 0 if unknown."""
    gpu_temperature: float | None = None
    """Degrees Celsius, as the host reports them to the market; None while it does not."""

    @classmethod
    def from_json(cls, raw: Json) -> Instance:
        """Read an instance as the single GET and the list give it (vast-api reference, 4.3).

        Raises:
            ApiFailed: if it does not say which contract it is.
        """
        return cls(
            id=_own_number(raw, "id", "a contract"),
            machine_id=_whole(raw, "machine_id"),
            host_id=_whole(raw, "host_id"),
            label=_text(raw, "label"),
            actual_status=_text(raw, "actual_status"),
            intended_status=_text(raw, "intended_status"),
            current_state=_text(raw, "cur_state"),
            next_state=_text(raw, "next_state"),
            status_message=_text(raw, "status_msg"),
            public_ip=address(_text(raw, "public_ipaddr")),
            ports=_ports(raw.get("ports")),
            gpu_name=_text(raw, "gpu_name"),
            num_gpus=_whole(raw, "num_gpus"),
            gpu_ram_mib=_number(raw, "gpu_ram"),
            driver=_text(raw, "driver_version"),
            cuda=_number(raw, "cuda_max_good"),
            dollars_per_hour=_number(raw, "dph_total"),
            storage_dollars_per_hour=_number(raw, "storage_total_cost"),
            inet_down_dollars_per_gb=_number(raw, "inet_down_cost"),
            interruptible=raw.get("is_bid") in (True, 1),
            bid=_number(raw, "dph_base"),
            min_bid=_number(raw, "min_bid"),
            location=_text(raw, "geolocation"),
            datacenter=raw.get("hosting_type") == 1,
            image=_text(raw, "image_uuid"),
            disk_gb=_number(raw, "disk_space"),
            started_at=_number(raw, "start_date"),
            ends_at=_number(raw, "end_date"),
            gpu_temperature=number(raw.get("gpu_temp")),
        )


@dataclasses.dataclass(frozen=True)
class Charge:
    """One item of the ledger: what a contract cost, of one kind, in a span of time."""

    source: str
    """Such as `instance-123`; the contract may be long gone."""
    label: str
    """The contract's label; empty without one."""
    kind: str
    """`gpu`, `disk`, `bwd` or `bwu`."""
    since: float
    """Seconds since 1970."""
    until: float
    dollars: float

    @classmethod
    def from_json(cls, raw: Json) -> list[Charge]:
        """Read an element of `results` (vast-api reference, 12); one without items is one item.

        Raises:
            ApiFailed: if it, or an item of it, cannot be read: a bill must not lack a part.
        """
        items = _rows(raw, "items") or [raw]
        source = _text(raw, "source")
        metadata = raw.get("metadata")
        label = _text(metadata, "label") if isinstance(metadata, Mapping) else ""
        return [
            cls(
                source=source,
                label=label,
                kind=_text(item, "type"),
                since=_number(item, "start") or _number(raw, "start"),
                until=_number(item, "end") or _number(raw, "end") or _number(raw, "start"),
                dollars=_number(item, "amount"),
            )
            for item in items
        ]


@dataclasses.dataclass(frozen=True)
class PriceAsked:
    """A higher price that a host asks for, to go on for longer."""

    id: int
    dollars_per_hour: float
    """For the GPUs alone."""
    until: float
    """When the contract ends if the price is accepted; seconds since 1970, 0 if unknown."""

    @classmethod
    def from_json(cls, raw: Json) -> PriceAsked:
        """Read an element of `pending_price_increases` (vast-api reference, 5).

        Raises:
            ApiFailed: if it does not say which one it is.
        """
        return cls(
            id=_own_number(raw, "pending_price_increase_id", "a higher price"),
            dollars_per_hour=min(round(_number(raw, "new_gpu_costpersec") * 3600, 6), MOST),
            until=_number(raw, "ask_end_date"),
        )

    @classmethod
    def of(cls, rows: Iterable[Any], instance_id: int) -> PriceAsked | None:
        """Find what a contract's host asks for last; raises as `from_json`."""
        mine = [
            raw
            for raw in rows
            if isinstance(raw, Mapping) and whole(raw.get("contract_id")) == instance_id
        ]
        return cls.from_json(mine[-1]) if mine else None


@dataclasses.dataclass(frozen=True)
class ScheduledEnd:
    """A contract's destruction that the market is to carry out by itself."""

    job: int
    instance_id: int
    starts_at: float
    """Seconds since 1970."""

    @classmethod
    def from_json(cls, raw: Any) -> ScheduledEnd | None:
        """Read a row of the scheduled jobs; None for one that does anything else."""
        if not isinstance(raw, Mapping) or raw.get("frequency") != "HOURLY":
            return None
        destroys = _DESTROYS.fullmatch(str(raw.get("api_endpoint") or ""))
        job, starts_at = whole(raw.get("id")), number(raw.get("start_time"))
        if str(raw.get("request_method")).upper() != "DELETE" or not destroys:
            return None
        return cls(job, int(destroys[1]), starts_at) if job and starts_at is not None else None


def _own_number(raw: Any, key: str, what: str) -> int:
    own = whole(raw.get(key)) if isinstance(raw, Mapping) else None
    if not own:
        raise ApiFailed(
            f"Vast.ai's answer has {what} without a number, so it cannot be used; what is "
            "already rented stays as it is; try again later"
        )
    return own


def _rows(raw: Any, key: str) -> list[Json]:
    """The objects of a list in a row of the ledger; none if it has no list."""
    items = raw.get(key) if isinstance(raw, Mapping) else None
    given = items if isinstance(items, list) else []
    if not isinstance(raw, Mapping) or not all(isinstance(one, Mapping) for one in given):
        raise ApiFailed(
            "Vast.ai's answer has a charge that cannot be read, and nothing is summed up without "
            "it; try again later"
        )
    return given


def _text(raw: Json, key: str) -> str:
    """Read a text: hosts write their place, their GPU's name and their status as they like."""
    value = raw.get(key)
    return shown(clipped(value, LONGEST_TEXT)).strip() if isinstance(value, str) else ""


def _number(raw: Json, key: str) -> float:
    """Read an amount; 0 for what is none."""
    read = number(raw.get(key))
    return read if read is not None and read >= LEAST else 0.0


def _whole(raw: Json, key: str) -> int:
    return whole(raw.get(key)) or 0


def _ports(raw: Any) -> dict[str, int]:
    """Take the IPv4 mapping of each port; an entry can be null or list IPv6 first.

    The single GET is reported to give Docker's form, an array of numbers or nothing
    (marketplace-facts, 12). Numbers alone do not say where a port leads.
    """
    if not isinstance(raw, Mapping):
        return {}
    found = {str(port): _ipv4_port(mappings) for port, mappings in raw.items()}
    return {port: number for port, number in found.items() if number}


def _ipv4_port(mappings: Any) -> int:
    """Read the first IPv4 host port of Docker's list; 0 if there is none."""
    for mapping in mappings if isinstance(mappings, list) else []:
        if not isinstance(mapping, Mapping) or ":" in str(mapping.get("HostIp", "")):
            continue
        if port := _port(mapping.get("HostPort")):
            return port
    return 0


def _port(raw: Any) -> int:
    """Read the number of a port; 0 for what is none."""
    digits = str(raw)
    number = int(digits) if is_count(digits) else 0
    return number if number <= HIGHEST_PORT else 0
