"""What is sent to Vast: the bodies of a rent call and of a scheduled job. Pure."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class RentRequest:
    """What a rent call says beside the offer. Nothing here is secret."""

    image: str
    disk_gb: float
    label: str
    onstart: str
    ports: tuple[int, ...]
    """Container ports to map; 22 comes with the SSH run type."""
    price: float | None = None
    """$/h for the GPUs, of an interruptible contract; None rents on demand."""
    owner: str = ""
    """The owner of the contract, as `labels.py` reads it from the label; empty without an owner."""


def rent_body(order: RentRequest) -> dict[str, Any]:
    """Build the body that `vastai create instance --ssh --direct` sends (vast-api reference, 3.1).

    The ports go as a dict, since Vast does not apply a docker flag string on create. With
    `cancel_unavail` the call fails if the machine cannot start now. Without it, the default of
    bids, such a call leaves a stopped contract whose disk is billed (marketplace-facts, 3).
    """
    return {
        "client_id": "me",
        "image": order.image,
        "env": {f"-p {port}:{port}": "1" for port in order.ports},
        "price": order.price,
        "disk": order.disk_gb,
        "label": order.label,
        "extra": None,
        "onstart": order.onstart,
        "image_login": None,
        "python_utf8": False,
        "lang_utf8": False,
        "use_jupyter_lab": False,
        "jupyter_dir": None,
        "force": False,
        "cancel_unavail": True,
        "template_hash_id": None,
        "user": None,
        "runtype": "ssh_direc ssh_proxy",
    }


def end_body(instance_id: int, starts_at: float, until: float) -> dict[str, Any]:
    """Build what the official client sends for an hourly job."""
    return {
        "start_time": starts_at,
        "end_time": until,
        "api_endpoint": f"/api/v0/instances/{instance_id}/",
        "request_method": "DELETE",
        "request_body": {},
        "day_of_the_week": None,
        "hour_of_the_day": None,
        "frequency": "HOURLY",
        "instance_id": instance_id,
    }
