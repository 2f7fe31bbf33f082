"""The emulated hosts: carries out on this machine what a contract's change of phase asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from emulator.containers import Containers
from emulator.contract_types import Contract
from emulator.market import Machine
from emulator.network import Network


class Host(Protocol):
    """What the marketplace needs from the hosts."""

    def prepare(self, contract: Contract, machine: Machine) -> None:
        """Make the container's directory."""

    def authorize(self, contract: Contract) -> None:
        """Let in whoever holds one of the contract's SSH keys."""

    def free_port(self, taken: set[int]) -> int:
        """Return a host port that is free."""

    async def start(
        self,
        contract: Contract,
        machine: Machine,
        *,
        api_key: str,
        secrets: Mapping[str, str],
        taken: set[int],
    ) -> Contract:
        """Publish ports, run the container, and return the contract with its ports."""

    async def adopt(self, contract: Contract, *, api_key: str, secrets: Mapping[str, str]) -> None:
        """Listen again for a container whose processes are still there."""

    async def kill(self, contract_id: int) -> None:
        """End the container's processes and its ports."""

    def empty(self, contract: Contract, machine: Machine) -> None:
        """Throw the container's disk away and prepare it anew."""

    def remove(self, contract_id: int) -> None:
        """Delete the container's directory."""

    def mount(self, contract: Contract, volume_id: int, path: str) -> None:
        """Make a volume visible in the container at `path`."""

    def remove_volume(self, volume_id: int) -> None:
        """Delete a volume's directory."""

    def main_alive(self, contract_id: int) -> bool:
        """Say whether the container's main process runs."""

    def downloaded(self, contract_id: int) -> int:
        """Return the bytes that the container says it downloaded."""

    def take_traffic(self, contract_id: int) -> tuple[int, int]:
        """Return the bytes (down, up) through its ports since the last call."""

    def log(self, contract_id: int) -> str:
        """Return what the container printed."""

    async def execute(self, contract_id: int, words: list[str]) -> str:
        """Run `ls`, `rm` or `du` in the container's HOME and return what it printed."""

    async def shut_down(self) -> None:
        """End every container's processes and ports; their directories stay."""


class ThisMachine:
    """Hosts whose containers are processes here."""

    def __init__(self, containers: Containers, network: Network) -> None:
        """Combine processes and ports."""
        self._containers = containers
        self._network = network

    def prepare(self, contract: Contract, machine: Machine) -> None:
        """See `Host`."""
        self._containers.prepare(contract, machine)

    def authorize(self, contract: Contract) -> None:
        """See `Host`."""
        self._containers.authorize(contract)

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
        """See `Host`.

        Raises:
            OSError: no port could be had, or the process could not be started.
        """
        await self._containers.kill(contract.id)
        try:
            ready = replace(contract, ports=self._network.publish(contract, taken))
            await self.adopt(ready, api_key=api_key, secrets=secrets)
        except OSError:
            # A port that the contract had before now is somebody else's: draw others.
            fresh = replace(contract, ports={}, ssh_port=self._network.draw(taken))
            ready = replace(fresh, ports=self._network.publish(fresh, taken | {fresh.ssh_port}))
            await self.adopt(ready, api_key=api_key, secrets=secrets)
        environment = self._containers.environment(ready, api_key, secrets)
        await self._containers.start(ready, machine, environment)
        return ready

    async def adopt(self, contract: Contract, *, api_key: str, secrets: Mapping[str, str]) -> None:
        """See `Host`.

        Raises:
            OSError: one of the contract's ports is somebody else's now.
        """
        await self._network.open(
            contract,
            self._containers.home(contract.id),
            self._containers.host_key(contract.id),
            lambda: self._containers.environment(contract, api_key, secrets),
        )

    async def kill(self, contract_id: int) -> None:
        """See `Host`."""
        await self._network.close(contract_id)
        await self._containers.kill(contract_id)

    def empty(self, contract: Contract, machine: Machine) -> None:
        """See `Host`."""
        self._containers.empty(contract, machine)

    def remove(self, contract_id: int) -> None:
        """See `Host`."""
        self._containers.remove(contract_id)

    def mount(self, contract: Contract, volume_id: int, path: str) -> None:
        """See `Host`."""
        self._containers.mount(contract, volume_id, path)

    def remove_volume(self, volume_id: int) -> None:
        """See `Host`."""
        self._containers.remove_volume(volume_id)

    def main_alive(self, contract_id: int) -> bool:
        """See `Host`."""
        return self._containers.main_alive(contract_id)

    def downloaded(self, contract_id: int) -> int:
        """See `Host`."""
        return self._containers.downloaded(contract_id)

    def take_traffic(self, contract_id: int) -> tuple[int, int]:
        """See `Host`."""
        return self._network.take_traffic(contract_id)

    def log(self, contract_id: int) -> str:
        """See `Host`."""
        return self._containers.log(contract_id)

    async def execute(self, contract_id: int, words: list[str]) -> str:
        """See `Host`."""
        home = self._containers.home(contract_id)
        child = await asyncio.create_subprocess_exec(
            *(_inside(word, home) for word in words),
            cwd=home,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        printed, _ = await child.communicate()
        return printed.decode(errors="replace")

    async def shut_down(self) -> None:
        """See `Host`."""
        await self._network.close_all()
        await self._containers.kill()


def _inside(word: str, home: Path) -> str:
    """A path as the container sees it, /root/…, as a path of this machine."""
    if word == "/root" or word.startswith("/root/"):
        return f"{home}{word.removeprefix('/root')}"
    return word
