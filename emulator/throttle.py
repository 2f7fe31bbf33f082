"""Vast's published minimum seconds between two calls of one endpoint with one key.

Measured in real seconds, as a client measures them, whatever the emulator's speed is. An emulator
may ask for a share of them, its pace, so that tests need not wait; its clients are told the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Limit:
    """An endpoint's limit: `calls` within any `seconds`. Endpoints with one name share it."""

    name: str
    seconds: float
    calls: int = 1


CREATE = Limit("asks", 4.5)
READ_ONE = Limit("instances/{id}", 2.0)
READ_LIST = Limit("v1/instances", 1.0)
STATE = Limit("instances/state", 1.0)
RESTART = Limit("instances/reboot", 1.0)
DESTROY = Limit("instances/destroy", 3.0)
BID = Limit("instances/bid_price", 5.5)
EXECUTE = Limit("instances/command", 1.5)
LAUNCH = Limit("launch_instance", 5.0)
VOLUMES = Limit("volumes", 5.5)
CHARGES = Limit("charges", 1.0)
INVOICES = Limit("invoices", 3.0)
SECRETS_READ = Limit("secrets/read", 5.0)
SECRETS = Limit("secrets", 3.0)
API_KEYS_READ = Limit("apikeys/read", 1.0)
API_KEYS = Limit("apikeys", 2.0)
SSH_KEYS = Limit("ssh", 1.0)
TEMPLATES = Limit("template", 3.0)
SEARCH = Limit("bundles", 60.0, calls=10)


class Throttle:
    """Remembers the accepted calls of each endpoint and caller."""

    def __init__(
        self, monotonic: Callable[[], float], *, pace: float = 1.0, enabled: bool = True
    ) -> None:
        """Measure with `monotonic` (real seconds); let everything pass unless `enabled`.

        Ask for `pace` times the published seconds.
        """
        self._monotonic = monotonic
        self._pace = pace
        self._enabled = enabled
        self._accepted: dict[tuple[str, str], list[float]] = {}

    def admit(self, limit: Limit | None, caller: str) -> bool:
        """Accept a call and remember it, or say False: it came too soon and does not count."""
        if not self._enabled or limit is None:
            return True
        now = self._monotonic()
        key = (limit.name, caller)
        within = limit.seconds * self._pace
        recent = [moment for moment in self._accepted.get(key, []) if now - moment < within]
        if len(recent) >= limit.calls:
            return False
        self._accepted[key] = [*recent, now]
        return True
