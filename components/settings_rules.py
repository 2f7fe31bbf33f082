"""What settings may not be together, a sentence each. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from components.machine.addresses import is_loopback
from components.vast.market.ranking import HOURS_A_MONTH

if TYPE_CHECKING:
    from components.settings import Settings

REPLACED_FIRST = (
    "whenContractEnds is replace, for which a machine goes before another one is rented, and "
    "replacement is create-first: let whenContractEnds warn, and raise machineGeneration when it "
    "does (`pulumi config set whenContractEnds warn`)"
)

SHOWN_IN_CLEAR = (
    "clientCertificates is on and tls is off: without TLS nobody shows a certificate "
    "(`pulumi config set tls true`, or `pulumi config set clientCertificates false`)"
)

NO_END = (
    "marketEnd is true and timeToLiveHours is 0, so there is no end for the market to know: set "
    "timeToLiveHours (`pulumi config set timeToLiveHours 12`), or do without "
    "marketEnd (`pulumi config rm marketEnd`)"
)


def conflict(settings: Settings) -> str:
    """Say which settings cannot stand together; empty if all can."""
    rules = (*_OF_ANY, *_OF_SEVERAL) if settings.is_fleet else _OF_ANY
    return next(filter(None, (rule(settings) for rule in rules)), "")


def _replaced_first(settings: Settings) -> str:
    is_so = settings.replacement == "create-first" and settings.when_contract_ends == "replace"
    return REPLACED_FIRST if is_so else ""


def _shown_in_clear(settings: Settings) -> str:
    return SHOWN_IN_CLEAR if settings.client_certificates and not settings.tls else ""


def _no_end(settings: Settings) -> str:
    return NO_END if settings.market_end and not settings.time_to_live_hours else ""


def _ceiling_below_floor(settings: Settings) -> str:
    if not settings.replicas_max or settings.replicas_max >= settings.replicas:
        return ""
    return (
        f"replicasMax is {settings.replicas_max} and replicas is {settings.replicas}: the most "
        "cannot be less than what always runs (`pulumi config set replicasMax "
        f"{settings.replicas}`, or `pulumi config rm replicasMax` to leave the number alone)"
    )


def _several_in_clear(settings: Settings) -> str:
    if settings.tls:
        return ""
    return (
        f"{_how_many(settings)} and tls is off: the router tells its machines from strangers by "
        f"their certificates (`pulumi config set tls true`, or {_one(settings)})"
    )


def _several_adopted(settings: Settings) -> str:
    if not settings.adopt:
        return ""
    return (
        f"{_how_many(settings)} and adopt names the one instance {settings.adopt}: take it over "
        f"with one machine first, and have more afterwards ({_one(settings)}, or `pulumi config "
        "rm adopt`)"
    )


def _several_idle(settings: Settings) -> str:
    if not settings.idle_minutes or settings.idle_replica == "end":
        return ""
    return (
        f"{_how_many(settings)} and idleMinutes is {settings.idle_minutes:g}: one idle machine of "
        "several would end itself and be rented again by the next `up` (`pulumi config set "
        "idleMinutes 0`, or `pulumi config set idleReplica end` if that is meant)"
    )


def _several_too_dear(settings: Settings) -> str:
    count, total = settings.most_replicas, settings.max_dollars_per_hour_total
    each = min(settings.max_dollars_per_hour, settings.max_dollars_per_month / HOURS_A_MONTH)
    if not total or round(count * each, 6) <= total:
        return ""
    return (
        f"maxDollarsPerHourTotal is ${total:.2f}/h, and {count} machines at up to ${each:.2f}/h "
        f"each may cost ${count * each:.2f}/h: let one cost at most {_cents_below(total / count)} "
        f"(`pulumi config set maxDollarsPerHour {_cents_below(total / count)}`), or raise the total"
    )


def _several_unreachable(settings: Settings) -> str:
    _, _, host = settings.router_host.partition("@")
    if not host or is_loopback(host) or not is_loopback(settings.router_address):
        return ""
    return (
        f"the router runs on {settings.router_host} and routerAddress is "
        f"{settings.router_address}, which each client takes for itself: set the address that "
        "clients call (`pulumi config set routerAddress <IP address>`)"
    )


def _how_many(settings: Settings) -> str:
    if settings.replicas > 1:
        return f"replicas is {settings.replicas}"
    return f"replicasMax is {settings.replicas_max}"


def _one(settings: Settings) -> str:
    """The command by which one machine is all."""
    if settings.replicas > 1:
        return "`pulumi config set replicas 1`"
    return "`pulumi config rm replicasMax`"


def _cents_below(dollars: float) -> str:
    return f"{math.floor(round(dollars * 100, 4)) / 100:.2f}"


_Rule = Callable[["Settings"], str]

_OF_ANY: tuple[_Rule, ...] = (
    _replaced_first,
    _shown_in_clear,
    _no_end,
    _ceiling_below_floor,
)
"""Of an endpoint with any number of machines."""

_OF_SEVERAL: tuple[_Rule, ...] = (
    _several_in_clear,
    _several_adopted,
    _several_idle,
    _several_too_dear,
    _several_unreachable,
)
"""Of one that has, or may have, more than one machine."""
