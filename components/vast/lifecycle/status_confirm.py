"""Confirm a status that may be momentary, before a serving machine is given up for it.

`actual_status` lags. A host that misses a heartbeat is `unknown`, and a host that reboots is
`exited` for a while (vast-api reference, 4.4). The intended state of an outbid machine is ahead by
a tick (marketplace-facts, 1). Replacing a machine costs its whole download; looking again costs a
minute.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from components.core.clock import Clock
from components.core.progress import Progress, duration
from components.machine.tcp_probe import ProbeResult
from components.vast.contract_state import MarketState

if TYPE_CHECKING:
    from components.vast.api.instances_api import InstancesApi
    from components.vast.api.models import Instance

UNCONFIRMED = {"exited", "offline", "unknown"}
"""Statuses that a machine which is to run may have for a moment."""

CONFIRM_SECONDS = 60.0
"""Seconds for which an unconfirmed status has to last."""

POLL = 5.0


def confirm_status(
    api: InstancesApi,
    clock: Clock,
    progress: Progress,
    found: Instance,
    reach: Callable[[], ProbeResult],
) -> Instance | None:
    """Return the instance `found` once its status is beyond doubt; None if it ended meanwhile.

    `reach` tries the served port. An open port means that the machine runs. An interruptible
    machine counts as stopped when a second look finds it stopped too.

    Raises:
        StackError: of the client's kinds.
    """
    deadline = clock.monotonic() + CONFIRM_SECONDS
    seen: Instance | None = found
    was_stopped = False
    while seen is not None:
        is_stopped = MarketState.of(seen).is_stopped
        settled = is_stopped and was_stopped and seen.actual_status != "running"
        if settled or not _is_unconfirmed(seen):
            return seen
        if seen.intended_status != "stopped" and reach() == "open":
            progress.say(
                f"instance {seen.id} is reported as {seen.actual_status}, but its served port can "
                "be reached: it counts as running"
            )
            return dataclasses.replace(seen, actual_status="running")
        if clock.monotonic() >= deadline:
            return seen
        was_stopped = is_stopped
        progress.waiting(
            f"instance {seen.id} is reported as {_said_of(seen)}, which may be momentary: "
            f"looking again for {duration(deadline - clock.monotonic())}"
        )
        clock.sleep(POLL)
        seen = api.instance(found.id)
    return seen


def confirmed_stopped(
    api: InstancesApi, clock: Clock, progress: Progress, mine: Iterable[Instance]
) -> list[Instance]:
    """Return those of `mine` that are interruptible and stopped, each after a second look.

    Raises:
        StackError: of the client's kinds.
    """
    suspects = [one for one in mine if _may_be_stopped(MarketState.of(one))]
    looked_at = [confirm_status(api, clock, progress, one, lambda: "timed out") for one in suspects]
    return [one for one in looked_at if one is not None and MarketState.of(one).is_stopped]


def _is_unconfirmed(seen: Instance) -> bool:
    if _may_be_stopped(MarketState.of(seen)):
        return True
    return seen.actual_status in UNCONFIRMED and seen.intended_status != "stopped"


def _may_be_stopped(state: MarketState) -> bool:
    return state.is_stopped or state.is_stopping


def _said_of(seen: Instance) -> str:
    if seen.intended_status == "stopped":
        return f"{seen.actual_status or 'queued'} and to be stopped"
    return seen.actual_status or "queued"
