"""The ends that the market carries out by itself: the fake of `market_end.Jobs`.

`tests/process/vast/api/test_jobs_contract.py` holds it to what `VastApi` does.
"""

from __future__ import annotations

import dataclasses

from components.vast.api.models import ScheduledEnd
from components.vast.errors import ApiFailed


class FakeJobs:
    """The market's jobs, and how it misbehaves."""

    def __init__(self, *jobs: ScheduledEnd) -> None:
        self.jobs = {one.job: one for one in jobs}
        self.calls: list[str] = []
        """`list`, `add`, `move` or `drop`, in order."""
        self.refuses: set[str] = set()
        """Those of them that are refused."""
        self.loses = False
        """Whether a job is accepted and not kept."""
        self._latest = max(self.jobs, default=0)

    def scheduled_ends(self) -> list[ScheduledEnd]:
        self._noted("list")
        return list(self.jobs.values())

    def schedule_end(self, instance_id: int, starts_at: float, until: float) -> None:
        self._noted("add")
        assert until > starts_at
        if self.loses or instance_id in {one.instance_id for one in self.jobs.values()}:
            return
        self._latest += 1
        self.jobs[self._latest] = ScheduledEnd(self._latest, instance_id, starts_at)

    def move_end(self, job: int, instance_id: int, starts_at: float, until: float) -> None:
        self._noted("move")
        assert until > starts_at
        if job not in self.jobs:
            raise ApiFailed(f"there is no job {job}")
        assert self.jobs[job].instance_id == instance_id
        if not self.loses:
            self.jobs[job] = dataclasses.replace(self.jobs[job], starts_at=starts_at)

    def drop_end(self, job: int) -> None:
        self._noted("drop")
        self.jobs.pop(job, None)

    def _noted(self, call: str) -> None:
        self.calls.append(call)
        if call in self.refuses:
            raise ApiFailed(f"Vast.ai's API refused {call}")
