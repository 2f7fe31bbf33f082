"""A host that starts no container: for questions about the market alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from emulator.contract_types import Contract
from emulator.market import Machine
from emulator.network import Network


class IdleHost:
    """Hosts on which nothing is started; their ports are numbers."""

    def __init__(self, network: Network) -> None:
        """Draw the ports out of `network`."""
        self._network = network

    def prepare(self, contract: Contract, machine: Machine) -> None:
        """See `Host`."""

    def authorize(self, contract: Contract) -> None:
        """See `Host`."""

    def free_port(self, taken: set[int]) -> int:
        """See `Host`."""
        return self._network.draw(taken)

    async def start(
        self,
        contract: Contract,
        machine: Machine,
        *,
        api_key: str,
        secrets: Mapping[str, str],
        taken: set[int],
    ) -> Contract:
        """See `Host`."""
        del machine, api_key, secrets
        return replace(contract, ports=self._network.publish(contract, taken))

    async def adopt(self, contract: Contract, *, api_key: str, secrets: Mapping[str, str]) -> None:
        """See `Host`."""

    async def kill(self, contract_id: int) -> None:
        """See `Host`."""

    def empty(self, contract: Contract, machine: Machine) -> None:
        """See `Host`."""

    def remove(self, contract_id: int) -> None:
        """See `Host`."""

    def mount(self, contract: Contract, volume_id: int, path: str) -> None:
        """See `Host`."""

    def remove_volume(self, volume_id: int) -> None:
        """See `Host`."""

    def main_alive(self, contract_id: int) -> bool:
        """See `Host`."""
        del contract_id
        return True

    def downloaded(self, contract_id: int) -> int:
        """See `Host`."""
        del contract_id
        return 0

    def take_traffic(self, contract_id: int) -> tuple[int, int]:
        """See `Host`."""
        del contract_id
        return 0, 0

    def log(self, contract_id: int) -> str:
        """See `Host`."""
        del contract_id
        return ""

    async def execute(self, contract_id: int, words: list[str]) -> str:
        """See `Host`."""
        del contract_id, words
        return ""

    async def shut_down(self) -> None:
        """See `Host`."""
