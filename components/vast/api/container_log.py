"""A container's output: the market gives a link, and a little later the text behind it.

The link is a stranger's text and leads to another server than the API. No key goes there; what
comes from there is bounded in time and bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

import httpcore2

from components.core.bounded import Budget, OutOfTime, TooMuch
from components.core.bounded_http import Answer, exchange, public_trust
from components.core.clock import Clock
from components.machine.addresses import is_loopback
from components.vast.errors import ApiFailed, ApiUnreachable

SECONDS = 20.0
"""Seconds for the text to appear; the official client waits for nine (vast-api reference, 6)."""

LOOK_EVERY = 0.3
"""Seconds between two looks, as of the official client."""

ONE_LOOK = 10.0
"""Seconds of one look, from the connection to the last byte."""

CONNECT_SECONDS = 5.0

MOST_BYTES = 1_048_576
"""Of a text."""

LONGEST_LINK = 2000
"""Characters."""

_OK = 200


class ContainerLog:
    """Reads logs of one market."""

    def __init__(
        self,
        link: Callable[[int, str], str],
        market_url: str,
        clock: Clock,
        *,
        network: httpcore2.NetworkBackend | None = None,
    ) -> None:
        """Ask `link` (of an instance's id and a pattern) for links, as the market at `market_url`.

        `network` makes the connections.
        """
        self._link = link
        self._market_url = market_url
        self._clock = clock
        self._network = network

    def lines(self, instance_id: int, pattern: str) -> str:
        """The lines of a container's log in which `pattern` is found, as the market picks them.

        Raises:
            ApiFailed: there is no text within the time, or one that cannot be read.
            ApiUnreachable: nobody answers behind the link.
            StackError: the market's own refusals.
        """
        link = self._link(instance_id, pattern)
        if not self._is_believed(link):
            raise ApiFailed(f"the market's log of instance {instance_id} is behind no plain link")
        until = self._clock.monotonic() + SECONDS
        while True:
            answer = self._look(link, instance_id)
            if answer.status == _OK:
                return answer.body.decode(errors="replace")
            if self._clock.monotonic() >= until:
                raise ApiFailed(
                    f"the market's log of instance {instance_id} was not there within "
                    f"{SECONDS:.0f} s ({answer.status})"
                )
            self._clock.sleep(LOOK_EVERY)

    def _look(self, link: str, instance_id: int) -> Answer:
        whose = f"the market's log of instance {instance_id}"
        try:
            return exchange(
                "GET",
                link,
                Budget(self._clock, ONE_LOOK, MOST_BYTES),
                headers={},
                tls=public_trust(),
                connect_timeout=CONNECT_SECONDS,
                network=self._network,
            )
        except TooMuch:
            raise ApiFailed(f"{whose} has more than {MOST_BYTES} bytes") from None
        except (OutOfTime, httpcore2.TimeoutException):
            raise ApiUnreachable(f"{whose} did not come within {ONE_LOOK:.0f} s") from None
        except Exception as error:  # noqa: BLE001  (a stranger's bytes may bring libraries to any)
            raise ApiUnreachable(f"{whose} cannot be fetched ({type(error).__name__})") from None

    def _is_believed(self, link: str) -> bool:
        """Whether a link is over TLS, or to the market itself where that is on this computer."""
        if len(link) > LONGEST_LINK or not (link.isascii() and link.isprintable()) or " " in link:
            return False
        try:
            parts, market = urlsplit(link), urlsplit(self._market_url)
            host, _ = parts.hostname or "", parts.port
        except ValueError:
            return False
        if parts.username is not None or not host:
            return False
        is_here = parts.scheme == "http" and parts.netloc == market.netloc and is_loopback(host)
        return parts.scheme == "https" or is_here
