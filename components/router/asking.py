"""The client of a router over HTTPS: what it answers to whom, within seconds and bytes of ours.

It asks as clients do, at the address that clients call, and trusts the stack's authorities alone.
"""

from __future__ import annotations

import contextlib
import json
import re
import ssl
from collections.abc import Iterator
from typing import Protocol

import httpcore2

from components.core.bounded import Budget, OutOfTime, TooMuch
from components.core.bounded_http import Answer, Exchanges, trust
from components.core.clock import Clock
from components.core.errors import causes
from components.router.config import VERSION_PATH

ANSWER_SECONDS = 10.0
"""For a whole answer."""

CONNECT_SECONDS = 5.0
"""For a connection, TLS included."""

MOST_BYTES = 4 * 1_048_576
"""Of an answer. The metrics of 32 members are some hundred kB."""

_STATE = re.compile(
    r'haproxy_server_(check_)?status\{proxy="i(\d{1,16})",server="i\d{1,16}",'
    r'state="([A-Z0-9]{1,10})"\} 1'
)

_CHECKS = {
    "L7OK": "",
    # Its gate says that it drains.
    "L7OKC": "",
    "L4TOUT": "does not answer",
    "L4CON": "refuses the connection",
    "L6TOUT": "does not answer with TLS",
    "L6RSP": "shows another certificate than its own",
    "L7TOUT": "does not say how it is",
    "L7STS": "says that it does not serve",
}
"""What HAProxy finds in a check of a member."""


class RouterClient(Protocol):
    """What may be asked of a router."""

    def status_of(self, path: str, key: str | None) -> int | str:
        """Ask for `path`; the status, or why there is none, as the rest of a sentence."""

    def version(self, key: str) -> str:
        """Give the digest of the files that serve; empty if it does not say it."""

    def members(self, key: str) -> dict[str, str]:
        """Give the members that have been checked, by contract: empty for one that is reached.

        Otherwise it is why not, as the rest of a sentence.
        """

    def on_one_connection(self) -> contextlib.AbstractContextManager[RouterClient]:
        """Give a client whose questions one process answers, as long as it keeps the connection."""


class HttpsRouter:
    """`RouterClient`, each question on a connection of its own unless said otherwise."""

    def __init__(self, url: str, authorities: str, identity: str, clock: Clock) -> None:
        """Ask at `url`, trusting `authorities` (PEM); show `identity` (PEM) if it is not empty."""
        self._url = url
        self._clock = clock
        self._tls = trust(authorities, identity)
        self._kept: Exchanges | None = None

    @contextlib.contextmanager
    def on_one_connection(self) -> Iterator[RouterClient]:
        """See `RouterClient`."""
        with self._exchanges() as kept:
            self._kept = kept
            try:
                yield self
            finally:
                self._kept = None

    def status_of(self, path: str, key: str | None) -> int | str:
        """See `RouterClient`."""
        answer = self._ask(path, key)
        return answer.status if isinstance(answer, Answer) else answer

    def version(self, key: str) -> str:
        """See `RouterClient`."""
        answer = self._ask(VERSION_PATH, key)
        if not isinstance(answer, Answer) or answer.status != 200:  # noqa: PLR2004  (HTTP)
            return ""
        try:
            found = json.loads(answer.body)
        except ValueError:
            return ""
        return str(found.get("version", "")) if isinstance(found, dict) else ""

    def members(self, key: str) -> dict[str, str]:
        """See `RouterClient`."""
        answer = self._ask("/metrics", key)
        if not isinstance(answer, Answer) or answer.status != 200:  # noqa: PLR2004  (HTTP)
            return {}
        return reached(answer.body.decode(errors="replace"))

    def _ask(self, path: str, key: str | None) -> Answer | str:
        try:
            if self._kept is not None:
                return self._exchange(self._kept, path, key)
            with self._exchanges() as own:
                return self._exchange(own, path, key)
        except Exception as error:  # noqa: BLE001  (whoever answers there may send anything)
            return _reason(error)

    def _exchanges(self) -> Exchanges:
        return Exchanges(self._tls, connect_timeout=CONNECT_SECONDS)

    def _exchange(self, connection: Exchanges, path: str, key: str | None) -> Answer:
        return connection.exchange(
            "GET",
            self._url + path,
            Budget(self._clock, ANSWER_SECONDS, MOST_BYTES),
            headers={"Authorization": f"Bearer {key}"} if key is not None else {},
        )


def reached(metrics: str) -> dict[str, str]:
    """Read the router's own metrics as `RouterClient.members` gives them."""
    checks: dict[str, str] = {}
    states: dict[str, str] = {}
    for is_check, contract, state in _STATE.findall(metrics):
        (checks if is_check else states)[contract] = state
    return {
        contract: _CHECKS.get(check, "cannot be reached")
        or ("breaks connections off" if states.get(contract) == "DOWN" else "")
        for contract, check in checks.items()
    }


def _reason(error: Exception) -> str:
    if isinstance(error, OutOfTime | httpcore2.TimeoutException):
        return "does not answer in time"
    if isinstance(error, TooMuch):
        return "answers without an end"
    found = list(causes(error))
    if any(isinstance(cause, ConnectionRefusedError) for cause in found):
        return "refuses the connection"
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in found):
        return "shows a certificate that is not the stack's"
    known = isinstance(error, httpcore2.NetworkError | httpcore2.ProtocolError)
    return "breaks the connection off" if known else "answers what is no HTTP"
