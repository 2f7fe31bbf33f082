"""What a remote computer can be at fault for, whoever rents it."""

from __future__ import annotations

from components.core.errors import HostError


class HostUnfit(HostError):
    """The running machine is not what was rented.

    GPUs, CUDA, driver, disk, memory or link differ from the offer, or the machine's commands
    print nonsense.

    Cost: the minutes until the check; the machine is given back.
    Remedy: nothing: another machine is tried. If all fail, change `offerQuery` or raise
        `maxDollarsPerHour`.
    """
