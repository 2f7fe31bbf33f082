"""Gives files of tests to the workers of pytest-xdist, the long ones first.

A file stays on one worker, since its tests share a stack or a server. A worker is always one unit
ahead of itself, so behind a long unit goes a short one: a long one would wait there for nothing.
"""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

SECONDS: dict[str, float] = {}
"""What a file took, where that is long, with six workers on two cores: for the order alone."""

SHORT = 1.0
"""Seconds of a file that is not in the table."""

ENOUGH = 10.0
"""Seconds of work that a worker may have before it gets a short unit instead of a long one."""


class LongFirst(LoadFileScheduling):  # type: ignore[misc]
    """Deals out files by what they took."""

    def _assign_work_unit(self, node: WorkerController) -> None:
        busy = self._seconds_pending(node) > ENOUGH
        by_length = sorted(self.workqueue, key=seconds_of)
        self.workqueue.move_to_end(by_length[0 if busy else -1], last=False)
        super()._assign_work_unit(node)

    def _seconds_pending(self, node: WorkerController) -> float:
        assigned: dict[str, dict[str, bool]] = self.assigned_work.get(node, {})
        return sum(_pending_share(unit) * seconds_of(file) for file, unit in assigned.items())


def seconds_of(file: str) -> float:
    """What a file is expected to take."""
    return SECONDS.get(file, SHORT)


def _pending_share(unit: dict[str, bool]) -> float:
    return list(unit.values()).count(False) / len(unit)
