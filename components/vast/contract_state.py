"""What a contract's states and its bid say of a stop. Pure.

An outbid machine has the same states as a machine that its owner stopped. It is `exited`, with
`stopped` as its intended, current and next state (marketplace-facts, 1). This project never stops a
machine. So a stopped interruptible machine was outbid, unless its bid still wins. Then a tenant on
demand has it, or somebody stopped it by hand.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.vast.api.models import Instance


@dataclasses.dataclass(frozen=True)
class MarketState:
    """What a contract's states and its bid say of a stop. Prices are $/h for the GPUs alone."""

    interruptible: bool
    actual_status: str
    intended_status: str
    current_state: str
    next_state: str
    bid: float
    """0 if it is not known."""
    min_bid: float

    @classmethod
    def of(cls, instance: Instance) -> MarketState:
        """Read a row of the market."""
        return cls(
            instance.interruptible,
            instance.actual_status,
            instance.intended_status,
            instance.current_state,
            instance.next_state,
            instance.bid,
            instance.min_bid,
        )

    @property
    def is_stopped(self) -> bool:
        """Whether an interruptible machine is stopped, by the market or by hand.

        A container that crashed or reboots is `exited` as well, but its contract runs on. The
        status of the container itself may lag for minutes.
        """
        if not self.interruptible or self.actual_status in {"offline", "unknown"}:
            return False
        if self.intended_status == "stopped":
            return self.next_state == "stopped"
        # Intended to run, and without its GPUs: as older clients describe it, or started and
        # queued.
        queued = self.current_state == "stopped" and self.next_state == "running"
        waits = self.actual_status == "stopped" or (self.actual_status == "exited" and queued)
        return self.intended_status == "running" and waits

    @property
    def is_stopping(self) -> bool:
        """Whether it may be stopped at the next look: the intended state is ahead by a tick."""
        wanted = {self.intended_status, self.next_state}
        return self.interruptible and not self.is_stopped and "stopped" in wanted

    @property
    def is_outbid(self) -> bool:
        """Whether it is stopped and its bid does not win any more."""
        return self.is_stopped and not self.still_wins

    @property
    def still_wins(self) -> bool:
        """Whether its bid reaches the bid that wins now; an unknown bid does not."""
        return bool(self.bid) and self.bid >= self.min_bid
