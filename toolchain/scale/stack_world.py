"""A stack as the loop sees it: its settings, its state, the market's list and the ledger."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any

from components.core.keys import scope_of
from components.resources.context import Context
from components.scaling.running import Extras, contracts_in, record_name, recorded
from components.settings import Settings, parse
from components.vast.api.models import Charge, Instance
from components.vast.charges import compare, total
from components.vast.labels import stack_prefix
from components.vast.market.ranking import HOURS_A_MONTH
from toolchain import stacks
from toolchain.configuration import PREFIX
from toolchain.project import Project
from toolchain.scale.automation import bring_up
from toolchain.scale.load_reader import AskOverHttps, Served, read
from toolchain.scale.loop import Stack
from toolchain.scale.situation import DAY, HOUR, Bill, Limits, Reading, ScalingRefused
from toolchain.stacks import Stacks

RECORD = "dynamic/scaling:Scale"
"""End of the type of the resource with the number that runs."""

READ = (
    "maxDollarsPerHour",
    "maxDollarsPerHourTotal",
    "maxDollarsPerMonth",
    "rentBudgetDollars",
    "replicas",
    "replicasMax",
)
"""Settings that the loop reads, none of which can be a secret."""


@dataclasses.dataclass(frozen=True)
class StackWorld:
    """`World` of a real stack, on the emulator or on the account."""

    stacks: Stacks
    project: Project
    project_name: str
    name: str
    """Of the stack."""
    dollars_per_day: float
    context: Context

    def limits(self) -> Limits:
        """Read what the loop may never leave; settings may have changed meanwhile.

        Raises:
            ScalingRefused: if they are no limits.
            ConfigurationError: if a setting is none.
        """
        return limits_of(self._settings(), self.dollars_per_day)

    def stack(self) -> Stack:
        """See `World`."""
        settings = self._settings()
        outputs = {
            str(one["urn"]): dict(one.get("outputs") or {})
            for one in stacks.resources(self.stacks, self.name)
        }
        endpoint = endpoint_in(outputs)
        now = self.context.clock.epoch()
        market = self.context.market(patient=False)
        contracts = market.instances()
        charges = market.charges(now // DAY * DAY, now)
        mine = of_stack(contracts, self.project_name, self.name)
        extras = recorded(outputs, endpoint)
        ids = contracts_in(outputs, endpoint)
        spent = spent_today(charges, mine, self.project_name, self.name, now)
        return Stack(
            limits=limits_of(settings, self.dollars_per_day),
            extras=extras,
            contracts=ids,
            prices={one.id: one.dollars_per_hour for one in mine},
            bill=bill(settings, mine, {ids.get(index, 0) for index in extras.leases}, spent),
        )

    def reading(self) -> Reading:
        """See `World`."""
        outputs = stacks.secret_outputs(self.stacks, self.name)
        served = Served.of(outputs, scope_of(self.project_name, self.name))
        clock = self.context.clock
        return read(served, AskOverHttps(clock), clock)

    def order(self, extras: Extras) -> None:
        """See `World`."""
        bring_up(self.stacks, self.name, extras, most=self._settings().most_replicas)

    def _settings(self) -> Settings:
        configured = self.project.settings(self.name)
        known = {
            key: configured[f"{PREFIX}{key}"] for key in READ if f"{PREFIX}{key}" in configured
        }
        return parse({key: str(value) for key, value in known.items()})


def limits_of(settings: Settings, dollars_per_day: float) -> Limits:
    """Give the limits as settings have them, and refuse what are none.

    Raises:
        ScalingRefused: one sentence.
    """
    limits = Limits(
        floor=settings.replicas,
        ceiling=settings.replicas_max,
        dollars_per_day=dollars_per_day,
        dollars_per_hour=settings.max_dollars_per_hour_total,
    )
    limits.check()
    return limits


def endpoint_in(outputs: Mapping[str, Mapping[str, Any]]) -> str:
    """Find the endpoint whose number may change.

    Raises:
        ScalingRefused: if there is none yet, or more than one.
    """
    kinds = [urn.rpartition("::") for urn in outputs]
    names = sorted(last for kind, _, last in kinds if kind.endswith(RECORD))
    if not names:
        raise ScalingRefused(
            "the stack's state has no record of how many replicas run: run `pulumi up` once with "
            "replicasMax"
        )
    if len(names) > 1:
        raise ScalingRefused(
            f"several endpoints of this stack may scale ({', '.join(names)}), and the loop reads "
            "the outputs of one: put the others into stacks of their own"
        )
    return names[0].removesuffix(record_name(""))


def of_stack(contracts: Iterable[Instance], project: str, stack: str) -> list[Instance]:
    """Choose the contracts under a stack's label."""
    prefix = stack_prefix(project, stack)
    return [one for one in contracts if one.label.startswith(prefix)]


def bill(
    settings: Settings, contracts: Iterable[Instance], extras: Iterable[int], spent: float
) -> Bill:
    """Give what a stack costs; `extras` are contracts of replicas above the floor."""
    above = set(extras)
    return Bill(
        spent_today=spent,
        others_per_hour=sum(one.dollars_per_hour for one in contracts if one.id not in above),
        another_per_hour=min(
            settings.max_dollars_per_hour, settings.max_dollars_per_month / HOURS_A_MONTH
        ),
        finding=settings.rent_budget_dollars,
    )


def spent_today(
    charges: Iterable[Charge], contracts: Iterable[Instance], project: str, stack: str, now: float
) -> float:
    """Dollars since midnight UTC: the ledger, and what it does not have yet.

    The ledger may lag behind. So each contract that exists is counted at its price from the end of
    its last charge on, or from its start.
    """
    midnight = now // DAY * DAY
    today = dt.datetime.fromtimestamp(midnight, dt.UTC).date()
    known = list(charges)
    charged, _ = total(
        line for line in compare(known, {}, project, stack, midnight) if line.day == today
    )
    until: dict[str, float] = {}
    for charge in known:
        if charge.kind in {"gpu", "disk"}:
            until[charge.source] = max(until.get(charge.source, 0.0), charge.until)
    missing = sum(
        max(0.0, now - max(midnight, until.get(f"instance-{one.id}", one.started_at)))
        * one.dollars_per_hour
        / HOUR
        for one in contracts
    )
    return charged + missing
