"""What Vast's JSON says, as types: an offer, an instance, a charge. Nulls and newlines end here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from components.display import clipped, shown
from components.vast.addresses import address

LONGEST_TEXT = 2000
"""Characters of a text of the market that are kept. Any host may write some of them."""

Json = Mapping[str, Any]
"""One JSON object of an answer."""

HIGHEST_PORT = 65535


@dataclasses.dataclass(frozen=True)
class Offer:
    """One row of the market: a share of a machine at a price. Its id lives for minutes.

    What a row does not say is 0 or empty.
    """

    id: int
    machine_id: int
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
        """Read an element of `offers` (vast-api reference, 2.6)."""
        return cls(
            id=int(raw.get("id") or 0),
            machine_id=int(raw.get("machine_id") or 0),
            gpu_name=_text(raw, "gpu_name"),
            num_gpus=int(raw.get("num_gpus") or 0),
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
    label: str
    actual_status: str
    """`created`, `loading`, `running`, `exited`, ...; empty while Vast has none yet."""
    intended_status: str
    """`running` or `stopped`: of the container, whoever wants it so (marketplace-facts, 1)."""
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
    """When the host's contract with the market ends; seconds since 1970, 0 if that is not said."""

    @classmethod
    def from_json(cls, raw: Json) -> Instance:
        """Read an instance as the single GET and the list give it (vast-api reference, 4.3)."""
        return cls(
            id=int(raw["id"]),
            machine_id=int(raw.get("machine_id") or 0),
            label=_text(raw, "label"),
            actual_status=_text(raw, "actual_status"),
            intended_status=_text(raw, "intended_status"),
            current_state=_text(raw, "cur_state"),
            next_state=_text(raw, "next_state"),
            status_message=_text(raw, "status_msg"),
            public_ip=address(_text(raw, "public_ipaddr")),
            ports=_ports(raw.get("ports")),
            gpu_name=_text(raw, "gpu_name"),
            num_gpus=int(raw.get("num_gpus") or 0),
            gpu_ram_mib=_number(raw, "gpu_ram"),
            driver=_text(raw, "driver_version"),
            cuda=_number(raw, "cuda_max_good"),
            dollars_per_hour=_number(raw, "dph_total"),
            storage_dollars_per_hour=_number(raw, "storage_total_cost"),
            inet_down_dollars_per_gb=_number(raw, "inet_down_cost"),
            interruptible=bool(raw.get("is_bid")),
            bid=_number(raw, "dph_base"),
            min_bid=_number(raw, "min_bid"),
            location=_text(raw, "geolocation"),
            datacenter=raw.get("hosting_type") == 1,
            image=_text(raw, "image_uuid"),
            disk_gb=_number(raw, "disk_space"),
            started_at=_number(raw, "start_date"),
            ends_at=_number(raw, "end_date"),
        )


@dataclasses.dataclass(frozen=True)
class Charge:
    """One item of the ledger: what a contract cost, of one kind, in a span of time."""

    source: str
    """Such as `instance-123`; the contract may be long gone."""
    label: str
    """That the contract carried; empty if it carried none."""
    kind: str
    """`gpu`, `disk`, `bwd` or `bwu`."""
    since: float
    """Seconds since 1970."""
    until: float
    dollars: float

    @classmethod
    def from_json(cls, raw: Json) -> list[Charge]:
        """Read an element of `results` (vast-api reference, 12); one without items is one item."""
        source = _text(raw, "source")
        label = _text(raw.get("metadata") or {}, "label")
        return [
            cls(
                source=source,
                label=label,
                kind=_text(item, "type"),
                since=_number(item, "start") or _number(raw, "start"),
                until=_number(item, "end") or _number(raw, "end") or _number(raw, "start"),
                dollars=_number(item, "amount"),
            )
            for item in raw.get("items") or [raw]
        ]


@dataclasses.dataclass(frozen=True)
class PriceAsked:
    """A higher price that a host asks for, to go on for longer."""

    id: int
    dollars_per_hour: float
    """For the GPUs alone."""
    until: float
    """When the contract ends if it is accepted; seconds since 1970, 0 if that is not said."""

    @classmethod
    def from_json(cls, raw: Json) -> PriceAsked:
        """Read an element of `pending_price_increases` (vast-api reference, 5)."""
        return cls(
            id=int(raw["pending_price_increase_id"]),
            dollars_per_hour=round(_number(raw, "new_gpu_costpersec") * 3600, 6),
            until=_number(raw, "ask_end_date"),
        )


def _text(raw: Json, key: str) -> str:
    """Read a text: hosts write their place, their GPU's name and their status as they like."""
    return shown(clipped(str(raw.get(key) or ""), LONGEST_TEXT)).strip()


def _number(raw: Json, key: str) -> float:
    return float(raw.get(key) or 0)


def _ports(raw: Any) -> dict[str, int]:
    """Take the IPv4 mapping of each port; an entry can be null or list IPv6 first.

    The single GET is said to give Docker's form, an array of numbers or nothing
    (marketplace-facts, 12). Numbers alone say of no port where it leads.
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
    number = int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 6 else 0  # noqa: PLR2004  (65535)
    return number if number <= HIGHEST_PORT else 0
