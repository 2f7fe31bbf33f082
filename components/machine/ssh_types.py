"""What may be asked of a host, how it answers and how it fails.

Apart from `ssh.py`: a program that opens no connection need not load the SSH library.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal, Protocol

from components.core.errors import HostError
from components.machine.addresses import with_port

COMMAND_TIMEOUT = 30.0
"""Seconds for a command, unless said otherwise, and for putting files."""

ASK_TIMEOUT = 12.0
"""Seconds for a look at a log or the status: whoever waits on them wants to say so meanwhile."""

LOG_PIECE = 1_048_576
"""Most bytes of a log that one call brings."""

FOLDER = "serving"
"""Where everything stands on the host, under the user's home."""

Unreachable = Literal["refused", "timed_out", "no_route", "closed", "garbled"]
"""How a connection failed: nobody listens; nothing answers; no way there; it broke off; what came
is no SSH."""

_UNREACHABLE: dict[Unreachable, str] = {
    "refused": "refuses the connection: nothing listens there, so SSH is not up or not mapped",
    "timed_out": "does not answer: the port is filtered or the machine is gone",
    "no_route": "cannot be reached: there is no route to it",
    "closed": "broke the connection off: SSH is starting, ending or overloaded",
    "garbled": "sends what is no SSH",
}


class HostUnreachable(HostError):
    """There is no SSH connection to the machine, or it was lost.

    `reason` says in which way.

    Cost: the machine is billed on.
    Remedy: run `pulumi up` again; replace the machine if it stays away.
    """

    def __init__(self, address: HostAddress, reason: Unreachable) -> None:
        super().__init__(f"host {address} {_UNREACHABLE[reason]}")
        self.reason: Unreachable = reason


class HostKeyChanged(HostError):
    """Another SSH host key answers than the one from first contact.

    So another machine answers. Nothing was sent to it.

    Cost: the machine is billed on.
    Remedy: replace the machine, or run `pulumi destroy`.
    """


class LoginRefused(HostError):
    """The machine does not accept the stack's SSH key.

    Cost: the machine is billed on.
    Remedy: replace the machine, or run `pulumi destroy`.
    """


class CommandFailed(HostError):
    """A command on the machine ended badly.

    It may also not have ended in time, or have printed too much.

    Cost: the machine is billed on.
    Remedy: run `pulumi up` again; replace the machine if the error stays.
    """


class Nonsense(CommandFailed):
    """A command on the machine printed what it never prints.

    The host is not what it was, and is not believed.

    Cost: the machine is billed on.
    Remedy: replace the machine, or run `pulumi destroy`.
    """


@dataclasses.dataclass(frozen=True)
class HostAddress:
    """Where a host's SSH port is mapped to."""

    ip: str
    port: int

    def __str__(self) -> str:
        return with_port(self.ip, self.port)


@dataclasses.dataclass(frozen=True)
class Result:
    """What a command ended with: `exit_status` is minus the signal's number for a killed one."""

    exit_status: int
    stdout: str
    stderr: str


class HostClient(Protocol):
    """What policy may ask of a host. Each method may raise any of this module's errors."""

    def run(
        self, command: str, *, stdin: bytes | str | None = None, timeout: float = COMMAND_TIMEOUT
    ) -> Result:
        """Run a shell command to its end, whatever its exit status is; `timeout` in seconds."""

    def put(self, files: Mapping[str, tuple[bytes, int]]) -> None:
        """Write files (path under the serving folder -> content, mode), each replaced at once."""

    def read_log(self, name: str, offset: int) -> tuple[str, int]:
        """Give what a log holds from byte `offset` on, and the offset to go on from."""

    def status(self) -> dict[str, str]:
        """Give what `supervise.sh status` says."""
