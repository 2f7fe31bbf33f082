"""Sums over charges: what the account spent, on what, on which day, and what is left."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from emulator.contract_types import Charge
from emulator.market import DAY


@dataclass(frozen=True)
class Entry:
    """The sum of a contract's charges of one kind on one UTC day (its first second, epoch)."""

    contract_id: int
    day: float
    kind: str
    since: float
    until: float
    quantity: float
    amount: float


def by_day(charges: Iterable[Charge]) -> list[Entry]:
    """Split charges at midnight UTC and add up those of one contract, kind and day."""
    sums: dict[tuple[int, float, str], Entry] = {}
    for charge in charges:
        for part in _split(charge):
            key = (part.contract_id, part.day, part.kind)
            sums[key] = merged(sums[key], part) if key in sums else part
    return list(sums.values())


def merged(one: Entry, other: Entry) -> Entry:
    """Add two entries of the same contract, kind and day."""
    return Entry(
        contract_id=one.contract_id,
        day=one.day,
        kind=one.kind,
        since=min(one.since, other.since),
        until=max(one.until, other.until),
        quantity=one.quantity + other.quantity,
        amount=one.amount + other.amount,
    )


def total(entries: Iterable[Entry]) -> float:
    """Return the $ of all entries together."""
    return sum(entry.amount for entry in entries)


def _split(charge: Charge) -> list[Entry]:
    parts: list[Entry] = []
    since = charge.since
    whole = charge.until - charge.since
    while True:
        day = since // DAY * DAY
        until = min(charge.until, day + DAY)
        share = (until - since) / whole if whole > 0 else 1.0
        parts.append(
            Entry(
                charge.contract_id,
                day,
                charge.kind,
                since,
                until,
                charge.quantity * share,
                charge.amount * share,
            )
        )
        if until >= charge.until:
            return parts
        since = until
