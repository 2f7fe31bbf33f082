"""An account's contracts as `InstancesApi` gives them: the fake of that protocol.

`tests/process/vast/api/test_instances_contract.py` holds it to what `VastApi` does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from components.vast.api.models import Instance
from components.vast.api.payloads import RentRequest
from components.vast.errors import ApiFailed, KeyRefused, OfferTaken
from tests.helpers.offers import instance

FIRST = 9000
"""The number before that of the first contract which is rented."""


class ImpossibleWorld(Exception):
    """A test describes an account that Vast cannot have."""


class FakeInstances:
    """Contracts that run at once and go when they are told to; what is done to them is noted."""

    def __init__(self, *contracts: Instance, offers: Iterable[int] = ()) -> None:
        """Begin with these contracts, and with offers that can be rented, each once.

        Raises:
            ImpossibleWorld: if Vast could not show them together.
        """
        self.contracts = {one.id: one for one in contracts}
        self.offers = set(offers)
        self.account = 4711
        self.did: list[tuple[str, str]] = []
        """What was done, in order: `key`, `onstart` or `label`, and its text."""
        self.stuck: set[int] = set()
        """Contracts that stay though they are to go."""
        self.forbidden: set[int] = set()
        """Contracts that the key may not end."""
        self._latest = max((FIRST, *self.contracts))
        if len(self.contracts) < len(contracts):
            raise ImpossibleWorld("two contracts have one number")
        for one in contracts:
            _refuse_impossible(one)

    def account_id(self) -> int:
        return self.account

    def rent(self, offer_id: int, order: RentRequest) -> int:
        if offer_id not in self.offers:
            raise OfferTaken(f"offer {offer_id} was taken by somebody else")
        self.offers.discard(offer_id)
        self._latest += 1
        row = instance(
            id=self._latest, label=order.label, image_uuid=order.image, disk_space=order.disk_gb
        )
        self.contracts[self._latest] = Instance.from_json(row)
        return self._latest

    def instance(self, instance_id: int) -> Instance | None:
        return self.contracts.get(instance_id)

    def instances(self, max_age: float = 0.0) -> list[Instance]:
        del max_age
        return [self.contracts[id_] for id_ in sorted(self.contracts)]

    def add_ssh_key(self, instance_id: int, public_key: str) -> None:
        self._do("key", instance_id, public_key)

    def set_onstart(self, instance_id: int, script: str) -> None:
        self._do("onstart", instance_id, script)

    def set_label(self, instance_id: int, label: str) -> None:
        self._do("label", instance_id, label)
        self._relabel(instance_id, label)

    def destroy(self, instance_id: int) -> None:
        if instance_id in self.forbidden:
            raise KeyRefused("the key may not do this")
        if instance_id not in self.stuck:
            self.contracts.pop(instance_id, None)

    def _do(self, what: str, instance_id: int, text: str) -> None:
        if not self._has(instance_id):
            raise ApiFailed(f"there is no instance {instance_id}")
        self.did.append((what, text))

    def _has(self, instance_id: int) -> bool:
        return instance_id in self.contracts

    def _relabel(self, instance_id: int, label: str) -> None:
        changed = dataclasses.replace(self.contracts[instance_id], label=label)
        self.contracts[instance_id] = changed


def _refuse_impossible(one: Instance) -> None:
    if one.ports and one.actual_status in {"", "created", "loading"}:
        raise ImpossibleWorld(f"contract {one.id} has ports before its container was started")
