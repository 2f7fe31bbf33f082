"""What was done to a stack: Pulumi's history and the market's ledger, joined by time."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.vast.api.models import Charge
from components.vast.errors import PermissionMissing
from emulator.hostile import RUDE
from tests.helpers.day_two import NOW, FakeMarket, contract, strangers
from toolchain.day_two.command import Asked, report
from toolchain.day_two.fleet import NoStack
from toolchain.day_two.history.command import (
    MOST_ROWS,
    here_and_now,
    history,
    market_clock,
    read_updates,
    show,
)
from toolchain.day_two.history.events import events, of_stack, spans, spent

HERE = Asked("old", on_account=True, as_json=False)
LABEL = "vast-vllm/old/endpoint-instance/4ab10f57b5ef2b10"
DAY = 86_400.0
SINCE = NOW - 30 * DAY


def update(start: float, seconds: float = 60.0, **changes: Any) -> dict[str, Any]:
    """An update as `pulumi stack history --json` lists it."""
    return {
        "kind": "update",
        "result": "succeeded",
        "startTime": iso(start),
        "endTime": iso(start + seconds),
        "environment": {"git.head": "b95ab119d66940beaafdca035f9a0f4f585c6352"},
        "config": {"vast-vllm:release": {"value": "r7", "secret": False}},
        "resourceChanges": {"create": 12, "same": 3},
    } | changes


def iso(moment: float) -> str:
    return dt.datetime.fromtimestamp(moment, dt.UTC).isoformat().replace("+00:00", ".000Z")


def charge(id_: int, since: float, until: float, dollars: float = 6.0, **changes: Any) -> Charge:
    values: dict[str, Any] = {"source": f"instance-{id_}", "label": LABEL, "kind": "gpu"} | changes
    return Charge(**values, since=since, until=until, dollars=dollars)


def told(updates, charges, alive=()):
    lives = spans(charges, set(alive))
    return events(updates, lives, charges, SINCE, NOW)


def test_a_life_of_a_stack_is_told_in_order():
    up, down = NOW - 5 * 3600, NOW - 2 * 3600
    updates = [
        update(down, kind="destroy", resourceChanges={"delete": 12}),
        update(up, 600),
    ]
    found = told(updates, [charge(7, up + 20, down + 300, dollars=18.0)])
    assert [(one.what, one.rented, one.ended, one.release) for one in found] == [
        ("up", (7,), (), "r7"),
        ("destroy", (), (7,), "r7"),
    ]
    assert found[0].commit == "b95ab11"
    assert found[0].changes == "12 create"
    assert sum(one.dollars or 0 for one in found) == pytest.approx(18.0, rel=1e-3)
    assert found[1].dollars == pytest.approx(18.0 * 300 / (3 * 3600 + 280), rel=1e-3)


def test_a_replacement_ends_one_machine_and_rents_another():
    start = NOW - 7200
    updates = [update(start, 900, resourceChanges={"replace": 2, "delete-replaced": 2})]
    charges = [charge(7, NOW - DAY, start + 400), charge(8, start + 30, NOW)]
    found = told(updates, charges, alive=[8])
    assert (found[-1].rented, found[-1].ended) == ((8,), (7,))


def test_a_machine_that_ended_by_itself_at_night_has_a_line_of_its_own():
    found = told([update(NOW - 20 * 3600)], [charge(7, NOW - 20 * 3600 + 5, NOW - 8 * 3600)])
    assert [(one.what, one.rented, one.ended) for one in found] == [
        ("up", (7,), ()),
        ("market", (), (7,)),
    ]
    assert found[1].at == "2027-01-15T00:00:00+00:00"
    assert found[1].outcome == "succeeded"


def test_an_end_soon_after_an_up_that_deleted_nothing_is_not_its():
    up = NOW - 7200
    found = told([update(up)], [charge(7, up + 5, up + 200)])
    assert [(one.what, one.ended) for one in found] == [("up", ()), ("market", (7,))]


def test_machines_that_go_together_without_a_command_are_one_event():
    charges = [charge(n, NOW - 9000, NOW - 3600 + n) for n in (7, 8, 9)]
    found = told([], charges)
    assert [(one.what, one.rented, one.ended) for one in found] == [
        ("market", (7, 8, 9), ()),
        ("market", (), (7, 8, 9)),
    ]


def test_a_failed_up_may_have_rented_and_ended():
    start = NOW - 7200
    failed = update(start, 500, result="failed", resourceChanges={})
    (found,) = told([failed], [charge(7, start + 10, start + 400)])
    assert (found.outcome, found.rented, found.ended) == ("failed", (7,), (7,))


def test_dollars_before_the_ledger_are_not_known():
    found = told([update(NOW - 60 * DAY), update(NOW - 40 * DAY), update(NOW - DAY)], [])
    assert [one.dollars for one in found] == [None, 0.0, 0.0]


def test_a_ledger_that_could_not_be_asked_leaves_what_pulumi_knows(tmp_path, capsys):
    may_not = PermissionMissing("the key lacks billing_read")
    context = strangers(tmp_path, servers={}, account=FakeMarket(tmp_path, [], may_not))
    answer = history(HERE, context, [update(NOW - 3600)], 30)
    assert answer.exit_status == 2
    assert answer.not_asked == (
        "machines and dollars are in the market's ledger: the key lacks billing_read",
    )
    assert [(one.what, one.dollars) for one in answer.events] == [("up", None)]
    report(HERE, answer, show)
    assert "not asked: machines and dollars" in capsys.readouterr().out


def test_of_the_ledger_the_stacks_own_counts():
    others = ["vast-vllm/older/endpoint-instance/x", "other/old/endpoint-instance/x", ""]
    charges = [charge(7, 0, 1), *(charge(8, 0, 1, label=label) for label in others)]
    assert [one.source for one in of_stack(charges, "vast-vllm", "old")] == ["instance-7"]


def test_traffic_makes_no_machine_older():
    charges = [charge(7, 100, 200), charge(7, 0, 500, kind="bwd"), charge(7, 90, 210, kind="disk")]
    (life,) = spans(charges, set())
    assert (life.since, life.until) == (90, 210)


def test_a_row_for_each_event_and_the_sum(tmp_path, capsys):
    up = NOW - 5 * 3600
    ledger = [charge(9001, up + 20, NOW, dollars=30.0)]
    here = FakeMarket(tmp_path, [contract(9001)], ledger)
    answer = history(HERE, strangers(tmp_path, servers={}, account=here), [update(up)], 30)
    assert answer.exit_status == 0
    report(HERE, answer, show)
    printed = capsys.readouterr().out
    assert "2027-01-15 03:00  up    r7       +9001     30.00  succeeded" in printed
    assert "$30.00 by the ledger since 2026-12-16" in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_many_events_and_machines_fit_into_80_columns(tmp_path, capsys):
    updates = [update(NOW - n * 3600) for n in range(1, MOST_ROWS + 10)]
    ledger = [charge(10_000_000 + n, NOW - 3590, NOW) for n in range(12)]
    here = FakeMarket(tmp_path, [], ledger)
    answer = history(HERE, strangers(tmp_path, servers={}, account=here), updates, 30)
    report(HERE, answer, show)
    printed = capsys.readouterr().out
    assert printed.startswith("10 earlier events are left out")
    assert max(map(len, printed.splitlines())) <= 80


def test_a_stack_to_which_nothing_was_done(tmp_path, capsys):
    here = FakeMarket(tmp_path, [], [])
    answer = history(HERE, strangers(tmp_path, servers={}, account=here), [], 30)
    report(HERE, answer, show)
    assert capsys.readouterr().out == "nothing was ever done to the stack old\n"


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(
                ["kind", "result", "startTime", "endTime", "environment", "config", "version"]
            ),
            st.none() | st.text(max_size=30) | st.integers() | st.just(RUDE) | st.just({"a": 1}),
        ),
        max_size=5,
    )
)
def test_whatever_a_backend_lists_is_shown_clean(updates):
    for event in events(updates, (), [], SINCE, NOW):
        text = json.dumps(event.model_dump(), ensure_ascii=False)
        assert "\x1b" not in text
        assert "\n" not in event.what


@given(st.lists(st.floats(0, 1000), min_size=2, max_size=6), st.floats(0, 1000), st.floats(0, 100))
def test_the_dollars_of_all_events_are_those_of_the_ledger(cuts, since, dollars):
    charges = [charge(7, since, since + 50, dollars)]
    edges = sorted([0.0, *cuts, 2000.0])
    parts = [spent(charges, low, high, -1) for low, high in itertools.pairwise(edges)]
    assert sum(filter(None, parts)) == pytest.approx(dollars, abs=1e-6)


def test_the_clock_of_a_fast_market_is_turned_back(tmp_path, monkeypatch):
    told_by = {"clock": NOW + 6000.0, "speed": 60.0}

    def getter(_clock: Any) -> Any:
        return lambda _url: type("Answer", (), {"body": json.dumps(told_by).encode()})()

    monkeypatch.setattr("toolchain.day_two.history.command.getter", getter)
    context = strangers(tmp_path, servers={})
    clock = market_clock(Asked("local", on_account=False, as_json=False), context)
    assert clock(NOW + 6000.0) == NOW
    assert clock(NOW) == NOW - 100
    (moved,) = here_and_now([charge(7, NOW, NOW + 6000.0)], clock)
    assert (moved.since, moved.until) == (NOW - 100, NOW)
    assert market_clock(HERE, context)(5.0) == 5.0


def test_a_market_that_names_no_clock_keeps_its_own(tmp_path, monkeypatch):
    def getter(_clock: Any) -> Any:
        return lambda _url: type("Answer", (), {"body": b"[]"})()

    monkeypatch.setattr("toolchain.day_two.history.command.getter", getter)
    here = Asked("local", on_account=False, as_json=False)
    assert market_clock(here, strangers(tmp_path, servers={}))(7.0) == 7.0


def test_every_page_of_pulumis_history_is_read(monkeypatch):
    pages = [[update(NOW)] * 100, [update(NOW)] * 3, []]
    asked: list[tuple[str, ...]] = []

    def ask(_environment: Any, *words: str) -> Any:
        asked.append(words)
        return pages[int(words[words.index("--page") + 1]) - 1]

    monkeypatch.setattr("toolchain.stacks.ask", ask)
    assert len(read_updates(HERE)) == 103
    assert len(asked) == 3
    assert all(words[-2:] == ("--stack", "old") for words in asked)


def test_a_stack_that_is_not_there_has_no_history(tmp_path, monkeypatch):
    monkeypatch.setattr("toolchain.on_emulator.BELONGINGS", tmp_path)
    with pytest.raises(NoStack, match="no stack typo on the emulator, and so no history"):
        read_updates(Asked("typo", on_account=False, as_json=False))
