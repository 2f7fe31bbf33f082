"""The marketplace's supply: machines drawn from a seed, and the offers that they make.

An offer is a fraction of a machine (1, 2, 4 or 8 of its GPUs) that nobody else holds just now.
Its id carries the machine's listing, which changes each time that the machine is partly rented,
given back or re-listed: an offer lives for minutes, a machine id for good. Everything here is a
pure function of the seed, of the emulated time since the market was drawn, and of how many GPUs
the account itself holds: a seed has the same supply on any day.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from emulator.gpus import GPUS, Gpu

DAY = 86_400.0
HOUR = 3_600.0
HOURS_A_MONTH = 720.0
"""Vast counts a month as 720 h: dph_total = dph_base + GB x $/GB/month / 720."""

DEFAULT_ALLOCATED_STORAGE_GB = 5.0
MOST_OFFERS = 64
"""The server returns no more, whatever `limit` asks."""

_SIZES = (1, 2, 4, 8)
_GOOD_OF_THREE = 2
"""Of three machines of a model two are good ones; the third is what filters are for."""
_HAS_ANOTHER = 6
"""Of so many machines of a model, two are of one host."""
_VERIFIED_OF_THE_REST = 0.5
_HAVE_VLLM_IMAGE = 0.3
_RELISTED_EVERY = 8 * HOUR
_RENTED_TOO = ({"eq": True}, {"eq": "true"}, {"eq": "True"})
_SEEN_OF_TEN = 9
"""Of ten offers so many are listed at any second, where others come and go."""
_PLACES = (
    ("California, US", 1),
    ("Texas, US", 1),
    ("Quebec, CA", 1),
    ("Iceland, IS", 2),
    ("Norway, NO", 2),
    ("Germany, DE", 2),
    ("France, FR", 2),
    ("Czechia, CZ", 2),
    ("Japan, JP", 3),
    ("South Korea, KR", 3),
)
_DRIVERS = (
    ("570.124.04", 12.8),
    ("570.195.03", 12.8),
    ("575.57.08", 12.9),
    ("580.95.05", 13.0),
    ("580.105.08", 13.0),
)
_STOCK = {
    "B200": 4,
    "H200": 14,
    "H200 NVL": 5,
    "H100 SXM": 10,
    "H100 NVL": 4,
    "A100 SXM4": 6,
    "L40S": 5,
    "RTX PRO 6000 S": 4,
    "RTX 5090": 8,
    "RTX 4090": 12,
    "RTX 3090": 6,
}


@dataclass(frozen=True)
class Machine:
    """One host of the market. Money in $: prices per GPU hour, GB-month or GB; links in Mbit/s."""

    id: int
    host_id: int
    gpu: Gpu
    num_gpus: int
    gpu_price: float
    bid_price: float
    storage_cost: float
    inet_up_cost: float
    inet_down_cost: float
    inet_up: float
    inet_down: float
    disk_space: float
    disk_bw: float
    driver_version: str
    cuda: float
    cpu_name: str
    cpu_cores: int
    cpu_ram_mb: int
    direct_port_count: int
    reliability: float
    verification: str
    hosting_type: int
    geolocation: str
    geolocode: int
    static_ip: bool
    ends_after: float
    restlessness: float
    has_vllm_image: bool


@dataclass(frozen=True)
class Offer:
    """`num_gpus` of a machine, as listed at one moment. `rentable` is False if they are taken."""

    id: int
    machine: Machine
    num_gpus: int
    rentable: bool
    end_date: float


def draw_market(seed: int) -> list[Machine]:
    """Return the machines of the market number `seed`, always the same ones."""
    chance = random.Random(seed)  # noqa: S311  (a reproducible market, not a secret)
    machines: list[Machine] = []
    for gpu in GPUS:
        for place in range(_STOCK[gpu.name]):
            machine_id = 21_000 + 37 * len(machines) + chance.randrange(30)
            drawn = _draw_machine(chance, gpu, machine_id, good=place % 3 < _GOOD_OF_THREE)
            if place % _HAS_ANOTHER == 1:
                drawn = replace(drawn, host_id=machines[-1].host_id)
            machines.append(drawn)
    return machines


def offers_of(
    machine: Machine, *, now: float, birth: float, held: int, calm: bool = False
) -> list[Offer]:
    """Return what `machine` lists at `now` when the account itself holds `held` of its GPUs.

    `birth` is the emulated moment at which the market was drawn; on a `calm` one the others are
    those of that moment.
    """
    free = free_gpus(machine, now=now, birth=birth, held=held, calm=calm)
    listing = (_relistings(machine, _age(now, birth, calm=calm)) + 13 * held) % 1000
    end = _end_date(machine, now, birth)
    sizes = [size for size in _SIZES if size <= machine.num_gpus]
    listed = [size for size in sizes if size <= free] or [sizes[-1]]
    return [
        Offer(
            id=(machine.id * 1000 + listing) * 10 + _SIZES.index(size),
            machine=machine,
            num_gpus=size,
            rentable=size <= free,
            end_date=end,
        )
        for size in listed
    ]


def free_gpus(machine: Machine, *, now: float, birth: float, held: int, calm: bool = False) -> int:
    """Return how many GPUs of `machine` are nobody's at `now`; all as in `offers_of`."""
    others = _held_by_others(machine, _age(now, birth, calm=calm))
    return max(0, machine.num_gpus - held - others)


def is_seen(offer: Offer, now: float) -> bool:
    """Say whether an offer is listed in this second: answers vary from call to call."""
    chance = random.Random(f"{offer.id}/{int(now)}")  # noqa: S311  (see above)
    return chance.randrange(10) < _SEEN_OF_TEN


def storage_per_hour(disk_gb: float, storage_cost: float) -> float:
    """Return $/h of `disk_gb` GB at `storage_cost` $/GB/month."""
    return disk_gb * storage_cost / HOURS_A_MONTH


def offer_row(
    offer: Offer, *, now: float, kind: str = "on-demand", storage_gb: float
) -> dict[str, Any]:
    """Return the offer as the search answers it, priced for `storage_gb` GB of disk.

    `kind` is on-demand, bid or reserved; for bid `dph_base` is the lowest winning bid.
    """
    machine = offer.machine
    base = gpu_price(offer, kind)
    disk = storage_per_hour(storage_gb, machine.storage_cost)
    total = base + disk
    discounted = base * 0.75 + disk if kind == "reserved" else total
    share = offer.num_gpus / machine.num_gpus
    row = hardware_row(machine, offer.num_gpus)
    row |= {
        "id": offer.id,
        "ask_contract_id": offer.id,
        "bundle_id": machine.id * 10 + offer.num_gpus,
        "bundled_results": 1,
        "resource_type": "gpu",
        "disk_space": round(machine.disk_space * share, 1),
        "dph_base": base,
        "dph_total": total,
        "dph_total_adj": total,
        "discounted_dph_total": discounted,
        "discounted_hourly": discounted - disk if kind == "reserved" else 0.0,
        "discount_rate": 0.25 if kind == "reserved" else None,
        "credit_discount_max": 0.25,
        "min_bid": machine.bid_price * offer.num_gpus,
        "storage_total_cost": disk,
        "vram_costperhour": base / (machine.gpu.ram_mib * offer.num_gpus),
        "platform_fee": 0.0,
        "search": {
            "gpuCostPerHour": base,
            "diskHour": disk,
            "totalHour": total,
            "discountTotalHour": 0.0,
            "discountedTotalPerHour": discounted,
        },
        "instance": {"gpuCostPerHour": 0.0, "diskHour": disk, "totalHour": disk},
        "dlperf_per_dphtotal": machine.gpu.dlperf * offer.num_gpus / total,
        "flops_per_dphtotal": machine.gpu.tflops * offer.num_gpus / total,
        "score": round(machine.gpu.dlperf * offer.num_gpus * machine.reliability / total, 3),
        "start_date": now,
        "end_date": offer.end_date,
        "duration": offer.end_date - now,
        "time_remaining": "",
        "time_remaining_isbid": "",
        "rentable": offer.rentable,
        "rented": not offer.rentable,
        "is_bid": kind == "bid",
        "rn": 1,
        "avail_vol_ask_id": volume_offer_id(machine),
        "avail_vol_dph": storage_per_hour(1.0, machine.storage_cost),
        "avail_vol_size": round(machine.disk_space / 4, 1),
        "nw_disk_min_bw": None,
        "nw_disk_avg_bw": None,
        "nw_disk_max_bw": None,
    }
    return row


def gpu_price(offer: Offer, kind: str) -> float:
    """Return $/h of the offer's GPUs alone: the asking price, or the lowest winning bid."""
    each = offer.machine.bid_price if kind == "bid" else offer.machine.gpu_price
    return round(each * offer.num_gpus, 6)


def volume_offer_id(machine: Machine) -> int:
    """Return the id under which `machine` offers disk for volumes."""
    return machine.id * 100 + 7


def hardware_row(machine: Machine, num_gpus: int) -> dict[str, Any]:
    """Return the fields about the hardware that offers and instances share."""
    gpu = machine.gpu
    share = num_gpus / machine.num_gpus
    cuda_number = _version_number(machine.driver_version)
    return {
        "machine_id": machine.id,
        "host_id": machine.host_id,
        "hostname": None,
        "cluster_id": None,
        "num_gpus": num_gpus,
        "gpu_name": gpu.name,
        "gpu_ram": gpu.ram_mib,
        "gpu_total_ram": gpu.ram_mib * num_gpus,
        "gpu_frac": share,
        "gpu_arch": "nvidia",
        "gpu_lanes": 16,
        "gpu_mem_bw": gpu.memory_gb_s,
        "gpu_max_power": float(gpu.watts),
        "gpu_max_temp": 90.0,
        "gpu_ids": [machine.id * 10 + number for number in range(num_gpus)],
        "gpu_display_active": False,
        "compute_cap": gpu.compute_cap,
        "cuda_max_good": machine.cuda,
        "driver_version": machine.driver_version,
        "driver_vers": cuda_number,
        "bw_nvlink": gpu.nvlink_gb_s,
        "total_flops": gpu.tflops * num_gpus,
        "dlperf": gpu.dlperf * num_gpus,
        "pci_gen": 5.0 if gpu.datacenter_only else 4.0,
        "pcie_bw": 52.0 if gpu.datacenter_only else 24.0,
        "cpu_name": machine.cpu_name,
        "cpu_arch": "amd64",
        "cpu_cores": machine.cpu_cores,
        "cpu_cores_effective": machine.cpu_cores * share,
        "cpu_ghz": 2.4,
        "cpu_ram": machine.cpu_ram_mb,
        "has_avx": 1,
        "mobo_name": "X13DEG-OAD" if gpu.datacenter_only else "ROME2D32GM-2T",
        "os_version": "22.04",
        "disk_bw": machine.disk_bw,
        "disk_name": "nvme",
        "vms_enabled": False,
        "is_vm_deverified": False,
        "inet_up": machine.inet_up,
        "inet_down": machine.inet_down,
        "inet_up_cost": machine.inet_up_cost,
        "inet_down_cost": machine.inet_down_cost,
        "internet_up_cost_per_tb": machine.inet_up_cost * 1000,
        "internet_down_cost_per_tb": machine.inet_down_cost * 1000,
        "direct_port_count": machine.direct_port_count,
        "static_ip": machine.static_ip,
        "public_ipaddr": "127.0.0.1",
        "geolocation": machine.geolocation,
        "geolocode": machine.geolocode,
        "storage_cost": machine.storage_cost,
        "reliability": machine.reliability,
        "reliability2": machine.reliability,
        "reliability_mult": machine.reliability,
        "expected_reliability": machine.reliability,
        "verification": machine.verification,
        "vericode": 1 if machine.verification == "verified" else 0,
        "hosting_type": machine.hosting_type,
        "external": False,
        "logo": None,
        "webpage": None,
    }


def landed_query(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the filters in a search body: everything but order, type, limit and pricing.

    `rented` that is true asks for rented offers too, and leaves no others out.
    """
    control = {"order", "type", "limit", "allocated_storage", "disable_bundling", "extra_filters"}
    filters = {column: tests for column, tests in body.items() if column not in control}
    if filters.get("rented") in _RENTED_TOO:
        del filters["rented"]
    return filters


def _draw_machine(chance: random.Random, gpu: Gpu, machine_id: int, *, good: bool) -> Machine:
    big = gpu.datacenter_only
    driver, cuda = chance.choice(_DRIVERS if good else _DRIVERS[:2])
    place, code = chance.choice(_PLACES)
    price = round(chance.uniform(gpu.cheapest, gpu.dearest), 3)
    num_gpus = chance.choice((8, 8, 4, 2)) if big else chance.choice((1, 1, 2, 4))
    return Machine(
        id=machine_id,
        host_id=chance.randrange(1_000, 180_000),
        gpu=gpu,
        num_gpus=num_gpus,
        gpu_price=price,
        bid_price=round(price * chance.uniform(0.35, 0.6), 3),
        storage_cost=round(chance.uniform(0.10, 0.25), 3),
        inet_up_cost=round(chance.uniform(0.001, 0.02), 4),
        inet_down_cost=round(chance.uniform(0.001, 0.02), 4),
        inet_up=round(chance.uniform(2_000, 8_000) if big else chance.uniform(200, 900), 1),
        inet_down=round(chance.uniform(3_000, 9_000) if big else chance.uniform(300, 950), 1),
        disk_space=float(chance.choice((8_000, 14_000, 20_000) if big else (400, 900, 1_600))),
        disk_bw=round(chance.uniform(3_000, 7_000) if big else chance.uniform(1_200, 4_000), 1),
        driver_version=driver,
        cuda=cuda,
        cpu_name="Xeon Platinum 8480+" if big else "EPYC 7502",
        cpu_cores=(24 * num_gpus) if big else (12 * num_gpus),
        cpu_ram_mb=(257_500 if big else 64_400) * num_gpus,
        direct_port_count=chance.choice((64, 249, 499)) * (1 if good else 0) + 16 * num_gpus,
        reliability=round(chance.uniform(0.985, 0.9995) if good else chance.uniform(0.90, 0.98), 4),
        verification="verified"
        if good or chance.random() < _VERIFIED_OF_THE_REST
        else "unverified",
        hosting_type=1 if big and good else 0,
        geolocation=place,
        geolocode=code,
        static_ip=good,
        ends_after=round(chance.uniform(20, 180) if good else chance.uniform(2, 20)) * DAY,
        restlessness=0.1 if good else 0.5,
        has_vllm_image=chance.random() < _HAVE_VLLM_IMAGE,
    )


def _age(now: float, birth: float, *, calm: bool) -> float:
    """Emulated seconds that others have had to come and go."""
    return 0.0 if calm else now - birth


def _held_by_others(machine: Machine, age: float) -> int:
    chance = random.Random(f"{machine.id}/{_relistings(machine, age)}")  # noqa: S311  (see above)
    if chance.random() > machine.restlessness:
        return 0
    return chance.choice([size for size in _SIZES if size <= machine.num_gpus])


def _relistings(machine: Machine, age: float) -> int:
    """How often others came or went: each machine has moments of its own, hours apart."""
    offset = (machine.id * 7919) % int(_RELISTED_EVERY)
    return int((age + offset) // _RELISTED_EVERY)


def _end_date(machine: Machine, now: float, birth: float) -> float:
    """Hosts extend their listing when less than two days of it are left."""
    end = birth + machine.ends_after
    if end - now > 2 * DAY:
        return end
    missed = int((now + 2 * DAY - end) // machine.ends_after) + 1
    return end + missed * machine.ends_after


def _version_number(version: str) -> int:
    major, minor, patch = version.split(".")
    return int(f"{major:0>3}{minor:0>3}{patch:0>3}")
