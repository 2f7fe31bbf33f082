from __future__ import annotations

from pathlib import Path

import pytest

from emulator.clock import EmulatedClock
from emulator.store import Store
from tests.emulator.test_contracts import rented
from tests.helpers.fakes import VirtualClock


def test_time_runs_at_the_chosen_speed() -> None:
    time = VirtualClock()
    clock = EmulatedClock(start=1000.0, speed=60.0, monotonic=time.monotonic)
    time.sleep(2)
    assert clock.now() == 1120.0
    assert clock.advance(80) == 1200.0
    time.sleep(1)
    assert clock.now() == 1260.0


def test_time_does_not_go_back() -> None:
    clock = EmulatedClock(start=0.0, speed=1.0, monotonic=VirtualClock().monotonic)
    with pytest.raises(ValueError, match="go back by 5"):
        clock.advance(-5)


def test_what_is_stored_outlives_its_process(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite3"
    store = Store(path)
    contract = rented(faults={"stuck_loading": {"msg": "x"}}, ports={"22/tcp": 21000})
    store.save_contract(contract)
    store.set_fact("clock", 12.5)
    number = store.next_id("contract", 1001)
    again = Store(path)
    assert again.contracts() == [contract]
    assert again.fact("clock") == 12.5
    assert again.next_id("contract", 1001) == number + 1
    store.close()
    again.close()


def test_a_transaction_is_all_or_nothing() -> None:
    store = Store(":memory:")

    def fail_half_way() -> None:
        with store.transaction():
            store.set_fact("a", 1)
            raise RuntimeError("in between")

    with pytest.raises(RuntimeError, match="in between"):
        fail_half_way()
    assert store.fact("a") is None


def test_requests_are_numbered_and_read_from_a_number_on() -> None:
    store = Store(":memory:")
    row = {
        "time": 1.0,
        "emulated": 2.0,
        "method": "GET",
        "path": "/x",
        "query": "{}",
        "body": "null",
        "status": 200,
        "writes": 0,
        "caller": "account",
        "note": None,
    }
    numbers = [store.add_request(row) for _ in range(3)]
    assert numbers == [1, 2, 3]
    assert [one["n"] for one in store.requests(after=1)] == [2, 3]


def test_documents_come_and_go() -> None:
    store = Store(":memory:")
    store.save_document("secret", 2, {"key": "B"})
    store.save_document("secret", 1, {"key": "A"})
    assert store.documents("secret") == [(1, {"key": "A"}), (2, {"key": "B"})]
    assert store.drop_document("secret", 1)
    assert not store.drop_document("secret", 1)
    assert store.document("secret", 1) is None
    store.clear()
    assert store.documents("secret") == []
