"""A host for the client's tests: a real SSH server that runs commands in a folder of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

from components.machine.ssh_library import asyncssh
from components.machine.ssh_types import HostAddress

T = TypeVar("T")


class SshHost:
    """Serves on 127.0.0.1 from a thread of its own; a context manager."""

    def __init__(
        self,
        home: Path,
        client_key: asyncssh.SSHKey,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.home = home
        self._environment = environment or {}
        self.logins = 0
        self.host_keys = [asyncssh.generate_private_key("ssh-ed25519")]
        self._client_key = client_key
        self._connections: set[asyncssh.SSHServerConnection] = set()
        self._acceptor: asyncssh.SSHAcceptor | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    @property
    def address(self) -> HostAddress:
        return HostAddress("127.0.0.1", self._port)

    def listen(self) -> None:
        self._on_loop(self._listen())

    def close(self) -> None:
        self._on_loop(self._close())

    def break_connections(self) -> None:
        self._on_loop(self._break())

    async def _listen(self) -> None:
        self._acceptor = await asyncssh.listen(
            "127.0.0.1",
            self._port,
            server_factory=lambda: _Login(self),
            server_host_keys=self.host_keys,
            process_factory=self._execute,
            encoding=None,
        )
        self._port = self._acceptor.get_port()

    async def _close(self) -> None:
        await self._break()
        if self._acceptor is not None:
            self._acceptor.close()
            await self._acceptor.wait_closed()

    async def _break(self) -> None:
        for connection in list(self._connections):
            connection.abort()
            await connection.wait_closed()

    async def _execute(self, channel: asyncssh.SSHServerProcess[bytes]) -> None:
        child = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            str(channel.command),
            cwd=self.home,
            env={"HOME": str(self.home), "PATH": os.environ["PATH"], **self._environment},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        hung_up = asyncio.create_task(channel.channel.wait_closed())
        talked = asyncio.create_task(_talk(child, channel))
        await asyncio.wait((hung_up, talked), return_when=asyncio.FIRST_COMPLETED)
        if not talked.done():
            os.killpg(child.pid, signal.SIGKILL)
            talked.cancel()
            await asyncio.wait((talked,))
            await child.communicate()
            return
        hung_up.cancel()
        channel.exit(talked.result())

    def _on_loop(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)


async def _talk(
    child: asyncio.subprocess.Process, channel: asyncssh.SSHServerProcess[bytes]
) -> int:
    out, err = await child.communicate(await channel.stdin.read())
    channel.stdout.write(out)
    channel.stderr.write(err)
    return child.returncode or 0


class _Login(asyncssh.SSHServer):
    def __init__(self, host: SshHost) -> None:
        self._host = host
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._host._connections.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._connection is not None:
            self._host._connections.discard(self._connection)

    def begin_auth(self, username: str) -> bool:
        del username
        return True

    def auth_completed(self) -> None:
        self._host.logins += 1

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        known = key.public_data == self._host._client_key.public_data
        return known and username == "root"
