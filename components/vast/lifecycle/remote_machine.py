"""The ways to a machine while it boots: its ports, its log, and SSH with the stack's key."""

from __future__ import annotations

from typing import Self

from components.core.errors import StackError
from components.machine import first_contact
from components.machine.errors import HostUnfit
from components.machine.inspection import Inspection, inspect
from components.machine.ssh_types import (
    CommandFailed,
    HostAddress,
    HostUnreachable,
    LoginRefused,
    Nonsense,
)
from components.machine.tcp_probe import ProbeResult, probe
from components.vast.api.models import Instance
from components.vast.errors import BootFailed
from components.vast.instance_state import SSH_PORT, InstanceInputs
from components.vast.lifecycle.context import Context, MachineClient, progress_of
from components.vast.lifecycle.order import expected_of
from components.vast.rental.adoption import SECONDS_TO_END


class RemoteMachine:
    """`boot.Machine` over SSH; a context manager that closes its connection."""

    def __init__(
        self, inputs: InstanceInputs, label: str, context: Context, download_share: float
    ) -> None:
        """Reach what is rented under `label`. For `download_share` see `order.expected_of`."""
        self._inputs = inputs
        self._label = label
        self._context = context
        self._download_share = download_share
        self._host: MachineClient | None = None
        self._address: HostAddress | None = None
        self._late = 0
        """Checks of this machine that did not end in time."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()

    def reach(self, instance: Instance, port: str) -> ProbeResult:
        """Try a mapped port from outside."""
        return probe(instance.public_ip, instance.ports[port])

    def log_in(self, instance: Instance) -> str:
        """Log in and give the host key, an OpenSSH line.

        Raises:
            BootFailed: while that does not work yet.
        """
        try:
            return self.client(instance).connect()
        except (HostUnreachable, LoginRefused) as error:
            raise BootFailed(str(error)) from None

    def named_keys(self, instance: Instance) -> frozenset[str]:
        """Give the host keys that the market's log proves, as fingerprints.

        Raises:
            BootFailed: while it names none.
        """
        try:
            log = self._context.container_log().lines(instance.id, first_contact.MARK)
        except StackError as error:
            raise BootFailed(str(error)) from None
        key = first_contact.proof_key(self._inputs.private_key, self._label)
        named = first_contact.named(log, key)
        if not named:
            raise BootFailed("the market's log names none")
        return named

    def inspect(self, instance: Instance, *, adopted: bool) -> Inspection:
        """Check the machine.

        Raises:
            HostUnfit: it is not what was rented, or is late with its answers twice.
            BootFailed: the connection was lost, or it was late once.
        """
        expected = expected_of(instance, self._inputs, self._download_share, adopted=adopted)
        try:
            return inspect(self.client(instance), expected, progress_of(self._context).say)
        except Nonsense as error:
            raise HostUnfit(str(error)) from None
        except CommandFailed as error:
            # Once may be a moment's; a machine that is late twice costs the time of its check.
            self._late += 1
            if self._late > 1:
                raise HostUnfit(str(error)) from None
            raise BootFailed(str(error)) from None
        except (HostUnreachable, LoginRefused) as error:
            raise BootFailed(str(error)) from None

    def run(self, instance: Instance, script: str) -> str:
        """Run a script in `sh` and give what it printed.

        Raises:
            BootFailed: if it cannot be run, or fails.
        """
        try:
            done = self.client(instance).run("sh -s", stdin=script, timeout=SECONDS_TO_END + 60.0)
        except (HostUnreachable, LoginRefused, CommandFailed) as error:
            raise BootFailed(str(error)) from None
        if done.exit_status != 0:
            raise BootFailed(
                f"taking over ended with {done.exit_status}: {done.stderr.strip()[-300:]}"
            )
        return done.stdout.strip()

    def client(self, instance: Instance) -> MachineClient:
        """The client of this machine: one connection, as long as the machine stays where it is."""
        address = HostAddress(instance.public_ip, instance.ports[SSH_PORT])
        if self._host is None or address != self._address:
            self._leave()
            self._late = 0
            self._host = self._context.host(address, self._inputs.private_key)
            self._address = address
        return self._host

    def _leave(self) -> None:
        if self._host is not None:
            self._host.close()
        self._host = None
