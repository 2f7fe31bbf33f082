"""The only door to a host: commands, files and logs over SSH, from plain threaded code.

One connection is kept and used again, since the policy asks every few seconds; a lost one is
opened anew at the next call. Tries and waits are the policy's affair: the door connects once and
says how it failed. No text that leaves it holds a secret that it was told of.
"""

from __future__ import annotations

import asyncio
import codecs
import dataclasses
import errno
import io
import re
import shlex
import tarfile
import threading
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import PurePosixPath
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypeVar

import asyncssh

from components.errors import HostError
from components.redaction import redacted

CONNECT_TIMEOUT = 10.0
"""Seconds for the TCP connection, and as many again for the login."""

COMMAND_TIMEOUT = 30.0
"""Seconds for a command, unless said otherwise, and for putting files."""

ASK_TIMEOUT = 12.0
"""Seconds for a look at a log or the status: whoever waits on them wants to say so meanwhile."""

LOG_PIECE = 1_048_576
"""Most bytes of a log that one call brings."""

FOLDER = "serving"
"""Where everything stands on the host, under the user's home."""

_LEFT_BEHIND_MINUTES = 10
"""Age from which on half a put is no longer one that runs, and has only secrets left in it: its
machine went down, or its shell was killed."""

_KEEPALIVE = 5
_SETTLE = 0.01
"""Seconds in which a connection that ended since the last call is noticed as such."""

T = TypeVar("T")

Unreachable = Literal["refused", "timed_out", "no_route", "closed"]
"""How a connection failed: nobody listens; nothing answers; no way there; it broke off."""

_UNREACHABLE: dict[Unreachable, str] = {
    "refused": "refuses the connection: nothing listens there, so SSH is not up or not mapped",
    "timed_out": "does not answer: the port is filtered or the machine is gone",
    "no_route": "cannot be reached: there is no route to it",
    "closed": "broke the connection off: SSH is starting, ending or overloaded",
}


class HostUnreachable(HostError):
    """No SSH connection, or a lost one; `reason` tells which way."""

    def __init__(self, address: HostAddress, reason: Unreachable) -> None:
        super().__init__(f"host {address} {_UNREACHABLE[reason]}")
        self.reason: Unreachable = reason


class HostKeyChanged(HostError):
    """Another host key than the one recorded at first contact: another machine answers."""


class LoginRefused(HostError):
    """The host does not take the stack's SSH key."""


class CommandFailed(HostError):
    """A command of the door's own ended badly, or any command did not end in time."""


@dataclasses.dataclass(frozen=True)
class HostAddress:
    """Where a host's SSH port is mapped to."""

    ip: str
    port: int

    def __str__(self) -> str:
        return f"{self.ip}:{self.port}"


@dataclasses.dataclass(frozen=True)
class Result:
    """What a command ended with: `exit_status` is minus the signal's number for a killed one."""

    exit_status: int
    stdout: str
    stderr: str


class HostDoor(Protocol):
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


class Host:
    """`HostDoor` over SSH. A context manager; safe to use from several threads, one at a time."""

    def __init__(
        self,
        address: HostAddress,
        private_key: str,
        *,
        known_host_key: str | None = None,
        secrets: Sequence[str] = (),
        username: str = "root",
        connect_timeout: float = CONNECT_TIMEOUT,
    ) -> None:
        """Prepare the door; nothing is opened yet.

        Args:
            address: of the mapped SSH port.
            private_key: OpenSSH's private format.
            known_host_key: an OpenSSH public key line, as `host_key` gave it at first contact;
                None takes whatever key the host shows, and holds it to that from then on.
            secrets: what no error may show.
            username: root on Vast.
            connect_timeout: seconds for the connection, and as many for the login.
        """
        self._address = address
        self._private_key = private_key
        self._host_key = _without_comment(known_host_key)
        self._secrets = (*secrets, private_key)
        self._username = username
        self._connect_timeout = connect_timeout
        self._connection: asyncssh.SSHClientConnection | None = None
        self._runner = asyncio.Runner()
        self._one_at_a_time = threading.Lock()

    def __repr__(self) -> str:
        return f"Host({self._address})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def host_key(self) -> str | None:
        """The host's public key line: the recorded one, or the one shown at first contact."""
        return self._host_key

    def connect(self) -> str:
        """Log in if not logged in, and give the host's public key line (`host_key`).

        Raises:
            HostUnreachable: no connection.
            HostKeyChanged: not the recorded key.
            LoginRefused: our key is not taken.
        """
        self._wait_for(self._connected())
        return str(self._host_key)

    def run(
        self, command: str, *, stdin: bytes | str | None = None, timeout: float = COMMAND_TIMEOUT
    ) -> Result:
        """Run a shell command in the user's home, to its end.

        Raises:
            CommandFailed: it did not end within `timeout` seconds.
            HostUnreachable: no connection, or lost on the way: it may have run.
            HostKeyChanged: not the recorded key.
            LoginRefused: our key is not taken.
        """
        sent = stdin.encode() if isinstance(stdin, str) else stdin
        status, out, err = self._wait_for(self._execute(command, sent, timeout))
        return Result(status, out.decode(errors="replace"), err.decode(errors="replace"))

    def put(self, files: Mapping[str, tuple[bytes, int]]) -> None:
        """Write files under the serving folder; see `HostDoor`. Order of renames: as given.

        Raises:
            CommandFailed: no space, for one; what stood there before still stands.
            HostUnreachable: as `run`.
            HostKeyChanged: as `run`.
            LoginRefused: as `run`.
        """
        for name in files:
            _check_relative(name)
        self._checked(_put_command(list(files)), _tar(files), COMMAND_TIMEOUT)

    def read_log(self, name: str, offset: int) -> tuple[str, int]:
        """Read a log on from `offset` bytes; from 0 if it was emptied since. At most `LOG_PIECE`.

        A log that does not exist yet is empty.

        Raises:
            CommandFailed: it cannot be read.
            HostUnreachable: as `run`.
            HostKeyChanged: as `run`.
            LoginRefused: as `run`.
        """
        _check_relative(name)
        printed = self._checked(_log_command(name, offset), None, ASK_TIMEOUT)
        start, _, piece = printed.partition(b"\n")
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text = decoder.decode(piece)
        # A character that is cut in two stays for the next call.
        kept_back = len(decoder.getstate()[0])
        return text, int(start) + len(piece) - kept_back

    def status(self) -> dict[str, str]:
        """Ask the supervisor for its key=value lines.

        Raises:
            CommandFailed: it is not there, or fails.
            HostUnreachable: as `run`.
            HostKeyChanged: as `run`.
            LoginRefused: as `run`.
        """
        printed = self._checked(f'sh "$HOME/{FOLDER}/supervise.sh" status', None, ASK_TIMEOUT)
        pairs = [line.partition("=") for line in printed.decode(errors="replace").splitlines()]
        return {key: value for key, equals, value in pairs if equals}

    def close(self) -> None:
        """Close the connection; the next call would open another one."""
        with self._one_at_a_time:
            self._runner.run(self._disconnect())
            self._runner.close()
            self._runner = asyncio.Runner()

    def _checked(self, command: str, stdin: bytes | None, timeout: float) -> bytes:
        status, out, err = self._wait_for(self._execute(command, stdin, timeout))
        if status != 0:
            last = (err or out).decode(errors="replace").strip()[-300:]
            raise CommandFailed(
                self._clean(
                    f"{_short(command)} on host {self._address} ended with {status}: {last}"
                )
            )
        return out

    def _wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        with self._one_at_a_time:
            return self._runner.run(work)

    async def _execute(
        self,
        command: str,
        stdin: bytes | None,
        timeout: float,  # noqa: ASYNC109  (the caller's)
    ) -> tuple[int, bytes, bytes]:
        connection = await self._connected()
        try:
            async with asyncio.timeout(timeout):
                # An empty input would leave the command's open: it must see its end.
                given = {"input": stdin} if stdin else {"stdin": asyncssh.DEVNULL}
                done = await connection.run(command, encoding=None, **given)
        except TimeoutError:
            await self._disconnect()
            what = f"{_short(command)} on host {self._address}"
            raise CommandFailed(self._clean(f"{what} did not end within {timeout:g} s")) from None
        except (OSError, asyncssh.Error):
            await self._disconnect()
            raise HostUnreachable(self._address, "closed") from None
        if done.returncode is None:
            await self._disconnect()
            raise HostUnreachable(self._address, "closed")
        return done.returncode, _bytes(done.stdout), _bytes(done.stderr)

    async def _connected(self) -> asyncssh.SSHClientConnection:
        await asyncio.sleep(_SETTLE)
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._opened()
        return self._connection

    async def _opened(self) -> asyncssh.SSHClientConnection:
        keeper = _KeyKeeper(self._host_key)
        try:
            async with asyncio.timeout(2 * self._connect_timeout):
                connection = await asyncssh.connect(
                    self._address.ip,
                    self._address.port,
                    username=self._username,
                    client_keys=[asyncssh.import_private_key(self._private_key)],
                    client_factory=lambda: keeper,
                    known_hosts=([], [], []),
                    server_host_key_algs=keeper.algorithms(),
                    preferred_auth="publickey",
                    agent_path=None,
                    config=None,
                    gss_host=None,
                    connect_timeout=self._connect_timeout,
                    login_timeout=self._connect_timeout,
                    keepalive_interval=_KEEPALIVE,
                )
        except (TimeoutError, OSError, asyncssh.Error) as error:
            raise self._why_not(error, keeper) from None
        self._host_key = keeper.shown
        return connection

    def _why_not(self, error: Exception, keeper: _KeyKeeper) -> HostError:
        if isinstance(error, asyncssh.PermissionDenied):
            return LoginRefused(
                f"host {self._address} does not take the stack's SSH key for user "
                f"{self._username}: its start script has not run yet, or failed"
            )
        if isinstance(error, asyncssh.HostKeyNotVerifiable):
            return HostKeyChanged(
                f"host {self._address} shows the key {_fingerprint(keeper.shown)}, and "
                f"{_fingerprint(self._host_key)} was recorded at first contact: another machine "
                "answers there; nothing was sent to it, replace the instance"
            )
        return HostUnreachable(self._address, _reason(error))

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
            await connection.wait_closed()

    def _clean(self, text: str) -> str:
        return redacted(text, self._secrets)


class _KeyKeeper(asyncssh.SSHClient):
    """Holds a host to its recorded key, or records the one that it shows."""

    def __init__(self, recorded: str | None) -> None:
        self._recorded = recorded
        self.shown: str | None = None

    def algorithms(self) -> str:
        """Prefer the recorded kind of key, since hosts have several; `^` puts it at the front.

        The others stay allowed: a host that has only those is to show its key and be refused for
        it, which a negotiation that fails does not let us tell from a broken connection.
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
        self.shown = _without_comment(key.export_public_key().decode())
        return self._recorded in (None, self.shown)


def _reason(error: Exception) -> Unreachable:
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    # asyncssh says of a login that took too long that the connection was lost.
    if isinstance(error, TimeoutError) or "timeout" in str(error).lower():
        return "timed_out"
    if isinstance(error, OSError) and error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return "no_route"
    return "closed"


def _without_comment(line: str | None) -> str | None:
    return None if line is None else " ".join(line.split()[:2])


def _fingerprint(line: str | None) -> str:
    if line is None:
        return "none"
    return asyncssh.import_public_key(line).get_fingerprint()


def _short(command: str) -> str:
    first = command.strip().partition("\n")[0]
    return f"'{first[:80]}...'" if len(first) > 80 else f"'{first}'"  # noqa: PLR2004  (one line)


def _bytes(output: object) -> bytes:
    return output if isinstance(output, bytes) else b""


def _check_relative(name: str) -> None:
    parts = PurePosixPath(name).parts
    if not re.fullmatch(r"[A-Za-z0-9._/-]+", name) or name.startswith("/") or ".." in parts:
        raise ValueError(f"not a path under the serving folder: {name!r}")


def _tar(files: Mapping[str, tuple[bytes, int]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, (content, mode) in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = mode
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _put_command(names: list[str]) -> str:
    left_behind = f"find . -maxdepth 1 -name '.incoming.*' -mmin +{_LEFT_BEHIND_MINUTES}"
    folders = sorted({str(PurePosixPath(name).parent) for name in names})
    moves = [f'mv -f "$new"/{shlex.quote(name)} {shlex.quote(name)}' for name in names]
    return "\n".join(
        [
            f'set -e; umask 077; mkdir -p "$HOME/{FOLDER}"; cd "$HOME/{FOLDER}"',
            f"{left_behind} -exec rm -rf '{{}}' + || true",
            "new=$(mktemp -d .incoming.XXXXXX); trap 'rm -rf \"$new\"' EXIT",
            'tar -x -p --no-same-owner -f - -C "$new"',
            f"mkdir -p {shlex.join(folders)}",
            *moves,
        ]
    )


def _log_command(name: str, offset: int) -> str:
    return "\n".join(
        [
            f'file="$HOME/{FOLDER}/{name}"; from={int(offset)}',
            'if [ ! -f "$file" ]; then echo 0; exit 0; fi',
            # Emptied since, because it grew too large or the server was started anew.
            'if [ "$(wc -c < "$file")" -lt "$from" ]; then from=0; fi',
            'echo "$from"',
            f'tail -c "+$((from + 1))" "$file" | head -c {LOG_PIECE}',
        ]
    )
