"""Vast's published minimum seconds between two calls of one endpoint with one key, and its budget.

The budget is shared by all endpoints: five calls of a key in ten seconds (measured in 2026).
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


BUDGET = Limit("all endpoints", 10.0, calls=5)


class Throttle:
    """Remembers the accepted calls of each endpoint and caller."""

    def __init__(
        self,
        monotonic: Callable[[], float],
        *,
        pace: float = 1.0,
        enabled: bool = True,
        budget: bool = True,
    ) -> None:
        """Measure with `monotonic` (real seconds); let everything pass unless `enabled`.

        Ask for `pace` times the published seconds; without `budget`, of each endpoint alone.
        """
        self._monotonic = monotonic
        self._pace = pace
        self._enabled = enabled
        self._budget = enabled and budget
        self._accepted: dict[tuple[str, str], list[float]] = {}

    def admit(self, limit: Limit | None, caller: str) -> bool:
        """Accept a call and remember it, or say False: it came too soon and does not count."""
        if not self._enabled:
            return True
        limits = [one for one in (limit, BUDGET if self._budget else None) if one is not None]
        recent = {(one.name, caller): self._recent(one, caller) for one in limits}
        if limit is not None and len(recent[limit.name, caller]) >= limit.calls:
            return False
        now = self._monotonic()
        self._accepted |= {key: [*moments, now] for key, moments in recent.items()}
        return True

    def seconds_to_wait(self, caller: str) -> float:
        """Return for how long the budget of `caller` is used up; 0 if it is not."""
        recent = self._recent(BUDGET, caller) if self._budget else []
        if len(recent) < BUDGET.calls:
            return 0.0
        return recent[-BUDGET.calls] + BUDGET.seconds * self._pace - self._monotonic()

    def _recent(self, limit: Limit, caller: str) -> list[float]:
        """Return when calls were accepted that count still."""
        now, within = self._monotonic(), limit.seconds * self._pace
        accepted = self._accepted.get((limit.name, caller), [])
        return [moment for moment in accepted if now - moment < within]
