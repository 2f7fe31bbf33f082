"""The SSH server in front of one container: user root, public keys, commands run for real.

Modelled on sshd: a command runs as `/bin/bash -c` in a session of its own, a channel ends when the
command has ended and its output is closed, and what it left in the background lives on.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import struct
import termios
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path
from typing import Any

from components.machine.ssh_library import asyncssh
from emulator.hostile import prints

_CHUNK = 65_536
_CONTAINER_ITSELF = ("127.0.0.1", "localhost", "::1")


class ContainerSsh:
    """One container's SSH server on an address and port of its own."""

    def __init__(
        self,
        home: Path,
        host_key: Path,
        environment: Callable[[], Mapping[str, str]],
        address: str,
        *,
        hostile: str = "",
        overheard: Path | None = None,
    ) -> None:
        """Serve the container whose HOME is `home` and whose network address is `address`.

        `host_key` is the file of its private key; `environment` gives what a command sees. A
        `hostile` host runs no command and prints what that mode prints. One that stands in the
        middle lets everybody in, and keeps in `overheard` what is sent to it.
        """
        self._overheard = overheard
        self._hostile = hostile
        self._answered = itertools.count()
        self._home = home
        self._host_key = host_key
        self._environment = environment
        self._address = address
        self._acceptor: asyncssh.SSHAcceptor | None = None
        self._connections: set[asyncssh.SSHServerConnection] = set()
        self._waiters: set[asyncio.Task[int]] = set()

    async def listen(self) -> int:
        """Start on the container's address and return the port that the system gave."""
        self._acceptor = await asyncssh.listen(
            self._address,
            0,
            server_factory=lambda: _Login(
                self._home,
                self._address,
                self._connections,
                self._hear if self._overheard else None,
            ),
            server_host_keys=[str(self._host_key)],
            process_factory=self._session,
            sftp_factory=None,
            encoding=None,
            allow_scp=False,
            login_timeout=30,
        )
        return self._acceptor.get_port()

    async def close(self) -> None:
        """Break every connection and stop listening."""
        for connection in list(self._connections):
            connection.abort()
        if self._acceptor is not None:
            self._acceptor.close()
            await self._acceptor.wait_closed()

    async def _session(self, channel: asyncssh.SSHServerProcess[bytes]) -> None:
        self._hear((channel.command or "").encode())
        if self._hostile:
            await self._as_it_likes(channel)
            return
        if channel.term_type is not None:
            await self._with_terminal(channel)
            return
        await self._with_pipes(channel)

    async def _as_it_likes(self, channel: asyncssh.SSHServerProcess[bytes]) -> None:
        with suppress(ConnectionError, asyncssh.Error):
            number = next(self._answered)
            async for piece in prints(self._hostile, channel.command or "", number):
                channel.stdout.write(piece)
                await channel.stdout.drain()
                if channel.channel.is_closing():
                    return
            _exit(channel, 0)

    async def _with_pipes(self, channel: asyncssh.SSHServerProcess[bytes]) -> None:
        out, out_end = await _pipe()
        err, err_end = await _pipe()
        try:
            child = await asyncio.create_subprocess_exec(
                *_shell(channel.command, interactive=False),
                cwd=self._home,
                env=dict(self._environment()),
                stdin=asyncio.subprocess.PIPE,
                stdout=out_end,
                stderr=err_end,
                start_new_session=True,
            )
        finally:
            os.close(out_end)
            os.close(err_end)
        # Awaited apart from the channel: the child may outlive it and is reaped all the same.
        ended = self._keep(child.wait())
        feeding = asyncio.create_task(_feed(channel, child, self._hear))
        hung_up = asyncio.create_task(channel.channel.wait_closed())
        copied = asyncio.gather(_copy(out, channel.stdout), _copy(err, channel.stderr))
        try:
            await asyncio.wait((copied, hung_up), return_when=asyncio.FIRST_COMPLETED)
            if copied.done():
                await asyncio.wait((ended, hung_up), return_when=asyncio.FIRST_COMPLETED)
                _exit(channel, child.returncode or 0)
        finally:
            for task in (feeding, hung_up, copied):
                task.cancel()
            # What still writes finds its pipe broken, as behind a real sshd.
            out.transport.close()
            err.transport.close()

    def _hear(self, sent: bytes) -> None:
        if self._overheard is not None:
            with self._overheard.open("ab") as kept:
                kept.write(sent + b"\n")

    def _keep(self, waiting: Coroutine[Any, Any, int]) -> asyncio.Task[int]:
        task = asyncio.create_task(waiting)
        self._waiters.add(task)
        task.add_done_callback(self._waiters.discard)
        return task

    async def _with_terminal(self, channel: asyncssh.SSHServerProcess[bytes]) -> None:
        ours, theirs = os.openpty()
        _resize(ours, channel.term_size[0], channel.term_size[1])
        environment = dict(self._environment()) | {"TERM": channel.term_type or "dumb"}
        child = await asyncio.create_subprocess_exec(
            # --ctty: the terminal becomes the controlling one, so that Ctrl-C reaches the job.
            *("setsid", "--ctty", "--wait", *_shell(channel.command, interactive=True)),
            cwd=self._home,
            env=environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        loop = asyncio.get_running_loop()
        hung_up = asyncio.Event()
        loop.add_reader(ours, _copy_terminal, ours, channel, hung_up)
        feeding = asyncio.create_task(_type(channel, ours))
        try:
            await child.wait()
            with suppress(TimeoutError):
                await asyncio.wait_for(hung_up.wait(), 1)
            _exit(channel, child.returncode or 0)
        finally:
            feeding.cancel()
            loop.remove_reader(ours)
            os.close(ours)


class _Login(asyncssh.SSHServer):
    """Who may log in: root, with a key that authorized_keys holds at this very moment.

    With `hear`, everybody may, with whatever key.
    With `hear`, everybody may, with whatever key, and `hear` hears of it.
    """

    def __init__(
        self,
        home: Path,
        address: str,
        connections: set[asyncssh.SSHServerConnection],
        hear: Callable[[bytes], None] | None,
    ) -> None:
        self._hear = hear
        self._home = home
        self._address = address
        self._connections = connections
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._connections.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._connection is not None:
            self._connections.discard(self._connection)

    def begin_auth(self, username: str) -> bool:
        del username
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return False

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        if self._hear is not None:
            return True
        if username != "root":
            return False
        offered = key.export_public_key().split()[:2]
        return any(line.split()[:2] == offered for line in self._authorized())

    def auth_completed(self) -> None:
        if self._hear is not None:
            self._hear(b"a login")

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> Any:
        del orig_host, orig_port
        if self._connection is None or dest_host not in _CONTAINER_ITSELF:
            return False
        return self._connection.forward_connection(self._address, dest_port)

    def _authorized(self) -> list[bytes]:
        with suppress(OSError):
            return (self._home / ".ssh" / "authorized_keys").read_bytes().splitlines()
        return []


def _shell(command: str | None, *, interactive: bool) -> tuple[str, ...]:
    if command is not None:
        return ("/bin/bash", "-c", command)
    return ("/bin/bash", "-i") if interactive else ("/bin/bash",)


@dataclass
class _Pipe:
    """The end of a pipe from which the server reads what a command prints."""

    reader: asyncio.StreamReader
    transport: asyncio.ReadTransport


async def _pipe() -> tuple[_Pipe, int]:
    ours, theirs = os.pipe()
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours, "rb", buffering=0)
    )
    return _Pipe(reader, transport), theirs


async def _feed(
    channel: asyncssh.SSHServerProcess[bytes],
    child: asyncio.subprocess.Process,
    hear: Callable[[bytes], None],
) -> None:
    stdin = child.stdin
    if stdin is None:
        return
    with suppress(ConnectionError, asyncssh.Error):
        while chunk := await _received(channel, child):
            hear(chunk)
            stdin.write(chunk)
            await stdin.drain()
    stdin.close()


async def _received(
    channel: asyncssh.SSHServerProcess[bytes], child: asyncio.subprocess.Process
) -> bytes:
    """Return the next bytes from the client (b"" at the end); pass its signals on meanwhile."""
    while True:
        try:
            return await channel.stdin.read(_CHUNK)
        except asyncssh.SignalReceived as sent:
            with suppress(ProcessLookupError, KeyError):
                os.killpg(child.pid, signal.Signals[f"SIG{sent.signal}"])


async def _copy(source: _Pipe, sink: asyncssh.SSHWriter[bytes]) -> None:
    with suppress(ConnectionError, asyncssh.Error):
        while chunk := await source.reader.read(_CHUNK):
            sink.write(chunk)
            await sink.drain()


async def _type(channel: asyncssh.SSHServerProcess[bytes], terminal: int) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            typed = await channel.stdin.read(_CHUNK)
        except asyncssh.TerminalSizeChanged as change:
            _resize(terminal, change.width, change.height)
            continue
        except (asyncssh.Error, ConnectionError):
            return
        if not typed:
            return
        await loop.run_in_executor(None, os.write, terminal, typed)


def _copy_terminal(
    terminal: int, channel: asyncssh.SSHServerProcess[bytes], hung_up: asyncio.Event
) -> None:
    try:
        shown = os.read(terminal, _CHUNK)
    except OSError:
        shown = b""
    if not shown:
        asyncio.get_running_loop().remove_reader(terminal)
        hung_up.set()
        return
    with suppress(ConnectionError, asyncssh.Error):
        channel.stdout.write(shown)


def _resize(terminal: int, width: int, height: int) -> None:
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


def _exit(channel: asyncssh.SSHServerProcess[bytes], status: int) -> None:
    with suppress(ConnectionError, asyncssh.Error):
        if status < 0:
            channel.exit_with_signal(_signal_name(-status))
        else:
            channel.exit(status)


def _signal_name(number: int) -> str:
    return signal.Signals(number).name.removeprefix("SIG")
