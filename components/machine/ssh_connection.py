"""Opens one SSH connection to a host, and holds the host to its recorded key.

The host is a stranger: whatever it sends before the login is done becomes one of the errors below.
"""

from __future__ import annotations

import asyncio
import dataclasses
import errno
from collections.abc import Awaitable, Callable

from components.core.errors import HostError
from components.machine.ssh_library import asyncssh
from components.machine.ssh_types import (
    HostAddress,
    HostKeyChanged,
    HostUnreachable,
    LoginRefused,
    Unreachable,
)

CONNECT_TIMEOUT = 10.0
"""Seconds for the TCP connection, and as many again for the login."""

KEEPALIVE = 5
"""Seconds between two signs of life on a connection."""

Dial = Callable[..., Awaitable[asyncssh.SSHClientConnection]]
"""Makes a connection, as `asyncssh.connect` does."""


@dataclasses.dataclass(frozen=True)
class Login:
    """Where to log in, and as whom."""

    address: HostAddress
    username: str
    private_key: str = dataclasses.field(repr=False)
    """OpenSSH's private format."""
    connect_timeout: float
    """Seconds for the connection, and as many for the login."""


async def open_connection(
    login: Login, host_key: str | None, dial: Dial
) -> tuple[asyncssh.SSHClientConnection, str | None]:
    """Log in, and give the connection with the key line that the host has shown.

    `host_key` is the recorded line; None takes whatever key the host shows.

    Raises:
        HostUnreachable: no connection.
        HostKeyChanged: not the recorded key.
        LoginRefused: our key is not taken.
    """
    keeper = _KeyKeeper(host_key)
    try:
        async with asyncio.timeout(2 * login.connect_timeout):
            connection = await dial(
                login.address.ip,
                login.address.port,
                username=login.username,
                client_keys=[asyncssh.import_private_key(login.private_key)],
                client_factory=lambda: keeper,
                known_hosts=([], [], []),
                server_host_key_algs=keeper.algorithms(),
                # A packet of a few bytes would be unpacked to any number of them.
                compression_algs="none",
                preferred_auth="publickey",
                agent_path=None,
                config=None,
                gss_host=None,
                connect_timeout=login.connect_timeout,
                login_timeout=login.connect_timeout,
                keepalive_interval=KEEPALIVE,
            )
    except Exception as error:  # noqa: BLE001  (a stranger's bytes may bring libraries to any)
        raise _why_not(error, login, host_key, keeper.shown) from None
    return connection, keeper.shown


class _KeyKeeper(asyncssh.SSHClient):
    """Holds a host to its recorded key, or records the one that it shows."""

    def __init__(self, recorded: str | None) -> None:
        self._recorded = recorded
        self.shown: str | None = None

    def algorithms(self) -> str:
        """Prefer the recorded kind of key, since hosts have several; `^` puts it at the front.

        The other kinds stay allowed, so that a host without the recorded kind shows its key and is
        refused. A failed negotiation would look like a broken connection.
        """
        if self._recorded is None:
            return "default"
        key = asyncssh.import_public_key(self._recorded)
        return "^" + ",".join(name.decode("ascii") for name in key.sig_algorithms)

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        """Called by asyncssh with the key that the host has proven to hold."""
        del host, addr, port
        self.shown = without_comment(key.export_public_key().decode())
        return self._recorded in (None, self.shown)


def _why_not(error: Exception, login: Login, recorded: str | None, shown: str | None) -> HostError:
    if isinstance(error, asyncssh.PermissionDenied):
        return LoginRefused(
            f"host {login.address} does not take the stack's SSH key for user "
            f"{login.username}: its start script has not run yet, or failed"
        )
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return HostKeyChanged(
            f"host {login.address} shows the key {_fingerprint(shown)}, and "
            f"{_fingerprint(recorded)} was recorded at first contact: another machine "
            "answers there; nothing was sent to it, replace the instance"
        )
    return HostUnreachable(login.address, _reason(error))


def _reason(error: Exception) -> Unreachable:
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    # asyncssh reports a login that took too long as a lost connection.
    if isinstance(error, TimeoutError) or "timeout" in str(error).lower():
        return "timed_out"
    if isinstance(error, OSError) and error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return "no_route"
    return "closed" if isinstance(error, OSError | asyncssh.Error) else "garbled"


def without_comment(line: str | None) -> str | None:
    """Give a public key line without what follows the key."""
    return None if line is None else " ".join(line.split()[:2])


def _fingerprint(line: str | None) -> str:
    if line is None:
        return "none"
    return asyncssh.import_public_key(line).get_fingerprint()
