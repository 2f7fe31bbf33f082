"""Local volumes: disk on one machine that outlives instances, billed until it is deleted."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from emulator.contract_types import Charge, Contract
from emulator.errors import ApiError
from emulator.host import Host
from emulator.market import HOUR, Machine, hardware_row, storage_per_hour, volume_offer_id
from emulator.store import FIRST_CONTRACT, Store
from emulator.terms import Terms

FREED_AFTER = 30.0
"""Emulated seconds after the instance's end until its volume can be deleted or attached."""

_NAME = re.compile(r"^[A-Za-z0-9_]{1,64}$")


class Volumes:
    """The account's volumes."""

    def __init__(self, store: Store, host: Host, machine: Callable[[int], Machine]) -> None:
        """Keep volumes in `store`; `machine` finds a machine by its id."""
        self._store = store
        self._host = host
        self._machine = machine

    def all(self) -> list[dict[str, Any]]:
        """Return the volumes as the store holds them."""
        return [body for _, body in self._store.documents("volume")]

    def create(self, machine: Machine, size: float, name: str | None, now: float) -> dict[str, Any]:
        """Make a volume of `size` GB on `machine`.

        Raises:
            ApiError: the name or the size cannot be.
        """
        if name is not None and not _NAME.match(name):
            raise ApiError(
                400, "invalid_args", f"volume name {name!r} does not fit {_NAME.pattern}"
            )
        if not 0 < size <= machine.disk_space:
            raise ApiError(400, "invalid_args", f"size {size} GB is not up to {machine.disk_space}")
        number = self._store.next_id("contract", FIRST_CONTRACT)
        body = {
            "id": number,
            "machine_id": machine.id,
            "size": size,
            "name": name or f"V.{number}",
            "start_date": now,
            "charged_until": now,
            "instance": None,
            "free_from": now,
        }
        self._store.save_document("volume", number, body)
        return body

    def delete(self, number: int, now: float) -> None:
        """Delete a volume and what is on it.

        Raises:
            ApiError: there is none, or an instance uses it or did a moment ago.
        """
        body = self._store.document("volume", number)
        if body is None:
            raise ApiError(404, "no_such_volume", f"Volume {number} not found.")
        if body["instance"] is not None or now < body["free_from"]:
            raise ApiError(400, "volume_in_use", f"Volume {number} is mounted by an instance.")
        self._store.drop_document("volume", number)
        self._host.remove_volume(number)

    def attach(self, contract: Contract, terms: Terms) -> Contract:
        """Tie the volume that `terms` ask for (made now, if asked) to `contract`.

        Raises:
            ApiError: it is not there, in use, or on another machine.
        """
        if terms.volume_id is None:
            return contract
        now = contract.start_date
        if terms.volume_size is not None:
            machine = self._machine(contract.machine_id)
            if terms.volume_id != volume_offer_id(machine):
                raise ApiError(400, "invalid_args", "the volume offer is on another machine")
            body = self.create(machine, terms.volume_size, None, now)
        else:
            body = self._store.document("volume", terms.volume_id) or {}
        if body.get("machine_id") != contract.machine_id:
            raise ApiError(400, "invalid_args", f"volume {terms.volume_id} is not on this machine")
        if body["instance"] is not None or now < body["free_from"]:
            raise ApiError(400, "volume_in_use", f"volume {body['id']} is in use")
        self._store.save_document("volume", body["id"], body | {"instance": contract.id})
        return replace(contract, volume_id=body["id"], mount_path=terms.mount_path)

    def mount(self, contract: Contract) -> None:
        """Make the contract's volume, if it has one, visible in its container."""
        if contract.volume_id is not None:
            self._host.mount(contract, contract.volume_id, contract.mount_path or "/data")

    def detach(self, contract: Contract) -> None:
        """Free the contract's volume; it can be used again a little later."""
        body = self._store.document("volume", contract.volume_id or 0)
        if body is not None:
            free_from = contract.charged_until + FREED_AFTER
            freed = body | {"instance": None, "free_from": free_from}
            self._store.save_document("volume", body["id"], freed)

    def charge(self, now: float) -> list[Charge]:
        """Charge every volume up to `now`."""
        charges = []
        for body in self.all():
            seconds = now - body["charged_until"]
            if seconds <= 0:
                continue
            amount = self._per_hour(body) * seconds / HOUR
            charges.append(Charge(body["id"], "disk", body["charged_until"], now, seconds, amount))
            self._store.save_document("volume", body["id"], body | {"charged_until": now})
        return charges

    def per_hour(self) -> float:
        """Return $/h of all volumes."""
        return sum(self._per_hour(body) for body in self.all())

    def row(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return a volume as the API lists it."""
        machine = self._machine(body["machine_id"])
        return {
            **hardware_row(machine, machine.num_gpus),
            "id": body["id"],
            "status": "created" if body["instance"] is None else "in-use",
            "instances": [] if body["instance"] is None else [body["instance"]],
            "label": body["name"],
            "name": body["name"],
            "start_date": body["start_date"],
            "disk_space": body["size"],
            "storage_total_cost": self._per_hour(body),
        }

    def _per_hour(self, body: dict[str, Any]) -> float:
        return storage_per_hour(body["size"], self._machine(body["machine_id"]).storage_cost)
