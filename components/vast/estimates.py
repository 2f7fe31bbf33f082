"""What a machine was expected to cost, noted on this computer when it worked.

For `make cost` alone: a lost note makes an estimate unknown, and nothing else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.vast.api.locked_file import LockedJsonFile


ESTIMATES = "estimates.json"
"""Their file's name in the account's shared folder."""

MOST = 1000
"""Notes that are kept, the newest."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """As preview says it."""

    dollars_per_hour: float
    """GPU and disk."""
    traffic_dollars: float
    """For image and weights, once; 0 for a machine that had them when it was adopted."""
    rented_at: float | None = None
    """When that traffic began, seconds since 1970; None in notes of older releases."""


class Estimates:
    """Notes by the contract's name in the ledger, such as `instance-123`."""

    def __init__(self, file: LockedJsonFile) -> None:
        """Keep them in `file`."""
        self._file = file

    def note(self, instance_id: int, estimate: Estimate) -> None:
        """Write what a contract was expected to cost."""
        with self._file.lock() as content:
            notes = {**content.values, f"instance-{instance_id}": dataclasses.asdict(estimate)}
            content.values = dict(list(notes.items())[-MOST:])
            content.save()

    def known(self) -> Mapping[str, Estimate]:
        """All that was noted."""
        with self._file.lock() as content:
            return {name: Estimate(**note) for name, note in content.values.items()}
