"""Where calls and keys go: addresses as `ipaddress` reads them, and URLs of places. Pure.

An address is the market's text and ends in a command line, a URL and a `known_hosts` file.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

_AUTHORITY = re.compile(r"[A-Za-z0-9.-]+(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](?::[0-9]{1,5})?")
"""A name or an address and a port. Whatever else it could hold, two readers read in two ways."""


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


def host_of(url: str) -> str:
    """The host that a URL names; empty if nobody can say."""
    return scheme_and_host(url)[1]


def scheme_and_host(url: str) -> tuple[str, str]:
    """Both in lower case; two empty texts for what is no plain URL of a place."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "", ""
    plain = _AUTHORITY.fullmatch(parts.netloc) and not parts.query and not parts.fragment
    # urlsplit drops blanks and line ends that another reader may keep.
    if not plain or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return "", ""
    return parts.scheme, parts.hostname or ""
