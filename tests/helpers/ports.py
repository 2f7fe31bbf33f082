"""Ports of what a test starts: a free one for later, and whether somebody listens at one."""

from __future__ import annotations

import contextlib
import secrets
import socket

PORTS = range(12_000, 20_000)
"""Below those of emulated machines and of outgoing connections, which take theirs at any time."""


def free_port() -> int:
    """Choose a port of loopback that nobody listens at, and that no connection has as its own."""
    while True:
        port = secrets.choice(PORTS)
        with contextlib.suppress(OSError), socket.socket() as one:
            one.bind(("127.0.0.1", port))
            return port


def is_listening(port: int, address: str = "127.0.0.1") -> bool:
    """Whether a connection to it is taken."""
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0
