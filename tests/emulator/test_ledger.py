from __future__ import annotations

import pytest

from emulator.contract_types import Charge
from emulator.ledger import by_day, merged, total
from emulator.market import DAY
from emulator.store import Store

MIDNIGHT = 20_000 * DAY


def test_charges_of_one_day_are_added() -> None:
    entries = by_day(
        [
            Charge(1, "gpu", MIDNIGHT, MIDNIGHT + 10, 10, 0.1),
            Charge(1, "gpu", MIDNIGHT + 10, MIDNIGHT + 30, 20, 0.2),
            Charge(1, "disk", MIDNIGHT, MIDNIGHT + 30, 30, 0.3),
            Charge(2, "gpu", MIDNIGHT, MIDNIGHT + 30, 30, 0.4),
        ]
    )
    assert [(one.contract_id, one.kind, one.quantity) for one in entries] == [
        (1, "gpu", 30),
        (1, "disk", 30),
        (2, "gpu", 30),
    ]
    assert total(entries) == pytest.approx(1.0)


def test_a_charge_over_midnight_is_split() -> None:
    first, second = by_day([Charge(1, "gpu", MIDNIGHT - 100, MIDNIGHT + 300, 400, 4.0)])
    assert (first.day, first.until) == (MIDNIGHT - DAY, MIDNIGHT)
    assert (second.day, second.since) == (MIDNIGHT, MIDNIGHT)
    assert [first.amount, second.amount] == pytest.approx([1.0, 3.0])


def test_traffic_has_no_length() -> None:
    (entry,) = by_day([Charge(1, "bwd", MIDNIGHT + 5, MIDNIGHT + 5, 1e9, 0.02)])
    assert (entry.quantity, entry.amount) == (1e9, 0.02)


def test_the_store_adds_up_as_the_ledger_does() -> None:
    store = Store(":memory:")
    one = by_day([Charge(1, "gpu", MIDNIGHT, MIDNIGHT + 10, 10, 0.1)])
    other = by_day([Charge(1, "gpu", MIDNIGHT + 10, MIDNIGHT + 30, 20, 0.2)])
    store.add_entries(one)
    store.add_entries(other)
    assert store.entries() == [merged(one[0], other[0])]
    assert store.spent() == pytest.approx(0.3)
