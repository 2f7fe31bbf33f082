"""Calls that the market makes by itself: `commands/schedule_job`, of which nothing is documented.

Measured in 2026 on the real service: a job that DELETEs an instance each hour is carried out. It
runs at minute 0, from the hour on that *contains* its start, which is up to an hour before it. Here
nothing but an hourly DELETE of an instance is carried out; other jobs are kept and listed.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from emulator import contracts
from emulator.contract_types import Contract, Phase, Step

HOUR = 3600.0
KIND = "scheduled_job"
FREQUENCIES = ("HOURLY", "DAILY", "WEEKLY")

_log = logging.getLogger(__name__)
_DESTROYS = re.compile(r"/api/v0/instances/(\d+)/?")


@dataclass(frozen=True)
class ScheduledEnd:
    """A contract that a job destroys, and when; emulated seconds since 1970."""

    job: int
    contract: int
    at: float


def kept(body: dict[str, Any], *, wall_clock: float, now: float, early: bool) -> dict[str, Any]:
    """Return a job as it is stored.

    Its times are the client's, whose clock emulated time may have run ahead of: it is carried out
    as many emulated seconds from `now` on as the client counts from `wall_clock` on.
    """
    return {"body": body, "sent": wall_clock, "ahead": now - wall_clock, "early": early}


def end_of(number: int, job: dict[str, Any]) -> ScheduledEnd | None:
    """Return what a job destroys and when it does so first; None if that never happens."""
    body = job["body"]
    destroys = _DESTROYS.fullmatch(str(body["api_endpoint"]))
    if not destroys or body["request_method"] != "DELETE" or body["frequency"] != "HOURLY":
        return None
    next_full = (job["sent"] // HOUR + 1) * HOUR
    containing = body["start_time"] // HOUR * HOUR
    first = next_full if job["early"] else max(next_full, containing)
    if first > body["end_time"]:
        return None
    return ScheduledEnd(number, int(destroys[1]), first + job["ahead"])


def ends_until(jobs: Iterable[tuple[int, dict[str, Any]]], now: float) -> dict[int, ScheduledEnd]:
    """Return what jobs destroy up to `now`, by contract; the first job of each counts."""
    ends = [end_of(*one) for one in jobs]
    due = [one for one in ends if one is not None and one.at <= now]
    return {one.contract: one for one in sorted(due, key=lambda one: -one.at)}


def carry(contract: Contract, now: float, end: ScheduledEnd | None) -> Step:
    """Carry a contract to `now`; one that a scheduled job destroys on the way, at that moment."""
    if end is None or contract.phase is Phase.DESTROYING:
        return contracts.advance(contract, now)
    _log.info("contract %s: destroyed by scheduled job %s", contract.id, end.job)
    at = max(end.at, contract.charged_until)
    until = contracts.advance(contract, at)
    after = contracts.advance(contracts.destroy(until.contract, at), now)
    return Step(
        after.contract,
        (*until.effects, *after.effects),
        (*until.charges, *after.charges),
    )


def row(number: int, job: dict[str, Any]) -> dict[str, Any]:
    """Return a job as the list shows it."""
    return {"id": number, "min_of_the_hour": 0, **job["body"]}
