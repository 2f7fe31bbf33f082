"""Ports for what a test starts later, or starts again."""

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
