"""The host's side of a published port: 127.0.0.1:<HostPort> to the container, bytes counted."""

from __future__ import annotations

import abc
import asyncio
import random
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass

HOST = "127.0.0.1"
LOWEST, HIGHEST = 20_000, 31_999
"""Below Linux's range for outgoing connections, so that those cannot take a published port."""

_CHUNK = 65_536
_TRIES = 200
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER for no time at all: closing sends a reset instead of a farewell."""


@dataclass
class Traffic:
    """Bytes that crossed the container's published ports since they were last billed."""

    down: int = 0
    up: int = 0

    def take(self) -> tuple[int, int]:
        """Return (down, up) and begin again at zero."""
        taken = (self.down, self.up)
        self.down = self.up = 0
        return taken


class Listener(abc.ABC):
    """One published TCP port, and what is open behind it."""

    def __init__(self) -> None:
        """Listen to nothing yet."""
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        """Writers of connections, to both sides."""

    async def listen(self, port: int) -> None:
        """Accept on 127.0.0.1:`port`.

        Raises:
            OSError: somebody else has that port.
        """
        self._server = await asyncio.start_server(self._accepted, HOST, port)

    async def close(self) -> None:
        """Stop listening and break every connection, as a container's end does."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        if self._server is not None:
            await self._server.wait_closed()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            await self._serve(reader, writer)
        finally:
            self._open.discard(writer)

    @abc.abstractmethod
    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""


class Forwarder(Listener):
    """Passes on what it accepts, in both directions, until closed."""

    def __init__(self, target: tuple[str, int], traffic: Traffic) -> None:
        """Forward to `target` (address, port) and count into `traffic`."""
        super().__init__()
        self._target = target
        self._traffic = traffic

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server, forth = await asyncio.open_connection(*self._target)
        except OSError:
            # Nothing listens in the container. It is too late to refuse: the client sees a reset.
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
            return
        self._open.add(forth)
        try:
            down, up = self._pump(reader, forth, "down"), self._pump(server, writer, "up")
            await asyncio.gather(down, up)
        finally:
            self._open.discard(forth)
            for one in (writer, forth):
                one.close()

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, direction: str
    ) -> None:
        with suppress(OSError):
            while chunk := await source.read(_CHUNK):
                if direction == "down":
                    self._traffic.down += len(chunk)
                else:
                    self._traffic.up += len(chunk)
                sink.write(chunk)
                await sink.drain()
            if sink.can_write_eof():
                sink.write_eof()
            return
        sink.transport.abort()


class BlackHole:
    """A published port behind a firewall that drops: a connection attempt times out.

    Linux drops a SYN when a listener's queue is full, and a queue of length 0 holds one
    connection: two that nobody accepts fill it for good.
    """

    def __init__(self) -> None:
        self._listener = socket.socket()
        self._fillers: list[socket.socket] = []

    async def listen(self, port: int) -> None:
        """Swallow what arrives at 127.0.0.1:`port`.

        Raises:
            OSError: somebody else has that port.
        """
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((HOST, port))
        self._listener.listen(0)
        for _ in range(2):
            filler = socket.socket()
            filler.setblocking(False)
            with suppress(BlockingIOError):
                filler.connect((HOST, port))
            self._fillers.append(filler)

    async def close(self) -> None:
        """Give the port back."""
        for one in (*self._fillers, self._listener):
            one.close()


def draw_port(chance: random.Random, taken: set[int]) -> int:
    """Return a free port of the published range that is not in `taken`.

    Raises:
        OSError: none was found.
    """
    for _ in range(_TRIES):
        port = chance.randint(LOWEST, HIGHEST)
        if port not in taken and _is_free(port):
            return port
    raise OSError(f"no free port was found between {LOWEST} and {HIGHEST} on {HOST}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def internal_ports(env: dict[str, str]) -> list[str]:
    """Return what `-p` entries of a contract's env ask to publish: ["8000/tcp", ...], in order.

    `-p 8000:8000` opens the container's 8000; the outer number is drawn by the host. Numbers of
    70000 and above mean "the same number inside and outside" and stay as they are.
    """
    asked: list[str] = []
    for key in env:
        flag, _, spec = key.strip().partition(" ")
        if flag != "-p":
            continue
        inside, _, protocol = spec.strip().rpartition(":")[2].partition("/")
        name = f"{inside}/{protocol or 'tcp'}"
        if inside.isdigit() and name not in asked:
            asked.append(name)
    return asked
