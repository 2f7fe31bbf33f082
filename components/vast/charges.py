"""Charged and expected costs, by stack, resource and day. Pure.

The ledger is Vast's and outlives every contract, with the label that the contract had. The expected
costs are this project's notes from when the machine worked (`estimates.py`), since no backend of
Pulumi keeps the outputs of a destroyed stack. Without a note, the expected cost is reported as
unknown.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterable, Iterator, Mapping

from components.vast.api.models import Charge
from components.vast.estimates import Estimate

KINDS = ("gpu", "disk", "bwd", "bwu")
"""Vast's kinds of items: GPU and disk by time, traffic down and up by the byte."""

OTHER = "other"
"""For a kind that Vast may add one day: counted, never dropped."""

DAY = 86400.0


@dataclasses.dataclass(frozen=True)
class Line:
    """One resource on one UTC day; money in $."""

    stack: str
    resource: str
    day: dt.date
    contracts: tuple[str, ...]
    """Such as `instance-123`: a resource can have had several."""
    hours: float
    """For which a contract existed, all contracts together."""
    charged: Mapping[str, float]
    """By kind."""
    estimated: float | None
    """None if a contract has no note."""

    @property
    def total(self) -> float:
        """All that was charged."""
        return sum(self.charged.values())


@dataclasses.dataclass
class _Contract:
    """What one contract cost on one day."""

    charged: dict[str, float] = dataclasses.field(default_factory=dict)
    since: float = float("inf")
    until: float = 0.0

    @property
    def hours(self) -> float:
        return max(0.0, self.until - self.since) / 3600


def compare(
    charges: Iterable[Charge],
    estimates: Mapping[str, Estimate],
    project: str,
    stack: str | None = None,
    since: float = 0.0,
) -> list[Line]:
    """Sort the charges under a project's labels by stack, resource and day.

    Charges under other labels, or under none, are somebody else's and left out. `since` is the
    first moment of the charges, in seconds since 1970. A machine that was rented earlier paid for
    its download earlier.
    """
    groups: dict[tuple[str, str, dt.date], dict[tuple[str, str], _Contract]] = {}
    for charge in charges:
        owner = _owner(charge.label, project)
        if owner is None or (stack is not None and owner[0] != stack):
            continue
        for part in _by_day(charge):
            day = dt.datetime.fromtimestamp(part.since, dt.UTC).date()
            contracts = groups.setdefault((*owner, day), {})
            contract = contracts.setdefault((part.source, part.label), _Contract())
            _add(contract, part)
    download_days = {
        name: day
        for name, day in _first_days(groups).items()
        if _began_within(estimates.get(name[0]), since)
    }
    return [
        _line(key, contracts, estimates, download_days) for key, contracts in sorted(groups.items())
    ]


def total(lines: Iterable[Line]) -> tuple[float, float | None]:
    """The total charged and expected, $; None for an expected total with an unknown part."""
    lines = list(lines)
    known = [line.estimated for line in lines if line.estimated is not None]
    return sum(line.total for line in lines), sum(known) if len(known) == len(lines) else None


def _owner(label: str, project: str) -> tuple[str, str] | None:
    """Stack and resource of `<project>/<stack>/<resource>/<digest>`."""
    parts = label.split("/")
    if len(parts) < 4 or parts[0] != project:  # noqa: PLR2004  (the parts of a label)
        return None
    return parts[1], parts[2]


def _by_day(charge: Charge) -> Iterator[Charge]:
    """Split at midnight UTC, in proportion to time."""
    whole = charge.until - charge.since
    since = charge.since
    while True:
        until = min(charge.until, since // DAY * DAY + DAY)
        share = (until - since) / whole if whole > 0 else 1.0
        yield dataclasses.replace(charge, since=since, until=until, dollars=charge.dollars * share)
        if until >= charge.until:
            return
        since = until


def _add(contract: _Contract, part: Charge) -> None:
    kind = part.kind if part.kind in KINDS else OTHER
    contract.charged[kind] = contract.charged.get(kind, 0.0) + part.dollars
    if kind in {"gpu", "disk"}:
        contract.since = min(contract.since, part.since)
        contract.until = max(contract.until, part.until)


def _first_days(
    groups: Mapping[tuple[str, str, dt.date], Mapping[tuple[str, str], _Contract]],
) -> dict[tuple[str, str], dt.date]:
    """The first day of each contract."""
    days: dict[tuple[str, str], dt.date] = {}
    for (_, _, day), contracts in groups.items():
        for name in contracts:
            days[name] = min(day, days.get(name, day))
    return days


def _began_within(estimate: Estimate | None, since: float) -> bool:
    """Whether a contract is no older than the charges; true for a contract without a note."""
    return estimate is None or estimate.rented_at is None or estimate.rented_at >= since


def _line(
    key: tuple[str, str, dt.date],
    contracts: Mapping[tuple[str, str], _Contract],
    estimates: Mapping[str, Estimate],
    download_days: Mapping[tuple[str, str], dt.date],
) -> Line:
    stack, resource, day = key
    charged: dict[str, float] = {}
    expected: list[float | None] = []
    for name, contract in contracts.items():
        for kind, dollars in contract.charged.items():
            charged[kind] = charged.get(kind, 0.0) + dollars
        estimate = estimates.get(name[0])
        downloads = download_days.get(name) == day
        expected.append(_expected(estimate, contract.hours, downloads=downloads))
    known = [one for one in expected if one is not None]
    return Line(
        stack=stack,
        resource=resource,
        day=day,
        contracts=tuple(sorted(source for source, _ in contracts)),
        hours=sum(contract.hours for contract in contracts.values()),
        charged=charged,
        estimated=sum(known) if len(known) == len(expected) else None,
    )


def _expected(estimate: Estimate | None, hours: float, *, downloads: bool) -> float | None:
    if estimate is None:
        return None
    traffic = estimate.traffic_dollars if downloads else 0.0
    return estimate.dollars_per_hour * hours + traffic
