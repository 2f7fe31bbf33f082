"""Where the market is, and so where the key goes. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from components.machine.addresses import is_loopback
from components.vast.errors import MarketUrlRefused

DEFAULT_URL = "https://console.vast.ai"
VARIABLE = "VAST_URL"

_AUTHORITY = re.compile(r"[A-Za-z0-9.-]+(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](?::[0-9]{1,5})?")
"""A name or an address and a port. Two parsers may read anything else differently."""


def market_url(environ: Mapping[str, str]) -> str:
    """Read where the market is, without a slash at the end: `VAST_URL`, or Vast's own address.

    Raises:
        MarketUrlRefused: if the key would cross the network in clear, or the host is unclear.
    """
    text = environ.get(VARIABLE) or DEFAULT_URL
    scheme, host = _scheme_and_host(text)
    if scheme == "https" or (scheme == "http" and is_loopback(host)):
        return text.rstrip("/")
    raise MarketUrlRefused(
        f"{VARIABLE} is {text[:100]!r} and has to be https://<host>, or http:// on this computer "
        "(127.0.0.1, localhost): the Vast.ai key would go there in clear; nothing was sent"
    )


def host_of(url: str) -> str:
    """The host that a URL names; empty if it is unclear."""
    return _scheme_and_host(url)[1]


def _scheme_and_host(url: str) -> tuple[str, str]:
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
