"""A finalizer and the other endpoints of its stack: it ends its own machines and no sibling's."""

from __future__ import annotations

from typing import Any

import pytest

from components.core.progress import Progress
from components.core.property_bag import Properties
from components.resources.context import current
from components.resources.stack_finalizer import StackFinalizerProvider
from components.vast.errors import StillBilled
from components.vast.labels import order_digest, owner_of
from components.vast.lifecycle.preemption import PREEMPTIONS_FILE, PreemptionLog
from components.vast.rental.journal import SUFFIX, RentJournal

STACK = "p/s/"
KEY, SIBLINGS_KEY = "ssh-ed25519 AAAAours", "ssh-ed25519 AAAAsibling"
OWN = {"label_prefix": STACK, "endpoint": "endpoint", "public_key": KEY}
SIBLING = {"label_prefix": STACK, "endpoint": "assistant", "public_key": SIBLINGS_KEY}

finalizer = StackFinalizerProvider()


def label(endpoint: str = "endpoint", key: str = KEY, order: str = "order") -> str:
    return f"{STACK}{endpoint}-instance/{order_digest(owner_of(key), order)}"


def created(inputs: Properties) -> Properties:
    made = finalizer.create(inputs)
    return dict(made.outs or {})


def updated(state: Properties, news: Properties) -> Properties:
    return dict(finalizer.update("p/s/", state, news).outs or {})


def reasons(olds: Properties, news: Properties) -> str:
    return "; ".join(one.reason for one in finalizer.check(olds, news).failures)


@pytest.mark.parametrize("siblings_key", [SIBLINGS_KEY, KEY])
def test_it_ends_its_own_machines_in_every_form_and_leaves_a_siblings(vast, siblings_key, capsys):
    """Also if the keys were the same, or had the same digest: the names alone have to do."""
    vast.has(9001, label=label())
    vast.has(9002, label=label("endpoint-0a1b2c3d"))
    vast.has(9003, label=f"{STACK}endpoint-instance/unfit-load_late-0123456789")
    vast.has(9011, label=label("assistant", siblings_key))
    vast.has(9012, label=f"{STACK}assistant-0a1b2c3d-instance/0123456789")
    finalizer.delete("p/s/endpoint", created(OWN))
    assert sorted(vast.contracts) == [9011, 9012]
    said = capsys.readouterr().out
    assert "instance 9011" not in said
    assert "instance 9012" not in said


def test_one_of_an_older_release_leaves_a_new_sibling(vast):
    """Its state has no name: nothing was written when the second endpoint came."""
    older = {"label_prefix": STACK, "public_key": KEY, "losses": {}}
    vast.has(9001, label=label())
    vast.has(9002, label=f"{STACK}endpoint-instance/0123456789")
    vast.has(9011, label=label("assistant", SIBLINGS_KEY))
    finalizer.delete("p/s/", older)
    assert sorted(vast.contracts) == [9011]


def test_one_of_the_oldest_release_leaves_whatever_has_an_owner(vast):
    vast.has(9001, label=f"{STACK}endpoint-instance/0123456789")
    vast.has(9011, label=label("assistant", SIBLINGS_KEY))
    finalizer.delete("p/s/", {"label_prefix": STACK})
    assert sorted(vast.contracts) == [9011]


def test_a_second_endpoint_is_new_beside_a_machine_of_the_first(vast, capsys):
    vast.has(9001, label=label())
    unknown = {**SIBLING, "public_key": None}
    assert reasons({}, unknown) == ""
    assert "9001" not in capsys.readouterr().out
    vast.has(9011, label=label("assistant", "of another backend"))
    assert "something billed under the label p/s/assistant: $6.00/h (9011" in reasons({}, unknown)


def test_each_says_what_its_own_endpoint_costs(vast, capsys):
    vast.has(9001, label=label())
    vast.has(9011, label=label("assistant", SIBLINGS_KEY))
    for state in (OWN, SIBLING):
        assert reasons(state, state) == ""
    first, second = capsys.readouterr().out.splitlines()
    assert "under the label p/s/endpoint: $6.00/h (9001 for endpoint-instance at" in first
    assert "under the label p/s/assistant: $6.00/h (9011 for assistant-instance" in second


@pytest.mark.usefixtures("vast")
def test_a_state_of_an_older_release_has_no_change_and_is_refused_nothing(vast):
    older = {"label_prefix": STACK, "public_key": KEY, "interruptible": False, "losses": {}}
    news = {**OWN, "interruptible": False, "losses": None}
    vast.has(9001, label=label())
    assert reasons(older, news) == ""
    assert finalizer.diff("p/s/", older, news).changes is False
    assert finalizer.read("p/s/", older).outs == older
    assert updated(older, {**news, "interruptible": True})["endpoint"] == "endpoint"


def test_one_that_was_renamed_still_ends_what_has_its_former_name(vast):
    state = created(OWN)
    news = {**OWN, "endpoint": "chat"}
    assert finalizer.diff("p/s/endpoint", state, news).changes is True
    state = updated(state, news)
    vast.has(9001, label=label())
    vast.has(9002, label=label("chat"))
    # A new endpoint has the former name.
    vast.has(9011, label=label("endpoint", SIBLINGS_KEY))
    finalizer.delete("p/s/endpoint", state)
    assert sorted(vast.contracts) == [9011]


class Sticky(dict[int, Any]):
    """Contracts, of which 9001 stays whatever is asked."""

    def __delitem__(self, id_: int) -> None:
        if id_ != 9001:
            super().__delitem__(id_)


def test_one_that_stays_under_a_former_name_does_not_keep_the_others_billed(vast):
    state = updated(created(OWN), {**OWN, "endpoint": "chat"})
    vast.has(9001, label=label())
    vast.has(9002, label=label("chat"))
    vast.contracts = Sticky(vast.contracts)
    with pytest.raises(StillBilled, match="9001"):
        finalizer.delete("p/s/endpoint", state)
    assert sorted(vast.contracts) == [9001]


def test_back_under_its_first_name_it_has_none_but_the_other_as_a_former_one(vast):
    del vast
    state = created(OWN)
    for name in ("chat", "endpoint"):
        state = updated(state, {**OWN, "endpoint": name})
    assert [one["endpoint"] for one in state["former"]] == ["chat"]


def test_it_waits_for_no_siblings_rent_call(vast, capsys):
    clock = current().clock
    file = current().market().shared(f"x{SUFFIX}")
    with RentJournal(file, clock, Progress("", clock, print)).locked() as entry:
        entry.record_intent(label("assistant", SIBLINGS_KEY))
    finalizer.delete("p/s/endpoint", created(OWN))
    assert "may not be listed yet" not in capsys.readouterr().out
    assert vast.writes() == []


def test_a_siblings_losses_do_not_count(vast):
    note = PreemptionLog(current().market().shared(PREEMPTIONS_FILE), current().clock)
    loss: dict[str, Any] = {"at": current().clock.epoch(), "dollars": 1.0}
    note.add(f"{STACK}endpoint-instance/", "9001", loss)
    note.add(f"{STACK}assistant-instance/", "9011", loss)
    # As an older release notes it.
    note.add(STACK, "9000", loss)
    del vast
    state = created({**OWN, "interruptible": True})
    outs = finalizer.read("p/s/endpoint", state).outs or {}
    assert sorted(outs["losses"]) == ["9000", "9001"]
