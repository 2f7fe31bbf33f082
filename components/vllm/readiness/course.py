"""How one start of a server went, stage by stage, for people who look at it later. Pure.

A rehearsal runs beside the download, so it has a beginning and an end of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from components.vllm.readiness.boot_events import Stage

COURSES = frozenset({"running", "served", "ended", "skipped", "failed"})
"""Words of a host for a rehearsal that are believed; see `components/on_host/rehearse.sh`."""

RUNNING = "running"


@dataclasses.dataclass(frozen=True)
class Rehearsed:
    """A rehearsal, as the wait saw it. Seconds are after the wait began, but in `stages`."""

    course: str
    """One of `COURSES`."""
    began: float | None = None
    """None for one that was skipped, or was over at the first look."""
    ended: float | None = None
    """None where the wait ended first."""
    stages: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """By stage, the seconds after its own start at which its log reached it."""


@dataclasses.dataclass(frozen=True)
class Course:
    """One start of a server, from the pushed configuration to its last answer."""

    began_at: float
    """Seconds since 1970."""
    seconds: Mapping[str, float]
    """By stage in the order of time; a stage passed twice counts both times."""
    rehearsal: Rehearsed | None = None
    """None where the host said nothing of one."""
    failed_in: str = ""
    """The stage in which it failed; empty for a start that came up."""
    cause: str = ""
    """A word for why it failed."""


class RehearsalWatch:
    """Follows what a host says of its rehearsal."""

    def __init__(self, began: float) -> None:
        """Count from `began`, in seconds of the wait's clock."""
        self._zero = began
        self._seen: Rehearsed | None = None

    def look(self, now: float, course: str) -> None:
        """Take the word of one look at the host; another word than the known ones is none."""
        if course not in COURSES:
            return
        seen, passed = self._seen or Rehearsed(course), now - self._zero
        began, ended = seen.began, seen.ended
        if course == RUNNING:
            began, ended = (passed if began is None else began), None
        elif began is not None and ended is None:
            ended = passed
        self._seen = dataclasses.replace(seen, course=course, began=began, ended=ended)

    def seen(self, reached: Mapping[Stage, float | None]) -> Rehearsed | None:
        """Give what was seen of it, with the stages that its log `reached`."""
        if self._seen is None:
            return None
        stages = {
            stage.name.lower(): float(at) for stage, at in sorted(reached.items()) if at is not None
        }
        return dataclasses.replace(self._seen, stages=stages)
