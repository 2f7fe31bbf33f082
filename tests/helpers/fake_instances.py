"""An account's contracts as `InstancesApi` gives them: the one fake of that protocol."""

from __future__ import annotations

import dataclasses

from components.vast.api.models import Instance
from components.vast.api.payloads import RentRequest
from components.vast.errors import ApiFailed, OfferTaken
from tests.helpers.offers import instance


class FakeInstances:
    """Contracts that run at once and go when they are told to; what is done to them is noted."""

    def __init__(self, *contracts: Instance, offers: tuple[int, ...] = ()) -> None:
        self.contracts = {one.id: one for one in contracts}
        self.offers = set(offers)
        """Ids that can be rented, each once."""
        self.did: list[tuple[str, str]] = []
        """What was done, in order: `key`, `onstart` or `label`, and its text."""

    def rent(self, offer_id: int, order: RentRequest) -> int:
        if offer_id not in self.offers:
            raise OfferTaken(f"offer {offer_id} was taken by somebody else")
        self.offers.discard(offer_id)
        id_ = max(self.contracts, default=9000) + 1
        row = instance(id=id_, label=order.label, image_uuid=order.image, disk_space=order.disk_gb)
        self.contracts[id_] = Instance.from_json(row)
        return id_

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
        changed = dataclasses.replace(self.contracts[instance_id], label=label)
        self.contracts[instance_id] = changed

    def destroy(self, instance_id: int) -> None:
        self.contracts.pop(instance_id, None)

    def _do(self, what: str, instance_id: int, text: str) -> None:
        if instance_id not in self.contracts:
            raise ApiFailed(f"there is no instance {instance_id}")
        self.did.append((what, text))
