"""Contracts of an account, for what ends them."""

from __future__ import annotations

from components.vast.api.models import Instance
from components.vast.errors import KeyRefused
from tests.helpers.fake_instances import FakeInstances


class Contracts(FakeInstances):
    """They go when they are told to, but `stuck`; `forbidden` the key may not end."""

    def __init__(self, *contracts: Instance) -> None:
        super().__init__(*contracts)
        self.alive = self.contracts
        self.stuck: set[int] = set()
        self.forbidden: set[int] = set()

    def destroy(self, instance_id: int) -> None:
        if instance_id in self.forbidden:
            raise KeyRefused("the key may not do this")
        if instance_id not in self.stuck:
            super().destroy(instance_id)
