"""What a change of a contract asks for, done to its container, disk and volume."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace

from emulator.contract_types import Contract, Effect, Phase
from emulator.host import Host
from emulator.keys import instance_key
from emulator.market import Machine
from emulator.volumes import Volumes

_log = logging.getLogger(__name__)


class Effects:
    """Carries out effects on one host process; the callables ask the market as it is then."""

    def __init__(
        self,
        *,
        host: Host,
        volumes: Volumes,
        account_key: str,
        machine: Callable[[int], Machine],
        secrets: Callable[[], dict[str, str]],
        taken_ports: Callable[[], set[int]],
    ) -> None:
        """`machine` gives one by its id, `secrets` the environment that goes into containers."""
        self._host = host
        self._volumes = volumes
        self._account_key = account_key
        self._machine = machine
        self._secrets = secrets
        self._taken_ports = taken_ports

    async def carry_out(self, contract: Contract, effects: Iterable[Effect]) -> Contract:
        """Do to a contract's container what its change asks for; failures are in its status."""
        for effect in effects:
            _log.info("contract %s: %s", contract.id, effect.value)
            try:
                contract = await self._do_one(contract, effect)
            except (OSError, ValueError) as problem:
                # As on a real host: its own trouble ends in the contract's status.
                _log.exception("contract %s: %s failed", contract.id, effect.value)
                text = f"Error response from daemon: {problem}\n"
                return replace(contract, phase=Phase.FAILED, due=None, status_msg=text)
        return contract

    async def adopt(self, contract: Contract) -> None:
        """Take up a container whose processes an earlier server has started."""
        try:
            await self._host.adopt(
                contract,
                api_key=instance_key(self._account_key, contract.id),
                secrets=self._secrets(),
            )
        except OSError:
            _log.exception("contract %s: its ports are somebody else's now", contract.id)

    async def _do_one(self, contract: Contract, effect: Effect) -> Contract:
        machine = self._machine(contract.machine_id)
        if effect is Effect.PREPARE:
            self._host.prepare(contract, machine)
        elif effect is Effect.KILL:
            await self._host.kill(contract.id)
        elif effect is Effect.WIPE:
            self._host.empty(contract, machine)
            return replace(contract, traffic_seen=0)
        elif effect is Effect.REMOVE:
            self._host.remove(contract.id)
            self._volumes.detach(contract)
        elif effect is Effect.TURN:
            await self.adopt(contract)
        elif effect is Effect.START and contract.container_up:
            return await self._start(contract, machine)
        return contract

    async def _start(self, contract: Contract, machine: Machine) -> Contract:
        self._volumes.mount(contract)
        started = await self._host.start(
            contract,
            machine,
            api_key=instance_key(self._account_key, contract.id),
            secrets=self._secrets(),
            taken=self._taken_ports() - set(contract.ports.values()) - {contract.ssh_port},
        )
        return replace(started, running_once=True)
