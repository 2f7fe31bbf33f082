"""The only client of a host: commands, files and logs over SSH, from plain threaded code.

The client keeps one connection, since the policy asks every few seconds. It opens a lost one anew
at the next call. Retries and waits are the policy's: the client connects once and says how it
failed. No text that leaves it holds a secret that it was given.

The host is a stranger, which may send anything for ever. Each call has a deadline and a limit of
bytes, both kept on this side. It ends with a value or with one of the errors below.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from components.core.bounded import Allowance, TooMuch
from components.core.display import redacted, shown_lines
from components.core.errors import HostError
from components.machine.agent_answers import AnswerUnreadable, read_status
from components.machine.ssh_commands import (
    check_relative,
    log_command,
    put_command,
    read_piece,
    tar,
)
from components.machine.ssh_connection import (
    CONNECT_TIMEOUT,
    Dial,
    Login,
    open_connection,
    without_comment,
)
from components.machine.ssh_library import asyncssh
from components.machine.ssh_types import (
    ASK_TIMEOUT,
    COMMAND_TIMEOUT,
    FOLDER,
    LOG_PIECE,
    CommandFailed,
    HostAddress,
    HostUnreachable,
    Nonsense,
    Result,
)

MOST_BYTES = LOG_PIECE + 65_536
"""Most bytes that a command may print, output and complaints together."""

END_TIMEOUT = 5.0
"""Seconds for a connection to end once it was given up."""

_CHUNK = 65_536
_SETTLE = 0.01
"""Seconds in which a connection that ended since the last call is noticed as such."""

T = TypeVar("T")


class SshClient:
    """`HostClient` over SSH. A context manager; safe to use from several threads, one at a time."""

    def __init__(
        self,
        address: HostAddress,
        private_key: str,
        *,
        known_host_key: str | None = None,
        secrets: Sequence[str] = (),
        username: str = "root",
        connect_timeout: float = CONNECT_TIMEOUT,
        dial: Dial = asyncssh.connect,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    ) -> None:
        """Prepare the client; nothing is opened yet.

        Args:
            address: of the mapped SSH port.
            private_key: OpenSSH's private format.
            known_host_key: an OpenSSH public key line, as `host_key` gave it at first contact. None
                accepts the key that the host shows first, and no other afterwards.
            secrets: what no error may show.
            username: root on Vast.
            connect_timeout: seconds for the connection, and as many for the login.
            dial: makes the connection.
            loop_factory: makes the event loop, by whose clock all deadlines are.
        """
        self._address = address
        self._login = Login(address, username, private_key, connect_timeout)
        self._host_key = without_comment(known_host_key)
        self._secrets = (*secrets, private_key)
        self._connection: asyncssh.SSHClientConnection | None = None
        self._dial = dial
        self._loop_factory = loop_factory
        self._runner = asyncio.Runner(loop_factory=loop_factory)
        self._one_at_a_time = threading.Lock()

    def __repr__(self) -> str:
        return f"SshClient({self._address})"

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

        What it prints comes as lines that are fit to be shown.

        Raises:
            CommandFailed: it did not end within `timeout` seconds.
            Nonsense: it prints more than any of ours.
            HostUnreachable: no connection, or lost on the way: it may have run.
            HostKeyChanged: not the recorded key.
            LoginRefused: our key is not taken.
        """
        sent = stdin.encode() if isinstance(stdin, str) else stdin
        status, out, err = self._wait_for(self._execute(command, sent, timeout))
        return Result(status, _text(out), _text(err))

    def put(self, files: Mapping[str, tuple[bytes, int]]) -> None:
        """Write files under the serving folder; see `HostClient`. Order of renames: as given.

        Raises:
            CommandFailed: no space, for one; what stood there before still stands.
            HostUnreachable: as `run`.
            HostKeyChanged: as `run`.
            LoginRefused: as `run`.
        """
        for name in files:
            check_relative(name)
        self._checked(put_command(list(files)), tar(files), COMMAND_TIMEOUT)

    def read_log(self, name: str, offset: int) -> tuple[str, int]:
        """Read a log on from `offset` bytes; from 0 if it was emptied since. At most `LOG_PIECE`.

        A log that does not exist yet is empty. The text is of lines that are fit to be shown.

        Raises:
            CommandFailed: it cannot be read.
            Nonsense: what came is no piece of a log.
            HostUnreachable: as `run`.
            HostKeyChanged: as `run`.
            LoginRefused: as `run`.
        """
        check_relative(name)
        printed = self._checked(log_command(name, offset), None, ASK_TIMEOUT)
        found = read_piece(printed, offset)
        if found is None:
            raise Nonsense(
                f"host {self._address} gives no piece of {name} when it is asked for one"
            )
        return found

    def status(self) -> dict[str, str]:
        """Ask the supervisor for its key=value lines.

        Raises:
            CommandFailed: it is not there, or fails.
            Nonsense: what it says cannot be.
            HostUnreachable: as `run`.
            HostKeyChanged: as `run`.
            LoginRefused: as `run`.
        """
        printed = self._checked(f'sh "$HOME/{FOLDER}/supervise.sh" status', None, ASK_TIMEOUT)
        try:
            return read_status(_text(printed))
        except AnswerUnreadable as error:
            raise Nonsense(f"the supervisor on host {self._address} {error}") from None

    def close(self) -> None:
        """Close the connection; the next call would open another one."""
        with self._one_at_a_time:
            self._runner.run(self._disconnect())
            self._runner.close()
            self._runner = asyncio.Runner(loop_factory=self._loop_factory)

    def _checked(self, command: str, stdin: bytes | None, timeout: float) -> bytes:
        status, out, err = self._wait_for(self._execute(command, stdin, timeout))
        if status != 0:
            last = _text((err or out)[-1200:]).strip()[-300:]
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
        """Run a command; the one place where what a host sends becomes bytes or an error."""
        connection = await self._connected()
        try:
            async with asyncio.timeout(timeout):
                status, out, err = await _run(connection, command, stdin)
        except Exception as error:  # noqa: BLE001  (a stranger's bytes may bring libraries to any)
            await self._disconnect()
            raise self._why_failed(error, command, timeout) from None
        if status is None:
            await self._disconnect()
            raise HostUnreachable(self._address, "closed")
        return status, out, err

    def _why_failed(self, error: Exception, command: str, timeout: float) -> HostError:
        what = f"{_short(command)} on host {self._address}"
        if isinstance(error, TooMuch):
            return Nonsense(self._clean(f"{what} prints more than {MOST_BYTES} bytes"))
        if isinstance(error, TimeoutError):
            return CommandFailed(self._clean(f"{what} did not end within {timeout:g} s"))
        # A connection that breaks off is an `OSError`, of which a timeout is one as well.
        known = isinstance(error, OSError | asyncssh.Error)
        return HostUnreachable(self._address, "closed" if known else "garbled")

    async def _connected(self) -> asyncssh.SSHClientConnection:
        await asyncio.sleep(_SETTLE)
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._opened()
        return self._connection

    async def _opened(self) -> asyncssh.SSHClientConnection:
        connection, self._host_key = await open_connection(self._login, self._host_key, self._dial)
        return connection

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        # A connection that does not end well is given up all the same.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(END_TIMEOUT):
                connection.abort()
                await connection.wait_closed()

    def _clean(self, text: str) -> str:
        return redacted(text, self._secrets)


async def _run(
    connection: asyncssh.SSHClientConnection, command: str, stdin: bytes | None
) -> tuple[int | None, bytes, bytes]:
    """Run a command and read what it prints; its status is None if it broke off.

    Raises:
        TooMuch: it prints more than `MOST_BYTES`.
    """
    # An empty input would leave the command's input open, and the command waits for its end.
    given = {"input": stdin} if stdin else {"stdin": asyncssh.DEVNULL}
    process = await connection.create_process(command, encoding=None, **given)
    allowance = Allowance(MOST_BYTES)
    reading = asyncio.gather(_read(process.stdout, allowance), _read(process.stderr, allowance))
    try:
        out, err = await reading
    finally:
        # If one of the two streams fails, the other is still read.
        reading.cancel()
    await process.wait_closed()
    return process.returncode, out, err


async def _read(stream: asyncssh.SSHReader[bytes], allowance: Allowance) -> bytes:
    pieces: list[bytes] = []
    while piece := await stream.read(_CHUNK):
        allowance.take(len(piece))
        pieces.append(piece)
    return b"".join(pieces)


def _short(command: str) -> str:
    first = command.strip().partition("\n")[0]
    return f"'{first[:80]}...'" if len(first) > 80 else f"'{first}'"  # noqa: PLR2004  (one line)


def _text(output: bytes) -> str:
    return shown_lines(output.decode(errors="replace"))
