"""The clients of a server's machine and endpoint, and the times of their waits.

A caller that knows the market, Pulumi and the system's clock makes a `ServerAccess`; this package
does not.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from components.core.bounded import apart
from components.core.clock import Clock
from components.core.progress import Progress
from components.machine.addresses import with_port
from components.machine.remote_host import RemoteHost
from components.machine.ssh_types import ASK_TIMEOUT, HostClient
from components.vllm.client_types import (
    ANSWER_TIMEOUT,
    PATIENT_TIMEOUT,
    EndpointClient,
    Refused,
    Traffic,
    Unreachable,
)
from components.vllm.errors import ServerHostFailed
from components.vllm.readiness.course import Course
from components.vllm.serve_config import DRAIN_SECONDS
from components.vllm.server_state import ServerInputs, Target

T = TypeVar("T")

Look = Traffic | Refused | Unreachable
"""Answers to a request for a server's counters."""

COMMAND_SECONDS = 60.0
"""Seconds for a command that the supervisor completes at once."""

MACHINE_STAYS = "the machine stays and is billed until an `up` that works, or `pulumi destroy`"
"""The consequence of a failure that the machine did not cause, for messages."""


class Endpoint(EndpointClient, Protocol):
    """The client of an endpoint, whose counters can be asked for too."""

    def traffic(self, key: str) -> Look:
        """Ask what the server's counters say of requests."""


class Connect(Protocol):
    """Makes the client of a remote host; its connection ends with the block."""

    def __call__(self, host: RemoteHost) -> AbstractContextManager[HostClient]:
        """Make it; the connection is opened by the first call."""


class Ask(Protocol):
    """Makes the client of an endpoint."""

    def __call__(
        self, url: str, certificate: str, answer_timeout: float, identity: str
    ) -> Endpoint:
        """Trust `certificate` alone, if given, and show `identity`, if given; both PEM."""


class SharedContent(Protocol):
    """A small JSON object that is held alone."""

    values: dict[str, Any]

    def save(self) -> None:
        """Write the values.

        Raises:
            StackError: if that cannot be done.
        """


class RolloutFiles(Protocol):
    """What the processes of this computer share about one group of servers."""

    def turn(self) -> AbstractContextManager[bool]:
        """Hold the turn until the block ends, or this process does; False if another one has it.

        Raises:
            StackError: if there is no place for it.
        """

    def notes(self) -> AbstractContextManager[SharedContent]:
        """Hold the notes alone until the block ends; others wait.

        Raises:
            StackError: if there is no place for them.
        """


@dataclasses.dataclass(frozen=True)
class Limits:
    """Seconds for which things are waited for."""

    answer: float = ANSWER_TIMEOUT
    """For an answer that waits behind no request."""
    patient: float = PATIENT_TIMEOUT
    """For an answer of a server that has clients."""
    look_every: float = 3.0
    """Between two looks during a long call."""
    host_look: float = ASK_TIMEOUT
    """For a look at the host, with the login; also for the stop of a server that does not serve."""
    endpoint_look: float = PATIENT_TIMEOUT + 3.0
    """For all that a refresh asks the endpoint: one patient answer and some quick ones."""
    stop: float = DRAIN_SECONDS + 25.0
    """For a stop; the supervisor itself kills processes that have not ended by then."""


LIMITS = Limits()


@dataclasses.dataclass(frozen=True)
class ServerAccess:
    """The clients of servers, the time, and the reporter."""

    connect: Connect
    ask: Ask
    clock: Clock
    progress: Progress
    quarantine: Callable[[int, str], str]
    """Mark a contract's machine as unfit, so that the next `up` takes another machine. The reason
    is a word such as `download_slow`. Returns the consequence in words.
    """
    rollout: Callable[[str], RolloutFiles]
    """Gives the files of a group of servers that change one at a time."""
    limits: Limits = LIMITS
    note_start: Callable[[ServerInputs, Course], None] = lambda *_: None
    """Keep how a start went, for people; fails never."""

    def host(self, target: Target) -> AbstractContextManager[HostClient]:
        """Make the client of a target's machine; no error of it shows the key."""
        return self.connect(target.inputs.host.hiding(target.api_key))

    def endpoint(self, inputs: ServerInputs, certificate: str) -> Endpoint:
        """Make the client of a server that answers at once or not at all."""
        return self._endpoint(inputs, certificate, self.limits.answer)

    def patient_endpoint(self, inputs: ServerInputs, certificate: str) -> Endpoint:
        """Make the client of a server that has clients."""
        return self._endpoint(inputs, certificate, self.limits.patient)

    def meanwhile(self, doing: str, call: Callable[[], T], seconds: float = math.inf) -> T:
        """Make a long call, and report what it waits for.

        Raises:
            OutOfTime: if it has not ended after `seconds`.
        """
        return apart(
            call,
            seconds=seconds,
            clock=self.clock,
            waiting=lambda: self.progress.waiting(doing),
            look_every=self.limits.look_every,
        )

    def _endpoint(self, inputs: ServerInputs, certificate: str, seconds: float) -> Endpoint:
        return self.ask(url(inputs), certificate, seconds, inputs.client_certificate or "")


def url(inputs: ServerInputs) -> str:
    """Give the address of a server, without a path."""
    scheme = "https" if inputs.tls else "http"
    return f"{scheme}://{with_port(inputs.host.address.ip, inputs.host_port)}"


def supervise(what: str) -> str:
    """Give the command that makes the host's supervisor do something."""
    return f'sh "$HOME/serving/supervise.sh" {what}'


def run(host: HostClient, command: str, *, timeout: float) -> str:
    """Run a command that has to succeed, and give what it prints; `timeout` in seconds.

    Raises:
        ServerHostFailed: if it fails.
        HostError: as `HostClient.run`.
    """
    result = host.run(command, timeout=timeout)
    if result.exit_status != 0:
        last = (result.stderr or result.stdout).strip()[-300:]
        raise ServerHostFailed(
            f"the host cannot run `{command}` (status {result.exit_status}: {last}); "
            "another host may do"
        )
    return result.stdout
