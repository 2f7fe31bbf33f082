"""Who else ends a machine that was rented."""

from __future__ import annotations

from typing import Protocol


class Guard(Protocol):
    """Who else is to end a machine that was rented and that nobody may come back for."""

    def rented(self, instance_id: int) -> None:
        """See to it; what this raises has the machine given back."""

    def ended(self, instance_id: int) -> None:
        """The machine was given back. Raises nothing."""
