"""Contracts of an account, for what ends them."""

from __future__ import annotations

from components.vast.api.models import Instance
from components.vast.errors import KeyRefused


class Contracts:
    """They go when they are told to, but `stuck`; `forbidden` the key may not end."""

    def __init__(self, *contracts: Instance) -> None:
        self.alive = {one.id: one for one in contracts}
        self.stuck: set[int] = set()
        self.forbidden: set[int] = set()

    def instance(self, instance_id: int) -> Instance | None:
        return self.alive.get(instance_id)

    def instances(self, max_age: float = 0.0) -> list[Instance]:
        del max_age
        return list(self.alive.values())

    def destroy(self, instance_id: int) -> None:
        if instance_id in self.forbidden:
            raise KeyRefused("the key may not do this")
        if instance_id not in self.stuck:
            self.alive.pop(instance_id, None)
