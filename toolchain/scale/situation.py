"""What the loop knows when it decides, and the rules that it decides by. Pure."""

from __future__ import annotations

import dataclasses

from pydantic import BaseModel, ConfigDict

from components.core.errors import ConfigurationError
from components.scaling.running import LEASE_HOURS

HOUR = 3600.0
DAY = 86400.0


class ScalingRefused(ConfigurationError):
    """The loop will not run with these limits.

    Cost: nothing was rented or changed.
    Remedy: give the budget or the setting that the message names.
    """


class Reading(BaseModel):
    """The load of the whole endpoint at one moment."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    at: float
    """Seconds since 1970."""
    waiting: float
    """Requests that nobody answers yet: in the queues of the router and of vLLM."""
    running: float
    """Requests that are being answered."""
    serving: int
    """Replicas that the router sends requests to."""


@dataclasses.dataclass(frozen=True)
class Rules:
    """When the number changes. Seconds, where nothing else is said."""

    sessions: int = 64
    """Requests at once that one replica answers well. More of them count as waiting."""
    waiting: float = 4.0
    """Requests that may wait for long without another replica."""
    up_after: float = 600.0
    """How long more than that must have waited."""
    down_after: float = 3600.0
    """How long one replica less must have been enough."""
    share: float = 0.7
    """Of the sessions of the others, which the whole load must fit into before one goes."""
    longest_gap: float = 1200.0
    """Between two readings that are taken for one stretch of time."""
    extend_below: float = 2 * HOUR
    """A lease with less left is extended."""
    last_minutes: float = 1800.0
    """A replica whose lease has less left, and cannot be extended, is taken out in good order."""
    tail: float = HOUR
    """How much longer than its lease a machine may be billed: its boot, which the lease does not
    count, its drain, and the minutes that Vast bills afterwards."""
    first_pause: float = 1800.0
    """After a step that failed; twice as long after the next one."""
    longest_pause: float = 4 * HOUR


@dataclasses.dataclass(frozen=True)
class Limits:
    """What the loop may never leave."""

    floor: int
    """The setting `replicas`."""
    ceiling: int
    """The setting `replicasMax`."""
    dollars_per_day: float
    """For a day of UTC, everything of the stack together."""
    dollars_per_hour: float = 0.0
    """The setting `maxDollarsPerHourTotal`; 0 for none."""

    def check(self) -> None:
        """Refuse limits that are none.

        Raises:
            ScalingRefused: one sentence.
        """
        if not self.ceiling:
            raise ScalingRefused(
                "the setting replicasMax is 0, so there is no ceiling, and the loop does not run "
                "without one (`pulumi config set replicasMax 4`)"
            )
        if self.ceiling <= self.floor:
            raise ScalingRefused(
                f"replicasMax is {self.ceiling} and replicas is {self.floor}, so there is nothing "
                "to decide (`pulumi config set replicasMax`, or another number of replicas)"
            )
        if not 0 < self.dollars_per_day < float("inf"):
            raise ScalingRefused(
                "there is no budget, and the loop does not run without one: BUDGET=300/day is "
                "300 dollars for a day of UTC"
            )


@dataclasses.dataclass(frozen=True)
class Extra:
    """A replica above the floor."""

    index: int
    until: float
    """When its lease is over, in seconds since 1970."""
    dollars_per_hour: float = 0.0
    is_there: bool = True
    """Whether the market lists its contract."""


@dataclasses.dataclass(frozen=True)
class Bill:
    """What the stack costs; money in $."""

    spent_today: float
    """Since midnight UTC: the ledger, and what it does not have yet of machines that are there."""
    others_per_hour: float
    """$/h of all that is billed under the stack's label, but the replicas above the floor."""
    another_per_hour: float
    """The most that one more machine may cost an hour."""
    finding: float
    """The most that finding it may cost (`rentBudgetDollars`)."""


@dataclasses.dataclass(frozen=True)
class Situation:
    """Everything that a decision depends on."""

    now: float
    """Seconds since 1970."""
    limits: Limits
    bill: Bill
    extras: tuple[Extra, ...]
    """Those that the state records, by index."""
    readings: tuple[Reading, ...]
    """Oldest first."""
    changed_at: float = 0.0
    """When the number changed last; readings from before say nothing about this number."""
    failed_at: float = 0.0
    failures: int = 0
    """How many steps up have failed in a row, and when the last one did."""

    @property
    def there(self) -> tuple[Extra, ...]:
        """The extras whose machines exist."""
        return tuple(extra for extra in self.extras if extra.is_there)

    @property
    def replicas(self) -> int:
        """How many run."""
        return self.limits.floor + len(self.there)


def lease_seconds() -> float:
    """How long a new or extended lease is."""
    return LEASE_HOURS * HOUR
