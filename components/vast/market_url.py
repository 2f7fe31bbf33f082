"""Where the market is: Vast's own address, or the one in `VAST_URL`. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from components.machine.addresses import is_loopback, scheme_and_host
from components.vast.errors import MarketUrlRefused

DEFAULT_URL = "https://console.vast.ai"
VARIABLE = "VAST_URL"


def market_url(environ: Mapping[str, str]) -> str:
    """Read where the market is, without a slash at the end: `VAST_URL`, or Vast's own address.

    Raises:
        MarketUrlRefused: if the key would cross the network in clear, or nobody can say to whom.
    """
    text = environ.get(VARIABLE) or DEFAULT_URL
    scheme, host = scheme_and_host(text)
    if scheme == "https" or (scheme == "http" and is_loopback(host)):
        return text.rstrip("/")
    raise MarketUrlRefused(
        f"{VARIABLE} is {text[:100]!r} and has to be https://<host>, or http:// on this computer "
        "(127.0.0.1, localhost): the Vast.ai key would go there in clear; nothing was sent"
    )
