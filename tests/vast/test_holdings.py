"""Ids of the machines that were a stack's, and the end of what is left over beside them."""

from __future__ import annotations

from typing import Any

import pytest

from components.clock import SystemClock
from components.progress import Progress
from components.provider import Properties
from components.vast.api import connect
from components.vast.holdings import HoldingsProvider
from components.vast.owner import nonce, owner_of
from components.vast.rent_note import SUFFIX, RentNote
from tests.vast.fake_api import KEY as KEY_OF_VAST
from tests.vast.fake_api import FakeVast

KEY = "ssh-ed25519 AAAAours"
OTHER_KEY = "ssh-ed25519 AAAAanother"
STACK = "p/s/"


@pytest.fixture
def vast(tmp_path, monkeypatch):
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    with FakeVast() as server:
        monkeypatch.setenv("VAST_URL", server.url)
        monkeypatch.setenv("VAST_API_KEY", KEY_OF_VAST)
        yield server


def inputs(machine: str, **changes: Any) -> Properties:
    return {
        "instance_id": machine,
        "label_prefix": STACK,
        "public_key": KEY,
        "counted": True,
        "held": None,
        "strays": None,
    } | changes


def rented(vast: FakeVast, id_: int, name: str, *, stack: str = STACK, key: str = KEY) -> None:
    vast.has(id_, label=f"{stack}endpoint-{name}-instance/{nonce(owner_of(key), name)}")
    seconds_later()


def seconds_later() -> None:
    """No answer of before is young enough to be taken."""
    with connect().shared("contracts.json").held() as sheet:
        sheet.values = {}
        sheet.save()


def created(**changes: Any) -> Properties:
    outs = HoldingsProvider().create(inputs("9001", **changes)).outs
    assert outs is not None
    return dict(outs)


def refreshed(state: Properties) -> Properties:
    outs = HoldingsProvider().read("holdings", state).outs
    assert outs is not None
    return dict(outs)


def updated(state: Properties, news: Properties) -> Properties:
    outs = HoldingsProvider().update("holdings", state, news).outs
    assert outs is not None
    return dict(outs)


def changes(state: Properties, news: Properties) -> bool | None:
    return HoldingsProvider().diff("holdings", state, news).changes


def test_what_a_cut_off_first_up_has_rented_under_another_name_is_ended(vast):
    rented(vast, 9000, "g0")
    rented(vast, 9001, "g1")
    assert created()["held"] == [9001]
    assert vast.writes() == ["DELETE /instances/9000/"]


def test_a_stack_of_an_older_release_keeps_what_it_has(vast):
    rented(vast, 9000, "g0")
    rented(vast, 9001, "g1")
    assert created(counted=None)["held"] == [9000, 9001]
    assert vast.writes() == []


def test_nothing_is_to_be_done_where_nothing_is_left_over(vast):
    rented(vast, 9001, "g1")
    state = created()
    assert changes(refreshed(state), inputs("9001")) is False
    assert vast.writes() == []


def test_what_a_cut_off_replacement_has_rented_is_told_and_ended_by_the_next_up(vast, capsys):
    rented(vast, 9001, "g1")
    state = created()
    rented(vast, 9002, "g2")
    state = refreshed(state)
    said = capsys.readouterr().out
    assert "instance 9002 ($6.00/h, p/s/endpoint-g2-instance/" in said
    assert "the next `pulumi up` ends it" in said
    assert changes(state, inputs("9001")) is True
    state = updated(state, inputs("9001"))
    assert vast.writes() == ["DELETE /instances/9002/"]
    assert changes(refreshed(state), inputs("9001")) is False


def test_the_machine_of_before_stays_until_pulumi_deletes_it(vast):
    rented(vast, 9001, "g1")
    state = created()
    rented(vast, 9003, "g3")
    state = updated(state, inputs("9003"))
    assert state["held"] == [9001, 9003]
    assert vast.writes() == []
    # As when `pulumi` was killed while clients were leaving it.
    assert changes(refreshed(state), inputs("9003")) is False


def test_a_second_contract_of_the_machines_own_name_is_told_by_its_own_refresh(vast, capsys):
    rented(vast, 9001, "g1")
    state = created()
    rented(vast, 9002, "g1")
    assert refreshed(state)["strays"] == []
    assert "9002" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "news", [inputs("9001", label_prefix="p/t/"), inputs("9002", public_key=OTHER_KEY)]
)
def test_what_was_left_over_under_the_former_name_or_key_is_ended(vast, news):
    rented(vast, 9001, "g1")
    state = created()
    rented(vast, 9005, "g5")
    rented(vast, 9006, "g6", key="of another backend")
    assert changes(state, news) is True
    updated(state, news)
    assert vast.writes() == ["DELETE /instances/9005/"]


def test_what_another_backend_has_rented_is_left_alone(vast):
    rented(vast, 9001, "g1")
    state = created()
    rented(vast, 9002, "g2", key="of another backend")
    rented(vast, 9004, "g1", stack="p/s2/")
    assert refreshed(state)["strays"] == []
    updated(state, inputs("9001"))
    assert vast.writes() == []


def test_what_a_cut_off_rent_call_may_have_made_is_waited_for(vast):
    clock = SystemClock()
    with RentNote(
        connect().shared(f"x{SUFFIX}"), clock, Progress("", clock, print)
    ).alone() as page:
        page.sent(f"{STACK}endpoint-g2-instance/abc")
    vast.unlisted_for = 1
    vast.has(9002, label=f"{STACK}endpoint-g2-instance/abc")
    created()
    assert vast.contracts == {}


def test_one_that_cannot_be_ended_is_tried_again_by_the_next_up(vast, capsys):
    rented(vast, 9001, "g1")
    state = created()
    rented(vast, 9002, "g2")
    state = refreshed(state)
    vast.broken = {"GET /api/v1/instances/"}
    seconds_later()
    state = updated(state, inputs("9001"))
    assert "could not be ended" in capsys.readouterr().out
    assert changes(state, inputs("9001")) is True
    assert refreshed(state) == state
