"""Addresses as `ipaddress` reads them. Pure.

An address is the market's text and ends in a command line, a URL and a `known_hosts` file.
"""

from __future__ import annotations

import ipaddress


def address(text: str) -> str:
    """Give an IP address in its one spelling; empty for a text that is none.

    A zone (`fe80::1%eth0`) may be any text and means another interface on each computer, so an
    address with one is none here.
    """
    try:
        read = ipaddress.ip_address(text.strip())
    except ValueError:
        return ""
    return "" if "%" in text else str(read)


def with_port(ip: str, port: int) -> str:
    """An address and a port as a URL has them: an IPv6 address is in brackets."""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def is_loopback(host: str) -> bool:
    """Whether a host is this computer, by its name or address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
