"""A second party that ends a rented machine."""

from __future__ import annotations

from typing import Protocol


class Guard(Protocol):
    """A second party that ends a rented machine if this process does not return."""

    def rented(self, instance_id: int) -> None:
        """Arrange the end of a machine. If this raises, the machine is given back."""

    def ended(self, instance_id: int) -> None:
        """The machine was given back. Raises nothing."""
