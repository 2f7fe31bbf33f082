"""What deciding code needs of the market's contracts."""

from __future__ import annotations

from typing import Protocol

from components.vast.api.models import Instance
from components.vast.api.payloads import RentRequest


class InstancesApi(Protocol):
    """The calls of `VastApi` about contracts. Each raises the errors of its original."""

    def rent(self, offer_id: int, order: RentRequest) -> int:
        """See `VastApi.rent`."""

    def instance(self, instance_id: int) -> Instance | None:
        """See `VastApi.instance`."""

    def instances(self, max_age: float = 0.0) -> list[Instance]:
        """See `VastApi.instances`."""

    def add_ssh_key(self, instance_id: int, public_key: str) -> None:
        """See `VastApi.add_ssh_key`."""

    def set_onstart(self, instance_id: int, script: str) -> None:
        """See `VastApi.set_onstart`."""

    def set_label(self, instance_id: int, label: str) -> None:
        """See `VastApi.set_label`."""

    def destroy(self, instance_id: int) -> None:
        """See `VastApi.destroy`."""
