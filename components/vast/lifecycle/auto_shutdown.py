"""How long a machine may live: the settings of its own watch, and why it may be gone. Pure.

The watch is `on_host/time_to_live.sh`: it ends the machine from inside with the container's own
key. Vast does not record who ended a contract. So the reason is inferred from what the state
recorded while the contract existed.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.core.progress import duration

SCRIPT = Path(__file__).parents[2] / "on_host" / "time_to_live.sh"

SCRIPT_NAME = "time_to_live.sh"
SETTINGS_NAME = "time_to_live.env"

SLACK = 120.0
"""Seconds by which the clocks of a host and of this computer may differ."""

OVERDUE = 600.0
"""Seconds that a machine needs for its own tries to end itself."""


@dataclasses.dataclass(frozen=True)
class AutoShutdown:
    """When a machine ends itself; 0 is never."""

    time_to_live_hours: float = 0.0
    """From the container's first start, which is when its GPUs begin to be billed."""
    idle_minutes: float = 0.0
    """Without a request, by vLLM's own counters."""
    market_end: bool = False
    """Whether the market is to destroy it as well, should it not end itself (`market_end.py`)."""

    @classmethod
    def from_bag(cls, bag: Mapping[str, Any]) -> AutoShutdown:
        """Read a property bag."""
        return cls(
            float(bag["time_to_live_hours"]), float(bag["idle_minutes"]), bool(bag["market_end"])
        )

    def to_bag(self) -> dict[str, Any]:
        """Write a property bag."""
        return dataclasses.asdict(self)

    def __bool__(self) -> bool:
        """Whether there is anything to watch."""
        return bool(self.time_to_live_hours or self.idle_minutes)

    def of_the_host(self) -> AutoShutdown:
        """Give the settings of the machine's own watch."""
        return dataclasses.replace(self, market_end=False)

    def settings(self, api_url: str) -> str:
        """What the watch reads, as shell assignments; `api_url` is of Vast's API."""
        return (
            f"API={shlex.quote(api_url)}\n"
            f"TTL_SECONDS={_whole(self.time_to_live_hours * 3600)}\n"
            f"IDLE_SECONDS={_whole(self.idle_minutes * 60)}\n"
        )

    def began(self, ends_at: float) -> float:
        """Give the first start that an end was counted from; 0 if it is not known."""
        known = ends_at and self.time_to_live_hours
        return ends_at - self.time_to_live_hours * 3600 if known else 0.0

    def ends_at(self, first_start: float) -> float:
        """When the time to live is over, in seconds since 1970; 0 for never."""
        return first_start + self.time_to_live_hours * 3600 if self.time_to_live_hours else 0.0


def carried(leash: AutoShutdown, api_url: str) -> dict[str, str]:
    """The files that the start script brings: none for a machine without auto-shutdown."""
    if not leash:
        return {}
    lines = SCRIPT.read_text().splitlines(keepends=True)
    short = "".join(line for line in lines if not line.lstrip().startswith("#"))
    return {SETTINGS_NAME: leash.settings(api_url), SCRIPT_NAME: short}


def pushed(leash: AutoShutdown, api_url: str) -> dict[str, tuple[bytes, int]]:
    """The same files for a machine that runs, with their modes."""
    return {
        SCRIPT_NAME: (SCRIPT.read_bytes(), 0o755),
        SETTINGS_NAME: (leash.settings(api_url).encode(), 0o644),
    }


def why_gone(leash: AutoShutdown, ends_at: float, contract_ends_at: float, now: float) -> str:
    """Say why a contract may be gone, as far as it can be known; moments in s since 1970."""
    if ends_at and now >= ends_at - SLACK:
        return (
            f"its time to live of {leash.time_to_live_hours:g} h was over at {moment(ends_at)}, "
            "when it was to destroy itself (timeToLiveHours)"
        )
    if contract_ends_at and now >= contract_ends_at:
        return f"its host's contract ended at {moment(contract_ends_at)}"
    others = "somebody else ended it, or its host did (Vast does not say who)"
    if leash.market_end:
        others = f"the market may have ended it before its time (marketEnd); else {others}"
    if leash.idle_minutes:
        return (
            f"idleMinutes is {leash.idle_minutes:g}, so it has destroyed itself if nobody asked "
            f"it for so long; otherwise {others}"
        )
    return others


def overdue_since(ends_at: float, now: float) -> float:
    """When an existing machine should have ended, in s since 1970; 0 if it should still exist."""
    return ends_at if ends_at and now > ends_at + OVERDUE else 0.0


def moment(epoch: float) -> str:
    """A moment (seconds since 1970) for a person."""
    return f"{dt.datetime.fromtimestamp(epoch, dt.UTC):%Y-%m-%d %H:%M} UTC"


def describe(leash: AutoShutdown) -> str:
    """What is watched, for a person."""
    parts = []
    if leash.time_to_live_hours:
        parts.append(f"{duration(leash.time_to_live_hours * 3600)} after its first start")
    if leash.idle_minutes:
        parts.append(f"after {duration(leash.idle_minutes * 60)} without a request")
    return f"ends itself {' or '.join(parts)}" if parts else "does not end itself"


def _whole(seconds: float) -> int:
    """Up to a whole second: a watch whose limits are 0 watches nothing."""
    return int(-(-seconds // 1))
