"""Joins Pulumi's history with the market's ledger: which command rented and ended what. Pure.

Neither names the other. A contract that began or ended while a command ran, or a moment after it,
is that command's. All others came without one: a machine ends itself, its host or the market ends
it, somebody rents by hand.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from components.core.display import shown
from components.core.plain_numbers import is_count
from components.vast.api.models import Charge
from components.vast.labels import is_labelled, stack_prefix
from toolchain.configuration import PREFIX
from toolchain.day_two.answer import in_utc
from toolchain.day_two.history.model import Event, Outcome

BEFORE = 60.0
"""Seconds by which the market's clock may be behind the one of the command's computer."""

RENT_AFTER = 120.0
"""Seconds after a command's end in which a contract of its may begin, by the market's clock."""

BILLED_AFTER = 600.0
"""The same for an end: a destroyed machine is billed for up to five minutes more."""

TOGETHER = 120.0
"""Seconds within which contracts that come or go without a command are one event."""

KINDS = {"update": "up"}
"""Pulumi's words for its commands, where they differ."""

OUTCOMES: Mapping[str, Outcome] = {
    "succeeded": "succeeded",
    "failed": "failed",
    "in-progress": "under way",
}

RENTS = ("create", "replace")
ENDS = ("delete", "replace")
"""Beginnings of Pulumi's words for changes by which a contract comes or goes."""

LATEST = 4_102_444_800.0
"""The first of January 2100; no update is later."""


@dataclasses.dataclass(frozen=True)
class Span:
    """A contract's life, as the ledger has it; seconds since 1970."""

    contract: int
    since: float
    until: float | None
    """None while it lives."""


@dataclasses.dataclass
class _Command:
    update: Mapping[str, Any]
    start: float
    end: float
    rented: list[int] = dataclasses.field(default_factory=list)
    ended: list[int] = dataclasses.field(default_factory=list)


def of_stack(charges: Iterable[Charge], project: str, stack: str) -> list[Charge]:
    """The charges under a stack's labels."""
    return [one for one in charges if is_labelled(one.label, stack_prefix(project, stack))]


def spans(charges: Iterable[Charge], alive: Collection[int]) -> list[Span]:
    """The lives of the contracts that charges are of, by what is billed while they exist."""
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    for charge in charges:
        digits = charge.source.removeprefix("instance-")
        if charge.kind not in {"gpu", "disk"} or not is_count(digits):
            continue
        contract = int(digits)
        first[contract] = min(charge.since, first.get(contract, charge.since))
        last[contract] = max(charge.until, last.get(contract, charge.until))
    return [
        Span(contract, since, None if contract in alive else last[contract])
        for contract, since in sorted(first.items(), key=lambda one: one[1])
    ]


def events(
    updates: Iterable[Mapping[str, Any]],
    lives: Sequence[Span],
    charges: Sequence[Charge] | None,
    since: float,
    now: float,
) -> tuple[Event, ...]:
    """Make the events, oldest first.

    Args:
        updates: `pulumi stack history --json`, in any order.
        lives: of the stack's contracts.
        charges: of the stack; None if the ledger could not be asked.
        since: first moment of the ledger.
        now: seconds since 1970.
    """
    commands = sorted(map(_command, updates), key=lambda one: one.start)
    without: list[_Command] = []
    for life in lives:
        if life.since >= since:
            rented = _attribute(
                [one for one in commands if _may(one, RENTS)], without, life.since, RENT_AFTER
            )
            rented.rented.append(life.contract)
        if life.until is not None:
            ended = _attribute(
                [one for one in commands if _may(one, ENDS)], without, life.until, BILLED_AFTER
            )
            ended.ended.append(life.contract)
    found = sorted([*commands, *without], key=lambda one: one.start)
    ends = [*(one.start for one in found), now][1:]
    return tuple(
        _event(one, None if charges is None else spent(charges, one.start, end, since))
        for one, end in zip(found, ends, strict=True)
    )


def spent(charges: Sequence[Charge], start: float, end: float, since: float) -> float | None:
    """What was charged from `start` to `end`, each charge by its share of time.

    A charge without a length counts where it begins. None for a time before `since`.
    """
    if end <= since:
        return None
    dollars = 0.0
    for charge in charges:
        length = charge.until - charge.since
        within = min(charge.until, end) - max(charge.since, start)
        if length > 0:
            dollars += charge.dollars * max(0.0, within) / length
        elif start <= charge.since < end:
            dollars += charge.dollars
    return dollars


def _command(update: Mapping[str, Any]) -> _Command:
    start = _moment(update.get("startTime")) or 0.0
    return _Command(update, start, _moment(update.get("endTime")) or start)


def _attribute(
    commands: Sequence[_Command], without: list[_Command], at: float, after: float
) -> _Command:
    """The command that a moment belongs to, or what happened without one about then."""
    for command in reversed(commands):
        if command.start - BEFORE <= at <= command.end + after:
            return command
    for other in without:
        if abs(other.start - at) <= TOGETHER:
            return other
    without.append(_Command({}, at, at))
    return without[-1]


def _may(command: _Command, words: tuple[str, ...]) -> bool:
    """Whether a command may have changed resources so; one that did not go through may have."""
    changes = command.update.get("resourceChanges")
    if command.update.get("result") != "succeeded" or not isinstance(changes, Mapping):
        return True
    return any(str(name).startswith(words) for name in changes)


def _event(command: _Command, dollars: float | None) -> Event:
    update = command.update
    kind = str(update.get("kind") or "")
    return Event(
        at=in_utc(min(command.start, LATEST)),
        what=shown(KINDS.get(kind, kind))[:20] if update else "market",
        release=_release(update.get("config")),
        commit=_commit(update.get("environment")),
        rented=tuple(sorted(command.rented)),
        ended=tuple(sorted(command.ended)),
        dollars=dollars,
        outcome=OUTCOMES.get(str(update.get("result")), "unknown") if update else "succeeded",
        changes=_changes(update.get("resourceChanges")),
    )


def _release(config: Any) -> str:
    setting = config.get(f"{PREFIX}release") if isinstance(config, Mapping) else None
    value = setting.get("value") if isinstance(setting, Mapping) else None
    return shown(value)[:60] if isinstance(value, str) else ""


def _commit(environment: Any) -> str:
    if not isinstance(environment, Mapping):
        return ""
    head = str(environment.get("git.head") or "")
    digits = head[:7] if head.isalnum() else ""
    return f"{digits}+" if digits and environment.get("git.dirty") == "true" else digits


def _changes(changes: Any) -> str:
    if not isinstance(changes, Mapping):
        return ""
    made = {name: count for name, count in changes.items() if name != "same"}
    return ", ".join(f"{int(count)} {shown(str(name))[:20]}" for name, count in made.items())


def _moment(text: Any) -> float | None:
    try:
        return dt.datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None
