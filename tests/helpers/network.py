"""A server that sends anything, at any pace, to the clients that `httpcore2` connects.

Virtual time, no socket. A script is what a connection sends: pieces, each after its seconds, and
then the end of the connection.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import httpcore2

from tests.helpers.fakes import VirtualClock

CHUNK = 65_536
"""Bytes that a client reads at once at most, and so by which it may go beyond a bound."""

LONG = b"HTTP/1.1 200 OK\r\ncontent-length: 999999999999\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
"""How an answer begins whose end is far away, or not known."""

Script = Iterable[tuple[float, bytes]]


class Network(httpcore2.NetworkBackend):
    """Plays a script on each connection, one after the other, and notes what the client does."""

    def __init__(self, clock: VirtualClock, scripts: Iterable[Script]) -> None:
        self.clock = clock
        self.scripts = iter(scripts)
        self.connected: list[str] = []
        """Hosts."""
        self.written = b""
        self.sent = 0
        self.unbounded = False
        """Whether the client ever waited without a limit."""

    def connect_tcp(self, host: str, *_: Any, **__: Any) -> httpcore2.NetworkStream:
        self.connected.append(host)
        return _Stream(self, next(self.scripts, []))


class _Stream(httpcore2.NetworkStream):
    def __init__(self, network: Network, script: Script) -> None:
        self._network = network
        self._pieces = iter(script)
        self._left = b""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self._network.unbounded |= not timeout
        timeout = timeout or 0.0
        if not self._left:
            seconds, self._left = next(self._pieces, (0.0, b""))
            if seconds > timeout:
                self._network.clock.sleep(timeout)
                raise httpcore2.ReadTimeout
            self._network.clock.sleep(seconds)
        given, self._left = self._left[:max_bytes], self._left[max_bytes:]
        self._network.sent += len(given)
        return given

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._network.unbounded |= not timeout
        self._network.written += buffer

    def start_tls(self, *_: Any, **__: Any) -> httpcore2.NetworkStream:
        return self

    def close(self) -> None:
        pass

    def get_extra_info(self, info: str) -> Any:
        del info


def response(body: bytes, status: int = 200, *headers: str) -> bytes:
    """An answer of HTTP/1.1, whole."""
    lines = [f"HTTP/1.1 {status} x", f"content-length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def at_once(body: Any, *headers: str, status: int = 200) -> Script:
    """A script of one answer; what is no bytes is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return [(0.0, response(content, status, *headers))]


def drip(content: bytes, seconds: float) -> Script:
    """A script of one byte after the other, and the last one for ever."""
    for one in content:
        yield seconds, bytes([one])
    while True:
        yield seconds, content[-1:]


def flood(start: bytes, piece: bytes) -> Script:
    """A script of a piece again and again, for ever, as fast as it is read."""
    yield 0.0, start
    while True:
        yield 0.0, piece
