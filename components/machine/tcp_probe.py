"""Whether a machine's port can be reached from here at all. The smallest of the clients."""

from __future__ import annotations

import socket
from typing import Literal

TIMEOUT = 5.0
"""Seconds for one connection."""

ProbeResult = Literal["open", "refused", "timed out", "no route"]
"""`refused` is no verdict while nothing listens behind the port; `timed out` is one: a filter."""


def probe(ip: str, port: int, timeout: float = TIMEOUT) -> ProbeResult:
    """Open a TCP connection and close it again; `timeout` in seconds."""
    try:
        with socket.create_connection((ip, port), timeout=timeout):
            return "open"
    except TimeoutError:
        return "timed out"
    except (ConnectionRefusedError, ConnectionResetError):
        return "refused"
    except (OSError, OverflowError, UnicodeError, ValueError):
        # Also where a host reports an invalid address or port.
        return "no route"
