"""What is left over beside a stack's machines is seen, told and ended, and nothing else is."""

from __future__ import annotations

from typing import Any

import pulumi
import pytest

from components.core.property_bag import Properties
from components.resources.context import current
from components.resources.orphan_cleanup import OrphanCleanupProvider
from components.vast.labels import order_digest, owner_of
from components.vast.refresh_log import FILE_NAME, RefreshLog
from tests.helpers.fake_api import FakeVast

KEY = "ssh-ed25519 AAAAours"
OTHER_KEY = "ssh-ed25519 AAAAanother"
STACK = "p/s/"


def inputs(machine: str, **changes: Any) -> Properties:
    nothing = dict.fromkeys(["held", "strays", "beside", "looked_at"])
    own = {"label_prefix": STACK, "endpoint": "endpoint", "public_key": KEY}
    return {"instance_id": machine, **own, **nothing} | changes


def rented(vast: FakeVast, id_: int, name: str, *, stack: str = STACK, key: str = KEY) -> None:
    vast.has(id_, label=f"{stack}endpoint-{name}-instance/{order_digest(owner_of(key), name)}")


def refresh_log() -> RefreshLog:
    return RefreshLog(current().market().shared(FILE_NAME), current().clock)


def created(machine: str = "9001") -> Properties:
    outs = OrphanCleanupProvider().create(inputs(machine)).outs
    assert outs is not None
    return dict(outs)


def refreshed(state: Properties, machines: tuple[int, ...] = (9001,)) -> Properties:
    """As at the beginning of an `up`: `machines` are those that are in the state."""
    # No cached answer is recent enough to be used.
    with current().market().shared("contracts.json").lock() as content:
        content.values = {}
        content.save()
    outs = OrphanCleanupProvider().read("holdings", state).outs
    for machine in machines:
        refresh_log().note(str(machine))
    assert outs is not None
    return dict(outs)


def updated(state: Properties, news: Properties) -> Properties:
    outs = OrphanCleanupProvider().update("holdings", state, news).outs
    assert outs is not None
    return dict(outs)


def changes(state: Properties, news: Properties) -> bool | None:
    return OrphanCleanupProvider().diff("holdings", state, news).changes


def test_nothing_is_to_be_done_where_nothing_is_left_over(vast):
    rented(vast, 9001, "00000001")
    state = created()
    assert refreshed(state) == state
    assert changes(state, inputs("9001")) is False
    assert vast.writes() == []


def test_what_a_cut_off_replacement_has_rented_is_told_and_ended_by_the_next_up(vast, capsys):
    rented(vast, 9001, "00000001")
    rented(vast, 9002, "00000002")
    state = refreshed(created())
    assert changes(state, inputs("9001")) is True
    said = capsys.readouterr().out
    assert "instance 9002 ($6.00/h) carries the label p/s/endpoint-00000002-instance/" in said
    assert "`pulumi up` ends it unless it goes on with it" in said
    state = updated(state, inputs("9001"))
    assert vast.writes() == ["DELETE /instances/9002/"]
    assert changes(refreshed(state), inputs("9001")) is False


def test_what_the_machine_goes_on_with_is_kept(vast):
    rented(vast, 9002, "00000002")
    state = refreshed(created(), ())
    assert updated(state, inputs("9002"))["held"] == [9001, 9002]
    assert vast.writes() == []


def test_a_machine_that_is_made_anew_beside_others_ends_none(vast):
    """As after an interrupted `destroy`: the state has what serves, and no `OrphanCleanup`."""
    rented(vast, 9001, "00000001")
    rented(vast, 9002, "00000002")
    state = created("9002")
    assert vast.writes() == []
    assert changes(refreshed(state, (9001, 9002)), inputs("9002")) is False


def test_a_machine_of_the_state_that_was_never_noted_is_not_left_over(vast):
    """As after an `up` that was killed between the two, and then other settings."""
    rented(vast, 9001, "00000001")
    rented(vast, 9002, "00000002")
    state = refreshed(created(), (9001, 9002))
    assert changes(state, inputs("9001")) is False
    rented(vast, 9003, "00000003")
    updated(state, inputs("9003"))
    assert vast.writes() == []


def test_a_machine_that_was_the_stacks_is_not_left_over(vast):
    rented(vast, 9001, "00000001")
    state = created()
    rented(vast, 9003, "00000003")
    state = updated(state, inputs("9003"))
    assert state["held"] == [9001, 9003]
    assert changes(refreshed(state, (9003,)), inputs("9003")) is False
    assert vast.writes() == []


def test_a_refresh_of_some_resources_alone_proves_nothing(vast):
    rented(vast, 9001, "00000001")
    rented(vast, 9002, "00000002")
    state = refreshed(created(), ())
    assert changes(state, inputs("9001")) is False
    updated(state, inputs("9001"))
    assert vast.writes() == []


def test_nor_does_one_of_another_computer(vast, monkeypatch, tmp_path):
    rented(vast, 9001, "00000001")
    rented(vast, 9002, "00000002")
    state = refreshed(created())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    assert changes(state, inputs("9001")) is False
    refresh_log().note("9001")
    assert changes(state, inputs("9001")) is False
    assert vast.writes() == []


def test_a_second_contract_of_the_machines_own_name_is_told_by_its_own_refresh(vast):
    rented(vast, 9001, "00000001")
    rented(vast, 9002, "00000001")
    assert refreshed(created())["strays"] == []


@pytest.mark.parametrize(
    "news", [inputs("9001", label_prefix="p/t/"), inputs("9003", public_key=OTHER_KEY)]
)
def test_what_was_left_over_under_the_former_name_or_key_is_ended(vast, news):
    rented(vast, 9001, "00000001")
    rented(vast, 9005, "00000005")
    state = refreshed(created())
    assert changes(state, news) is True
    updated(state, news)
    assert vast.writes() == ["DELETE /instances/9005/"]


@pytest.mark.parametrize(
    "label",
    [
        f"{STACK}endpoint-00000002-instance/{order_digest(owner_of('of another backend'), '2')}",
        f"{STACK}endpoint-00000002-instance/0123456789",
        f"{STACK}somebody's notebook",
        f"p/s2/endpoint-00000002-instance/{order_digest(owner_of(KEY), '00000002')}",
    ],
)
def test_what_may_be_somebody_elses_is_left_alone(vast, label):
    rented(vast, 9001, "00000001")
    vast.has(9002, label=label)
    assert refreshed(created())["strays"] == []


def test_one_that_cannot_be_ended_is_tried_again_under_another_name_too(vast, capsys):
    rented(vast, 9001, "00000001")
    rented(vast, 9002, "00000002")
    state = refreshed(created())
    vast.broken = {"DELETE /instances/9002/"}
    news = inputs("9001", label_prefix="p/t/")
    state = updated(state, news)
    assert "could not be ended" in capsys.readouterr().out
    vast.broken = set()
    state = refreshed(state)
    assert changes(state, news) is True
    assert updated(state, news)["strays"] == []
    assert list(vast.contracts) == [9001]


def test_without_a_list_nothing_is_known_and_the_state_stays(vast, capsys):
    rented(vast, 9001, "00000001")
    state = created()
    vast.broken = {"GET /api/v1/instances/"}
    assert refreshed(state) == state
    assert "is not known" in capsys.readouterr().out


def of_sibling(vast: FakeVast, id_: int, key: str) -> None:
    label = f"{STACK}assistant-instance/{order_digest(owner_of(key), 'order')}"
    vast.has(id_, label=label)


@pytest.mark.parametrize("key", [KEY, OTHER_KEY])
def test_a_machine_of_another_endpoint_of_the_stack_is_no_orphan(vast, key):
    """Whatever its key is, and though no refresh has read it."""
    rented(vast, 9001, "00000001")
    of_sibling(vast, 9002, key)
    state = refreshed(created())
    assert state["strays"] == []
    assert changes(state, inputs("9001")) is False
    assert vast.writes() == []


def test_each_endpoint_of_a_stack_ends_its_own_orphans(vast):
    """Their refreshes note their looks apart: the later one does not undo the earlier one's."""
    rented(vast, 9001, "00000001")
    rented(vast, 9002, "00000002")
    of_sibling(vast, 9011, OTHER_KEY)
    vast.has(9012, label=f"{STACK}assistant-00000002-instance/{own_digest()}")
    sibling = {"endpoint": "assistant", "public_key": OTHER_KEY}
    other = dict(OrphanCleanupProvider().create(inputs("9011", **sibling)).outs or {})
    state = refreshed(created(), (9001, 9011))
    current().clock.sleep(2)
    other = refreshed(other, (9001, 9011))
    updated(state, inputs("9001"))
    assert vast.writes() == ["DELETE /instances/9002/"]
    updated(other, inputs("9011", **sibling))
    assert vast.writes() == ["DELETE /instances/9002/", "DELETE /instances/9012/"]


def own_digest() -> str:
    return order_digest(owner_of(OTHER_KEY), "another order")


def test_a_state_of_an_older_release_has_no_change_and_gets_its_name_with_the_next_one(vast):
    rented(vast, 9001, "00000001")
    older = created()
    del older["endpoint"]
    state = refreshed(older)
    assert state == older
    assert changes(state, inputs("9001")) is False
    rented(vast, 9002, "00000002")
    state = refreshed(state)
    assert changes(state, inputs("9001")) is True
    assert updated(state, inputs("9001"))["endpoint"] == "endpoint"
    assert vast.writes() == ["DELETE /instances/9002/"]


def test_of_several_machines_none_is_left_over_and_what_else_there_is_is_ended(vast):
    for id_, name in ((9001, "00000001"), (9002, "r1-00000001"), (9003, "r2-00000001")):
        vast.has(id_, label=f"{STACK}endpoint-{name}-instance/{order_digest(owner_of(KEY), name)}")
    three = inputs("9001", others=["9002", "9003"])
    state = dict(OrphanCleanupProvider().create(three).outs or {})
    assert state["held"] == [9001, 9002, 9003]
    assert refreshed(state, (9001, 9002, 9003)) == state

    vast.has(9004, label=f"{STACK}endpoint-r1-00000002-instance/{order_digest(owner_of(KEY), 'x')}")
    state = refreshed(state, (9001, 9002, 9003))
    assert changes(state, three) is True
    state = updated(state, three)
    assert vast.writes() == ["DELETE /instances/9004/"]
    assert changes(refreshed(state, (9001, 9002, 9003)), three) is False


def test_a_machine_that_this_up_goes_on_with_is_no_orphan_of_its_siblings(vast):
    rented(vast, 9001, "00000001")
    vast.has(9002, label=f"{STACK}endpoint-r1-00000001-instance/{order_digest(owner_of(KEY), 'y')}")
    state = refreshed(created())
    assert changes(state, inputs("9001")) is True
    state = updated(state, inputs("9001", others=["9002"]))
    assert vast.writes() == []
    assert state["held"] == [9001, 9002]


def test_from_several_machines_to_one_the_state_is_that_of_one(vast):
    state = dict(OrphanCleanupProvider().create(inputs("9001", others=["9002"])).outs or {})
    assert changes(state, inputs("9001")) is True
    one = updated(state, inputs("9001"))
    assert one == {**created(), "held": [9001, 9002]}
    assert vast.writes() == []


@pytest.mark.parametrize("unknown", [pulumi.output.Unknown(), [pulumi.output.Unknown()]])
def test_a_machine_that_a_preview_does_not_know_is_another(vast, unknown):
    assert changes(created(), inputs("9001", others=unknown)) is True
    assert vast.writes() == []
