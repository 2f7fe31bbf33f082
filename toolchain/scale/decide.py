"""Whether the number of replicas changes, by one at most, and why. Pure.

The first reason that applies decides:

    1. a machine that the state records and the market does not list is rented again if the others
       cannot carry the load, and else taken out of the stack
    2. a lease that ends soon and cannot be extended, or leases that cost more than the budget
       allows: one replica less
    3. requests have waited for long: what does not serve is brought up, and if everything does, one
       replica more, if the budget and the ceiling allow it
    4. one replica less would have been enough for long: one replica less

Whatever is decided, the leases that need it are extended as far as the budget allows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from toolchain.scale.money import another, extended, fits
from toolchain.scale.situation import Extra, Reading, Rules, Situation


@dataclasses.dataclass(frozen=True)
class Decision:
    """What the loop does in a turn."""

    why: str
    """One sentence, without a full stop."""
    extras: tuple[int, ...]
    """Indices of the replicas above the floor that are to run."""
    extends: tuple[int, ...] = ()
    """Those of them whose leases are extended."""
    rents: int = 0
    """Index of the one that is rented; 0 for none."""
    ends: int = 0
    """Index of the one that goes; 0 for none."""
    repairs: bool = False
    """Whether `up` runs for replicas that are there and do not serve."""

    @property
    def acts(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.extends or self.rents or self.ends or self.repairs)


def decide(situation: Situation, rules: Rules) -> Decision:
    """Decide one turn; `situation.limits` have been checked."""
    for step in (_ended, _too_dear, _more, _less):
        decision = step(situation, rules)
        if decision is not None:
            return _with_leases(situation, rules, decision)
    return _with_leases(situation, rules, _stay(situation, _calm(situation, rules)))


def overload(reading: Reading, rules: Rules) -> float:
    """How many requests wait, those included that a replica answers beyond its sessions."""
    return reading.waiting + max(0.0, reading.running - rules.sessions * max(1, reading.serving))


def _ended(situation: Situation, rules: Rules) -> Decision | None:
    """Rent a replica again that has ended itself, or forget it."""
    gone = [extra.index for extra in situation.extras if not extra.is_there]
    if not gone:
        return None
    words = f"{_named(gone)} no machine any more"
    if all(map(_fits_into(situation.replicas, rules), _recent(situation, rules))):
        return _stay(situation, f"{words}, and the others carry the load", ends=gone[0])
    held = _why_not_more(situation, rules, gone[0])
    if held:
        return _stay(situation, f"{words}, and {held}", ends=gone[0])
    return _with(situation, gone[0], f"{words}, and the others cannot carry the load")


def _too_dear(situation: Situation, rules: Rules) -> Decision | None:
    """Take a replica out that the budget does not allow any longer."""
    there = situation.there
    if not there:
        return None
    last = there[-1]
    if not fits(situation, there, rules):
        return _without(
            situation, last.index, f"what runs costs more than the budget of {_budget(situation)}"
        )
    for extra in there:
        if extra.until - situation.now > rules.last_minutes:
            continue
        if not fits(situation, _replaced(there, extended(extra, situation.now)), rules):
            return _without(
                situation,
                extra.index,
                f"its lease ends within {rules.last_minutes / 60:g} minutes, and another one does "
                f"not fit into the budget of {_budget(situation)}",
            )
    return None


def _more(situation: Situation, rules: Rules) -> Decision | None:
    """Rent another replica where requests wait."""
    if not _have_waited(situation, rules):
        return None
    words = (
        f"more than {rules.waiting:g} requests have waited for {rules.up_after / 60:g} minutes "
        f"({overload(situation.readings[-1], rules):g} now)"
    )
    serving = max(one.serving for one in _recent(situation, rules))
    if serving < situation.replicas:
        words += f", and only {serving} of {situation.replicas} replicas serve"
        held = _paused(situation, rules)
        if held:
            return _stay(situation, f"{words}, but {held}")
        # What a failed step has left, or a host has lost.
        why = f"{words}: the others are brought up"
        return Decision(why, _indices(situation), repairs=True)
    index = _free_index(situation)
    held = _why_not_more(situation, rules, index)
    if held:
        return _stay(situation, f"{words}, but {held}")
    return _with(situation, index, words)


def _less(situation: Situation, rules: Rules) -> Decision | None:
    """Take out a replica that the others could have done without."""
    if not situation.there:
        return None
    rest = situation.replicas - 1
    recent = _since(situation.readings, situation.changed_at)
    if not _held(recent, situation.now, rules.down_after, rules, _fits_into(rest, rules)):
        return None
    window = _since(recent, situation.now - rules.down_after)
    most = max(one.running + one.waiting for one in window)
    return _without(
        situation,
        situation.there[-1].index,
        f"{rest} could have carried the load for {rules.down_after / 60:g} minutes (at most "
        f"{most:g} requests at once, and {rest} answer {rules.sessions * rest})",
    )


def _why_not_more(situation: Situation, rules: Rules, index: int) -> str:
    """Say why no replica is rented now; empty if one may be."""
    limits = situation.limits
    if not index:
        return f"{situation.replicas} is the ceiling (replicasMax)"
    paused = _paused(situation, rules)
    if paused:
        return paused
    kept = [extra for extra in situation.there if extra.index != index]
    wanted = [*_extended_where_due(situation, kept, rules), another(situation, index)]
    hourly = situation.bill.others_per_hour + sum(one.dollars_per_hour for one in wanted)
    if 0 < limits.dollars_per_hour < hourly:
        return (
            f"one more may cost ${hourly:.2f}/h together, and maxDollarsPerHourTotal is "
            f"{limits.dollars_per_hour:g}"
        )
    if not fits(situation, wanted, rules, situation.bill.finding):
        return f"one more does not fit into the budget of {_budget(situation)}"
    return ""


def _paused(situation: Situation, rules: Rules) -> str:
    """Say why nothing is tried now after a failure; empty if it may be."""
    pause = min(rules.longest_pause, rules.first_pause * 2 ** max(0, situation.failures - 1))
    left = situation.failed_at + pause - situation.now
    if not situation.failures or left <= 0:
        return ""
    return f"the last step failed, and the next try is in {left / 60:.0f} minutes"


def _with_leases(situation: Situation, rules: Rules, decision: Decision) -> Decision:
    """Add the leases that are extended, one after the other, as far as the budget allows."""
    kept = [extra for extra in situation.there if extra.index in decision.extras]
    fixed = [another(situation, decision.rents)] if decision.rents else []
    finding = situation.bill.finding if decision.rents else 0.0
    extends = []
    for extra in _due(situation, kept, rules):
        longer = _replaced(kept, extended(extra, situation.now))
        if fits(situation, [*longer, *fixed], rules, finding):
            kept = longer
            extends.append(extra.index)
    return dataclasses.replace(decision, extends=tuple(extends))


def _extended_where_due(situation: Situation, extras: Iterable[Extra], rules: Rules) -> list[Extra]:
    due = {extra.index for extra in _due(situation, extras, rules)}
    return [extended(one, situation.now) if one.index in due else one for one in extras]


def _due(situation: Situation, extras: Iterable[Extra], rules: Rules) -> list[Extra]:
    return [one for one in extras if one.until - situation.now < rules.extend_below]


def _have_waited(situation: Situation, rules: Rules) -> bool:
    recent = _since(situation.readings, situation.changed_at)
    return _held(
        recent,
        situation.now,
        rules.up_after,
        rules,
        lambda reading: overload(reading, rules) > rules.waiting,
    )


def _fits_into(replicas: int, rules: Rules) -> Callable[[Reading], bool]:
    """Whether so many replicas carry a load with room to spare."""
    room = rules.share * rules.sessions * replicas
    return lambda reading: reading.running + reading.waiting <= room


def _held(
    readings: tuple[Reading, ...],
    now: float,
    seconds: float,
    rules: Rules,
    holds: Callable[[Reading], bool],
) -> bool:
    """Whether something has held for so long, in readings that leave no long gap."""
    before = now
    for one in reversed(readings):
        if before - one.at > rules.longest_gap or not holds(one):
            return False
        if one.at <= now - seconds:
            return True
        before = one.at
    return False


def _since(readings: tuple[Reading, ...], moment: float) -> tuple[Reading, ...]:
    return tuple(one for one in readings if one.at >= moment)


def _recent(situation: Situation, rules: Rules) -> tuple[Reading, ...]:
    """Readings of the last minutes, this turn's among them."""
    return _since(situation.readings, situation.now - rules.up_after)


def _free_index(situation: Situation) -> int:
    """Give the lowest index above the floor that nothing runs with; 0 if there is none."""
    taken = {extra.index for extra in situation.there}
    limits = situation.limits
    return next((one for one in range(limits.floor, limits.ceiling) if one not in taken), 0)


def _replaced(extras: Iterable[Extra], by: Extra) -> list[Extra]:
    return [by if one.index == by.index else one for one in extras]


def _stay(situation: Situation, why: str, *, ends: int = 0) -> Decision:
    return Decision(why, _indices(situation), ends=ends)


def _with(situation: Situation, index: int, why: str) -> Decision:
    return Decision(why, tuple(sorted({*_indices(situation), index})), rents=index)


def _without(situation: Situation, index: int, why: str) -> Decision:
    kept = tuple(one for one in _indices(situation) if one != index)
    return Decision(why, kept, ends=index)


def _indices(situation: Situation) -> tuple[int, ...]:
    """Indices of those that run: what has no machine would be rented by any `up`."""
    return tuple(extra.index for extra in situation.there)


def _named(indices: list[int]) -> str:
    numbers = ", ".join(map(str, indices))
    return f"replica {numbers} has" if len(indices) == 1 else f"replicas {numbers} have"


def _calm(situation: Situation, rules: Rules) -> str:
    """Say why nothing changes where no rule applies."""
    if not situation.readings:
        return "the load is not known yet"
    last = situation.readings[-1]
    return (
        f"{last.running:g} requests are being answered and {overload(last, rules):g} wait, which "
        "asks for no change yet"
    )


def _budget(situation: Situation) -> str:
    return f"${situation.limits.dollars_per_day:g} a day"
