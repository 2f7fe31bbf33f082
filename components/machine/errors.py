"""What a remote computer can be at fault for, whoever rents it."""

from __future__ import annotations

from components.core.errors import HostError


class HostUnfit(HostError):
    """The running machine is not what was rented."""
