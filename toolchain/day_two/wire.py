"""Looks at servers that nobody vouches for: one request, within bounds, whatever they answer."""

from __future__ import annotations

from collections.abc import Callable

from components.core.bounded import Budget, OutOfTime, TooMuch
from components.core.bounded_http import Answer, exchange, public_trust
from components.core.clock import Clock
from components.core.errors import PlatformError

SECONDS = 10.0
"""Of one look at a server, from the connection to the last byte."""

CONNECT_SECONDS = 5.0

MOST_BYTES = 1_048_576
"""Of what a server answers to it."""

Get = Callable[[str], Answer]
"""Sends one request, and gives whatever answer there is. Raises `NoWay`."""


class NoWay(PlatformError):
    """A server does not answer this computer.

    Cost: nothing.
    Remedy: look at the network, at proxies and at firewalls.
    """


def getter(clock: Clock) -> Get:
    """Make what looks at an address, within bounds, trusting what this computer trusts."""

    def get(url: str) -> Answer:
        budget = Budget(clock, SECONDS, MOST_BYTES)
        try:
            return exchange(
                "GET",
                url,
                budget,
                headers={},
                tls=public_trust(),
                connect_timeout=CONNECT_SECONDS,
            )
        except (OutOfTime, TooMuch):
            raise NoWay(f"{url} gives no whole answer in {SECONDS:.0f} s") from None
        except Exception as error:  # noqa: BLE001  (a stranger's bytes may bring libraries to any)
            raise NoWay(f"{url} cannot be reached ({type(error).__name__}: {error})") from None

    return get
