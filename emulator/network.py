"""How a container is reached: its published ports, its SSH server, and the bytes that pass."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.machine.ssh_library import asyncssh
from emulator.contract_types import Contract
from emulator.hostile import Hostile, HostilePort
from emulator.ports import BlackHole, Forwarder, Listener, Traffic, draw_port, internal_ports
from emulator.ssh_server import ContainerSsh

SSH_PORT = "22/tcp"
OVERHEARD = "overheard"
"""Folder beside that of the containers: what machines in the middle were sent, by contract."""
MOST_PORTS = 64
SAME_NUMBER = 70_000
"""From here on an internal port means: the same number inside and outside."""


@dataclass
class _Link:
    """What listens for one container."""

    traffic: Traffic = field(default_factory=Traffic)
    listeners: list[Listener | BlackHole] = field(default_factory=list)
    ssh: ContainerSsh | None = None


class Network:
    """The published ports and SSH servers of all containers."""

    def __init__(self, chance: random.Random) -> None:
        """Draw host ports with `chance`."""
        self._chance = chance
        self._links: dict[int, _Link] = {}

    def publish(self, contract: Contract, taken: set[int]) -> dict[str, int]:
        """Return a free host port for each port that `contract` publishes: {"8000/tcp": 23456}.

        A port that the contract already has stays what it is. None is in `taken` or drawn twice.
        """
        if "ports_missing" in contract.faults:
            return {}
        given: dict[str, int] = {}
        for name in published_names(contract):
            port = contract.ports.get(name) or self.draw({*taken, *given.values()})
            number, _, protocol = name.partition("/")
            given[f"{port}/{protocol}" if int(number) >= SAME_NUMBER else name] = port
        return given

    def draw(self, taken: set[int]) -> int:
        """Return a free host port that is not in `taken`."""
        return draw_port(self._chance, taken)

    async def open(
        self,
        contract: Contract,
        home: Path,
        host_key: Path,
        environment: Callable[[], Mapping[str, str]],
    ) -> None:
        """Listen on every host port of `contract`, and start its SSH server.

        Raises:
            OSError: a port is somebody else's; nothing stays open then.
        """
        await self.close(contract.id)
        link = _Link()
        self._links[contract.id] = link
        try:
            await self._open(link, contract, home, host_key, environment)
        except OSError:
            await self.close(contract.id)
            raise

    async def close(self, contract_id: int) -> None:
        """Stop listening for a container and break its connections."""
        link = self._links.pop(contract_id, None)
        if link is None:
            return
        for listener in link.listeners:
            await listener.close()
        if link.ssh is not None:
            await link.ssh.close()

    async def close_all(self) -> None:
        """Stop listening for every container."""
        for contract_id in list(self._links):
            await self.close(contract_id)

    def take_traffic(self, contract_id: int) -> tuple[int, int]:
        """Return the bytes (down, up) that passed a container's ports since the last call."""
        link = self._links.get(contract_id)
        return link.traffic.take() if link else (0, 0)

    async def _open(
        self,
        link: _Link,
        contract: Contract,
        home: Path,
        host_key: Path,
        environment: Callable[[], Mapping[str, str]],
    ) -> None:
        hostile = Hostile.of(contract.faults)
        if has_ssh(contract):
            mode = hostile.mode if hostile is not None and hostile.is_over("ssh") else ""
            overheard = None
            if "machine_in_the_middle" in contract.faults:
                host_key, overheard = _of_the_middle(home.parent)
            link.ssh = ContainerSsh(
                home,
                host_key,
                environment,
                contract.address,
                hostile=mode,
                overheard=overheard,
            )
            inside = await link.ssh.listen()
            await self._forward(link, contract.ssh_port, (contract.address, inside))
            if SSH_PORT in contract.ports:
                target = (contract.address, inside)
                await self._publish(link, contract, "22", contract.ports[SSH_PORT], target)
        for name, port in contract.ports.items():
            number, _, protocol = name.partition("/")
            if name == SSH_PORT or protocol != "tcp":
                continue
            if hostile is not None and hostile.is_over("http"):
                await self._answer_as_it_likes(link, hostile.mode, port, home)
                continue
            await self._publish(link, contract, number, port, (contract.address, int(number)))

    async def _answer_as_it_likes(self, link: _Link, mode: str, port: int, home: Path) -> None:
        def count(sent: int) -> None:
            link.traffic.up += sent

        listener = HostilePort(mode, home, count)
        await listener.listen(port)
        link.listeners.append(listener)

    async def _publish(
        self, link: _Link, contract: Contract, number: str, port: int, target: tuple[str, int]
    ) -> None:
        """Let `port` lead to `target`, unless a fault shuts it: the named one, or all but SSH's."""
        fault = contract.faults.get("port_unreachable")
        others = "" if number == "22" else number
        if fault is not None and str(fault.get("port", others)) == number:
            await self._swallow(link, port, fault)
        else:
            await self._forward(link, port, target)

    async def _forward(self, link: _Link, port: int, target: tuple[str, int]) -> None:
        forwarder = Forwarder(target, link.traffic)
        await forwarder.listen(port)
        link.listeners.append(forwarder)

    async def _swallow(self, link: _Link, port: int, fault: Mapping[str, Any]) -> None:
        if fault.get("how", "timeout") == "refused":
            return
        hole = BlackHole()
        link.listeners.append(hole)
        await hole.listen(port)


def _of_the_middle(place: Path) -> tuple[Path, Path]:
    """The host key of a machine in the middle, which is not the container's, and what it hears."""
    host_key = place / "key_in_the_middle"
    if not host_key.exists():
        asyncssh.generate_private_key("ssh-ed25519").write_private_key(host_key)
        host_key.chmod(0o600)
    overheard = place.parent.parent / OVERHEARD / place.name
    overheard.parent.mkdir(exist_ok=True)
    return host_key, overheard


def has_ssh(contract: Contract) -> bool:
    """Say whether Vast's own entry point, with its SSH server, runs in the container."""
    return contract.runtype != "args"


def published_names(contract: Contract) -> list[str]:
    """Return the internal ports that are mapped: SSH's, Jupyter's, then those that were asked for.

    With SSH or Jupyter by proxy, which is what `ssh` and `jupyter` mean, there are none at all.
    """
    names = internal_ports(contract.env)
    if not has_ssh(contract):
        return names
    if "direc" not in contract.runtype:
        return []
    own = [SSH_PORT, "8080/tcp"] if "jupyter" in contract.runtype else [SSH_PORT]
    return [*own, *(name for name in names if name not in own)]
