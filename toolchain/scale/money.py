"""What a stack is bound to cost today, and whether it may cost more. Pure.

A lease is money that is spent already: if everybody who could end it dies, the machine lives as
long as that. So what is compared with the budget is what was spent, and all that cannot be taken
back: the replicas of the floor until midnight, and each lease until its end.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from toolchain.scale.situation import DAY, HOUR, Extra, Rules, Situation, lease_seconds


def bound_today(situation: Situation, extras: Iterable[Extra], rules: Rules) -> float:
    """Dollars that today costs if these extras run until their leases end, and not longer."""
    left = _midnight(situation.now) - situation.now
    bill = situation.bill
    return (
        bill.spent_today
        + bill.others_per_hour * left / HOUR
        + sum(
            one.dollars_per_hour * min(_billed_for(one, situation.now, rules), left) / HOUR
            for one in extras
        )
    )


def bound_tomorrow(situation: Situation, extras: Iterable[Extra], rules: Rules) -> float:
    """The same of tomorrow, of which nothing is spent yet."""
    left = _midnight(situation.now) - situation.now
    return situation.bill.others_per_hour * DAY / HOUR + sum(
        one.dollars_per_hour * max(0.0, _billed_for(one, situation.now, rules) - left) / HOUR
        for one in extras
    )


def fits(situation: Situation, extras: Iterable[Extra], rules: Rules, finding: float = 0.0) -> bool:
    """Whether the budget allows these extras; `finding` is what renting costs besides, $."""
    listed = list(extras)
    budget = situation.limits.dollars_per_day
    today = bound_today(situation, listed, rules) + finding
    return today <= budget and bound_tomorrow(situation, listed, rules) <= budget


def extended(extra: Extra, now: float) -> Extra:
    """Give the extra with a lease as long as a new one; none gets shorter."""
    return dataclasses.replace(extra, until=max(extra.until, now + lease_seconds()))


def another(situation: Situation, index: int) -> Extra:
    """Give an extra that is rented now, at the highest price that it may have."""
    until = situation.now + lease_seconds()
    return Extra(index, until, situation.bill.another_per_hour)


def _billed_for(extra: Extra, now: float, rules: Rules) -> float:
    """Seconds that an extra is billed for from now on, if nobody ends it before its time."""
    return max(0.0, extra.until - now) + rules.tail


def _midnight(now: float) -> float:
    """When the day of UTC ends."""
    return now // DAY * DAY + DAY
