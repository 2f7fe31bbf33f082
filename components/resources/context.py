"""The world that the resources act in: time, what a person reads, and the clients.

No provider makes a clock or opens a connection to the market by itself. It asks `current()` at each
call, and a test sets the answer with `using`. Providers have no attributes (the state holds their
dotted path alone), so the place is this module and not an argument.

A client's module is loaded when that client is asked for. With its libraries it costs a fifth of a
second, and one `pulumi` command starts four processes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from components.core import interruption, record
from components.core.clock import Clock, SystemClock
from components.core.progress import Progress, to_terminal
from components.machine.remote_host import RemoteHost
from components.machine.ssh_types import HostAddress
from components.vllm.client_types import ANSWER_TIMEOUT

if TYPE_CHECKING:
    from components.machine.own_computer import OwnComputer
    from components.machine.ssh import SshClient
    from components.router.asking import HttpsRouter
    from components.vast.api.client import VastApi
    from components.vast.api.container_log import ContainerLog
    from components.vast.boot_notes import BootNotes
    from components.vllm.client import Endpoint
    from components.vllm.hub_client import HubClient


@dataclasses.dataclass(frozen=True)
class Context:
    """What an operation of a resource is given."""

    clock: Clock = dataclasses.field(default_factory=SystemClock)
    say: Callable[[str], None] = to_terminal
    """Takes a line for the person who waits."""
    environment: Mapping[str, str] = dataclasses.field(default_factory=lambda: os.environ)
    random_text: Callable[[], str] = lambda: secrets.token_hex(12)
    """Gives a text that nobody can guess."""
    is_asked_to_end: Callable[[], bool] = interruption.is_asked
    """Whether the person who waits has pressed Ctrl-C."""
    voices: int = 1
    """How many operations like this one speak at once."""

    def for_replica(self, number: int, replicas: int) -> Context:
        """The same for one of several machines: its lines name it, and are the rarer for them."""
        return dataclasses.replace(
            self, say=lambda line: self.say(f"replica {number}: {line}"), voices=replicas
        )

    def market(self, *, patient: bool = True) -> VastApi:
        """The client of the market, with the credential that the environment has just now.

        A preview or a refresh is not `patient`: without a network it fails at once.

        Raises:
            MarketUrlRefused: if the key would be sent in clear.
            NoCredential: if there is no key that can be sent.
            NoSharedFolder: if there is no place for what processes share.
        """
        from components.vast.api.client import connect  # noqa: PLC0415

        return connect(self.environment, self.clock, self.say, patient=patient)

    def container_log(self) -> ContainerLog:
        """The client of what containers printed, as the market hands it out.

        Raises:
            MarketUrlRefused, NoCredential, NoSharedFolder: as `market`.
        """
        from components.vast.api.container_log import ContainerLog  # noqa: PLC0415

        market = self.market()
        return ContainerLog(market.log_link, market.url, self.clock)

    def boot_notes(self) -> BootNotes:
        """The notes on how machines and servers of this account started.

        Raises:
            MarketUrlRefused, NoCredential, NoSharedFolder: as `market`.
        """
        from components.vast.boot_notes import BOOTS, BootNotes  # noqa: PLC0415

        return BootNotes(self.market().shared(BOOTS))

    def host(
        self,
        address: HostAddress,
        private_key: str,
        *,
        known_host_key: str | None = None,
        secrets: Sequence[str] = (),
    ) -> SshClient:
        """The client of a rented machine, over SSH; see `SshClient`."""
        from components.machine.ssh import SshClient  # noqa: PLC0415

        if not record.is_asked(self.environment):
            return SshClient(address, private_key, known_host_key=known_host_key, secrets=secrets)
        from components.machine.recorded_ssh import RecordedSshClient  # noqa: PLC0415
        from components.vast.api.recording import folder_of  # noqa: PLC0415

        kept = record.Record(folder_of(self.environment), self.clock, self.say)
        return RecordedSshClient(
            address, private_key, known_host_key=known_host_key, secrets=secrets, record=kept
        )

    def remote(self, host: RemoteHost) -> SshClient:
        """The client of a machine that was met before: it is held to its recorded host key."""
        return self.host(
            host.address,
            host.private_key,
            known_host_key=host.host_key,
            secrets=host.secrets,
        )

    def endpoint(
        self,
        url: str,
        certificate: str,
        answer_timeout: float = ANSWER_TIMEOUT,
        identity: str = "",
    ) -> Endpoint:
        """The client of what is served at `url`, trusting `certificate` (PEM) alone if given.

        It shows `identity` (PEM of certificate and key) if given.
        """
        from components.vllm.client import Endpoint  # noqa: PLC0415

        return Endpoint(
            url,
            certificate or None,
            identity=identity,
            answer_timeout=answer_timeout,
            clock=self.clock,
        )

    def hub(self) -> HubClient:
        """The client of the Hub, where the environment says that it is.

        Raises:
            HubAddressRefused: if an answer from that address could not be trusted.
        """
        from components.vllm.hub_client import HubClient, address_in  # noqa: PLC0415

        return HubClient(address_in(self.environment), self.clock)

    def own_computer(self, host: str) -> OwnComputer:
        """The client of the user's own computer `user@host`, or of this one if `host` is empty.

        Raises:
            ValueError: if `host` is no `user@host`.
        """
        from components.machine.own_computer import OwnComputer  # noqa: PLC0415

        return OwnComputer(host, self.environment)

    def router(self, url: str, authorities: str, identity: str) -> HttpsRouter:
        """The client of the router at `url`, trusting `authorities` (PEM) alone.

        It shows `identity` (PEM of certificate and key) if that is not empty.
        """
        from components.router.asking import HttpsRouter  # noqa: PLC0415

        return HttpsRouter(url, authorities, identity, self.clock)

    @property
    def haproxy(self) -> str:
        """HAProxy on this computer: the environment's, the `PATH`'s, or what set-up unpacked."""
        if named := self.environment.get("VASTVLLM_HAPROXY"):
            return named
        found = shutil.which("haproxy", path=self.environment.get("PATH"))
        unpacked = Path(__file__).resolve().parents[2] / ".tools" / "bin" / "haproxy"
        return found or (str(unpacked) if unpacked.exists() else "haproxy")

    def progress(self, subject: str) -> Progress:
        """Lines about one operation, each beginning with `subject`."""
        return Progress(subject, self.clock, self.say, self.is_asked_to_end, voices=self.voices)


_standing = Context()


def current() -> Context:
    """The context that holds now."""
    return _standing


@contextlib.contextmanager
def using(context: Context) -> Iterator[Context]:
    """Let another context hold until the block ends, for every thread of this process."""
    global _standing  # noqa: PLW0603  (providers are reached by their dotted path alone)
    before, _standing = _standing, context
    try:
        yield context
    finally:
        _standing = before
