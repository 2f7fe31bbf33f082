"""The market's own end of a machine: a call that Vast makes by itself, without host or user.

`time_to_live.sh` runs on the host, whose owner is paid by the hour and can keep it from ending the
machine. So the market can be asked to destroy the contract as well, a moment after that end. Vast's
clients have such jobs, its documentation does not name them, and nobody has tried one with this
project. In 2026 an hourly job ran at minute 0, and first in the hour that *contains* its start.
That is up to an hour before the start, so an hour is added.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from components.core.errors import StackError
from components.core.progress import Progress
from components.vast.errors import MarketEndRefused
from components.vast.lifecycle.auto_shutdown import AutoShutdown, moment

if TYPE_CHECKING:
    from components.vast.api.models import ScheduledEnd

AFTER = 3600.0
"""Seconds from a machine's own end to the start of the market's job."""

LASTS = 48 * 3600.0
"""Seconds for which the market tries, each hour; it forgets the job then by itself."""

HOUR = 3600

WITHOUT = "the next `pulumi up` tries again; `pulumi config rm marketEnd` to do without it"


@dataclasses.dataclass(frozen=True)
class MarketJob:
    """The market's own end of a machine."""

    number: int = 0
    """0 without one."""
    starts_at: float = 0.0
    """Seconds since 1970; 0 without one."""


NONE = MarketJob()
"""Of a machine that the market does not end."""


class Jobs(Protocol):
    """The calls of `VastApi` that this makes."""

    def scheduled_ends(self) -> list[ScheduledEnd]:
        """See `VastApi.scheduled_ends`."""

    def schedule_end(self, instance_id: int, starts_at: float, until: float) -> None:
        """See `VastApi.schedule_end`."""

    def move_end(self, job: int, instance_id: int, starts_at: float, until: float) -> None:
        """See `VastApi.move_end`."""

    def drop_end(self, job: int) -> None:
        """See `VastApi.drop_end`."""


def start_for(ends_at: float) -> float:
    """When the market's job starts for a machine that ends itself at `ends_at`; 0 for never."""
    return math.ceil(ends_at) + AFTER if ends_at else 0.0


def wanted(leash: AutoShutdown, ends_at: float) -> float:
    """When the market's job of a machine has to start, in seconds since 1970; 0 for no job."""
    return start_for(ends_at) if leash.market_end else 0.0


class MarketEnd:
    """Gives the market the end of one machine, moves it, takes it away."""

    def __init__(self, jobs: Jobs, progress: Progress, instance_id: int) -> None:
        """Act on `jobs` for `instance_id`, speak through `progress`."""
        self._jobs = jobs
        self._progress = progress
        self._instance_id = instance_id

    def look(self) -> MarketJob:
        """Give what the market has.

        Raises:
            KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if it does not say.
        """
        found = self._listed()
        return _job(found[0]) if found else NONE

    def arm(self, starts_at: float) -> MarketJob:
        """Have the machine destroyed from `starts_at` on, and give what was read back.

        Raises:
            MarketEndRefused: if the market does not take it, or does not show it.
        """
        is_new = False
        try:
            listed = self._listed()
            is_new = not listed
            found = self._armed(listed, starts_at)
        except StackError as error:
            if is_new:
                self._tidy_up()
            if isinstance(error, MarketEndRefused):
                raise
            raise MarketEndRefused(
                f"the market does not take the end of instance {self._instance_id} (marketEnd): "
                f"{error}; {WITHOUT}"
            ) from None
        self._progress.say(
            f"the market destroys instance {self._instance_id} at {moment(_first_run(starts_at))}, "
            "should it still be there (marketEnd, which nobody has tried on the real market)"
        )
        return _job(found)

    def disarm(self) -> MarketJob:
        """Take away whatever would destroy the machine.

        Raises:
            MarketEndRefused: if the market does not let it go.
        """
        try:
            for one in self._listed():
                self._jobs.drop_end(one.job)
                self._progress.say(
                    f"the market does not destroy instance {self._instance_id} at "
                    f"{moment(_first_run(one.starts_at))} any more (marketEnd)"
                )
        except StackError as error:
            raise MarketEndRefused(
                f"the market's end of instance {self._instance_id} (marketEnd) is not taken away: "
                f"{error}"
            ) from None
        return NONE

    def _tidy_up(self) -> None:
        """Leave no end behind that no state will know of, if the market lets it go."""
        with contextlib.suppress(StackError):
            for one in self._listed():
                self._jobs.drop_end(one.job)

    def _armed(self, listed: list[ScheduledEnd], starts_at: float) -> ScheduledEnd:
        until = starts_at + LASTS
        if listed:
            listed, others = listed[:1], listed[1:]
            for one in others:
                self._jobs.drop_end(one.job)
        else:
            self._jobs.schedule_end(self._instance_id, starts_at, until)
            listed = self._listed()
        if listed and not _is_at(listed, starts_at):
            self._jobs.move_end(listed[0].job, self._instance_id, starts_at, until)
            listed = self._listed()
        if not _is_at(listed, starts_at):
            shows = f"one for {moment(listed[0].starts_at)}" if listed else "none"
            raise MarketEndRefused(
                f"the market took the end of instance {self._instance_id} for "
                f"{moment(starts_at)} (marketEnd) and shows {shows}; {WITHOUT}"
            )
        return listed[0]

    def _listed(self) -> list[ScheduledEnd]:
        ends = self._jobs.scheduled_ends()
        return [one for one in ends if one.instance_id == self._instance_id]


class FirstEnd:
    """`rental.Guard`: the market's end of a machine that has not started yet, and may never.

    Before its start a machine has no watch, and the process that rents it may die. The exact end is
    scheduled once the machine has started.
    """

    def __init__(self, jobs: Jobs, progress: Progress, starts_at: Callable[[], float]) -> None:
        """Give each machine the end that `starts_at` says when it is rented."""
        self._jobs = jobs
        self._progress = progress
        self._starts_at = starts_at

    def rented(self, instance_id: int) -> None:
        """Give a machine its first end.

        Raises:
            MarketEndRefused: if the market does not take it, or does not show it.
        """
        MarketEnd(self._jobs, self._progress, instance_id).arm(self._starts_at())

    def ended(self, instance_id: int) -> None:
        """Remove the job. A job that is left destroys nothing, and the market forgets it."""
        try:
            MarketEnd(self._jobs, self._progress, instance_id).disarm()
        except StackError as error:
            self._progress.say(str(error))


def _is_at(listed: list[ScheduledEnd], starts_at: float) -> bool:
    return len(listed) == 1 and abs(listed[0].starts_at - starts_at) < 1


def _first_run(starts_at: float) -> float:
    return starts_at // HOUR * HOUR


def _job(found: ScheduledEnd) -> MarketJob:
    return MarketJob(found.job, found.starts_at)
