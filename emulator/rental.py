"""From an offer and a tenant's terms to the contract between them."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from emulator import contracts, images
from emulator.contract_types import RUNNING, STOPPED, Contract
from emulator.errors import ApiError
from emulator.market import Machine, Offer, gpu_price
from emulator.terms import Terms

PREINSTALLED = "vllm/vllm-openai"
"""The image that some hosts of the market have on their disk already."""

SLOW_PULL = 600.0
"""Emulated seconds of a pull by the fault `pull_takes`."""


@dataclass(frozen=True)
class Place:
    """What the host gives a new container: its id, network address and port of the SSH proxy."""

    contract_id: int
    address: str
    ssh_port: int


def refuse_unfit(offer: Offer, terms: Terms) -> None:
    """Refuse terms that this offer cannot meet.

    Raises:
        ApiError: the disk is more than the machine has.
    """
    if terms.disk_gb > offer.machine.disk_space:
        raise ApiError(
            400,
            "invalid_args",
            f"disk {terms.disk_gb} GB is more than the {offer.machine.disk_space} GB of machine "
            f"{offer.machine.id}",
        )


def can_start(offer: Offer, terms: Terms) -> bool:
    """Say whether the GPUs are free and a bid wins them; what is to be stopped need not start."""
    wins = terms.price is None or terms.price >= gpu_price(offer, "bid")
    return terms.stopped or (offer.rentable and wins)


def draw_up(
    offer: Offer,
    terms: Terms,
    place: Place,
    *,
    now: float,
    cached: bool,
    ssh_keys: list[str],
    faults: dict[str, dict[str, Any]],
    parked: bool,
) -> Contract:
    """Return the contract, at its very beginning.

    `cached` if the host has the image already; `parked` if it is made and cannot start.
    """
    machine = offer.machine
    size = 0.0 if cached else images.compressed_bytes(terms.image)
    on_demand = gpu_price(offer, "on-demand")
    return Contract(
        id=place.contract_id,
        machine_id=machine.id,
        offer_id=offer.id,
        num_gpus=offer.num_gpus,
        disk_gb=terms.disk_gb,
        label=terms.label,
        image=terms.image,
        runtype=terms.runtype,
        env=terms.env,
        onstart=terms.onstart,
        args=terms.args,
        is_bid=terms.price is not None,
        gpu_per_hour=on_demand if terms.price is None else terms.price,
        min_bid=gpu_price(offer, "bid"),
        storage_cost=machine.storage_cost,
        inet_up_cost=machine.inet_up_cost,
        inet_down_cost=machine.inet_down_cost,
        start_date=now,
        end_date=offer.end_date,
        address=place.address,
        image_bytes=size,
        pull_seconds=contracts.PREPARING + _pull_seconds(size, machine, faults),
        intended=STOPPED if terms.stopped or parked else RUNNING,
        parked=parked,
        ssh_port=place.ssh_port,
        ssh_keys=ssh_keys,
        template_id=terms.template_id,
        template_hash_id=terms.template_hash_id,
        template_name=terms.template_name,
        faults=faults,
    )


def _pull_seconds(size: float, machine: Machine, faults: dict[str, dict[str, Any]]) -> float:
    """Return the emulated seconds of a pull of `size` bytes; a fault says others."""
    if "pull_takes" in faults:
        return float(faults["pull_takes"].get("seconds", SLOW_PULL))
    return images.pull_seconds(size, machine.inet_down)


def has_image(machine: Machine, image: str, earlier: Iterable[Contract]) -> bool:
    """Say whether `machine` has `image`: it came with it, or an earlier contract pulled it."""
    if machine.has_vllm_image and images.repository(image) == PREINSTALLED:
        return True
    return any(
        one.machine_id == machine.id
        and one.image == image
        and one.pulled_bytes >= one.image_bytes
        and one.running_once
        for one in earlier
    )


def new_address(chance: random.Random, used: Collection[str]) -> str:
    """Draw one of so many that another emulator of this computer has hardly drawn it too."""
    while True:
        network = f"127.{chance.randint(42, 249)}.{chance.randint(0, 255)}"
        address = f"{network}.{chance.randint(1, 254)}"
        if address not in used:
            return address
