"""A status that may be a moment's is looked at again, before a serving machine is given up for it.

`actual_status` lags: a host that misses a heartbeat is `unknown`, one that reboots is `exited` for
a while (vast-api reference, 4.4). Replacing a machine costs its whole download; looking again costs
a minute.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol

from components.clock import Clock
from components.progress import Progress, duration
from components.vast.reach import Reach
from components.vast.wire import Instance

DOUBTFUL = {"exited", "offline", "unknown"}
"""Statuses that a machine which is to run may have for a moment."""

PATIENCE = 60.0
"""Seconds for which a doubtful status has to last."""

POLL = 5.0


class Contracts(Protocol):
    """The call of `VastApi` that looking again makes."""

    def instance(self, instance_id: int) -> Instance | None:
        """See `VastApi.instance`."""


def second_look(
    contracts: Contracts,
    clock: Clock,
    progress: Progress,
    found: Instance,
    reach: Callable[[], Reach],
) -> Instance | None:
    """Return `found` as it is once its status is beyond doubt; None if it went meanwhile.

    `reach` tries the port that is served. One that is open belongs to a machine that runs. An
    interruptible machine that does not run was taken away, which nothing mends by waiting.

    Raises:
        StackError: of the door's kinds.
    """
    deadline = clock.monotonic() + PATIENCE
    seen: Instance | None = found
    while seen is not None and _is_doubtful(seen):
        if reach() == "open":
            progress.say(
                f"instance {seen.id} is said to be {seen.actual_status}, but what it serves can "
                "be reached: it counts as running"
            )
            return dataclasses.replace(seen, actual_status="running")
        if clock.monotonic() >= deadline or (seen.interruptible and seen.actual_status == "exited"):
            return seen
        progress.waiting(
            f"instance {seen.id} is said to be {seen.actual_status}, which may be for a moment: "
            f"looking again for {duration(deadline - clock.monotonic())}"
        )
        clock.sleep(POLL)
        seen = contracts.instance(found.id)
    return seen


def _is_doubtful(seen: Instance) -> bool:
    return seen.actual_status in DOUBTFUL and seen.intended_status != "stopped"
