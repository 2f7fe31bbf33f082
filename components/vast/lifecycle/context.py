"""What an operation on a rented machine is given: time, words and the clients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from components.core.clock import Clock
from components.core.progress import Progress
from components.machine.ssh_types import COMMAND_TIMEOUT, HostAddress, Result

if TYPE_CHECKING:
    from components.vast.api.client import VastApi
    from components.vast.api.container_log import ContainerLog


class MachineClient(Protocol):
    """A machine over SSH. Methods raise the errors of `ssh_types`; leaving the block closes it."""

    def __enter__(self) -> Self:
        """Return itself; nothing is opened before the first call."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""

    def connect(self) -> str:
        """Log in, and give the host's public key, an OpenSSH line."""

    def run(
        self, command: str, *, stdin: bytes | str | None = None, timeout: float = COMMAND_TIMEOUT
    ) -> Result:
        """Run a shell command to its end, whatever its exit status is; `timeout` in seconds."""

    def put(self, files: Mapping[str, tuple[bytes, int]]) -> None:
        """Write files (path under the serving folder -> content, mode), each replaced at once."""

    def close(self) -> None:
        """End the connection, if there is one."""


class Context(Protocol):
    """As `resources.context.Context` has it. Clients are made when they are asked for."""

    @property
    def clock(self) -> Clock:
        """Whose seconds all waits and moments are in."""

    @property
    def say(self) -> Callable[[str], None]:
        """Takes a line for the person who waits."""

    def market(self, *, patient: bool = True) -> VastApi:
        """The client of the market; one that is not `patient` gives up in seconds."""

    def container_log(self) -> ContainerLog:
        """The client of what containers printed, as the market hands it out."""

    def host(
        self, address: HostAddress, private_key: str, *, known_host_key: str | None = None
    ) -> MachineClient:
        """The client of a machine, over SSH."""

    def progress(self, subject: str) -> Progress:
        """Lines about one operation, each beginning with `subject`."""


def progress_of(context: Context) -> Progress:
    """Lines about a rented machine."""
    return context.progress("instance")
