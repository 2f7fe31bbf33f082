"""The stack's finalizer, as Pulumi calls it, against an HTTP API; and whose account a key is of."""

from __future__ import annotations

import pytest

from components.core.progress import Progress
from components.resources.context import current
from components.resources.instance import InstanceProvider
from components.resources.stack_finalizer import StackFinalizerProvider, inventory
from components.vast.api.models import Instance
from components.vast.endpoint_states import EndpointScope
from components.vast.errors import (
    ApiFailed,
    WrongAccount,
)
from components.vast.labels import order_digest, owner_of
from components.vast.rental.journal import SUFFIX, RentJournal
from tests.helpers.adapters import STOPPED, TAKEN, lost, machine, outputs, reasons, vast
from tests.helpers.offers import instance
from tests.helpers.states import PREFIX, SSH_KEY, first_rented, ordered, rented

__all__ = ["machine", "vast"]  # fixtures


def test_the_state_of_an_older_release_is_no_drift():
    assert InstanceProvider().diff("9001", first_rented(), ordered()).changes is False


def test_a_lease_says_what_is_billed_under_the_stacks_label(vast, capsys):
    vast.has(9001, label=f"{PREFIX}abc")
    vast.has(9002, label="p/s2/endpoint-instance/abc")
    lease = {"label_prefix": "p/s/"}
    assert StackFinalizerProvider().check(lease, lease).failures == []
    said = capsys.readouterr().out
    assert "billed under the label p/s/: $6.00/h (9001 for endpoint-instance at $6.00/h)" in said
    assert "9002" not in said


def test_two_contracts_of_one_resource_are_said_to_be_one_too_many():
    contracts = [
        Instance.from_json(instance(id=id_, label=f"p/s/{resource}/n"))
        for id_, resource in ((1, "a"), (2, "b"), (3, "b"))
    ]
    first, second = inventory(EndpointScope("p/s/"), contracts)
    assert first.startswith("billed under the label p/s/: $18.00/h (1 for a at")
    assert "2 contracts carry the label of b, which has one" in second
    assert inventory(EndpointScope("p/t/"), contracts) == []


def test_a_new_stack_without_a_key_ends_there_and_an_old_one_only_says_so(
    vast, monkeypatch, capsys
):
    monkeypatch.setenv("VAST_API_KEY", "another-key")
    news = {"label_prefix": "p/s/"}
    assert "does not accept the API key" in reasons(StackFinalizerProvider().check({}, news))
    assert StackFinalizerProvider().check(news, news).failures == []
    assert vast.writes() == []
    assert "is not known" in capsys.readouterr().out


def test_a_lease_sweeps_its_own_label_when_it_ends(vast, capsys):
    vast.has(9001, label=f"{PREFIX}abc")
    vast.has(9002, label="p/s2/endpoint-instance/abc")
    vast.has(9003, label="")
    StackFinalizerProvider().delete("p/s/", {"label_prefix": "p/s/"})
    assert sorted(vast.contracts) == [9002, 9003]
    assert "destroying instance 9001" in capsys.readouterr().out


def test_a_lease_tells_what_another_key_rented_apart(vast, capsys):
    vast.has(9001, label=f"p/s/r/{order_digest(owner_of(SSH_KEY), 'ours')}")
    vast.has(9002, label=f"p/s/r/{order_digest(owner_of('of another backend'), 'theirs')}")
    lease = {"label_prefix": "p/s/", "public_key": SSH_KEY}
    assert StackFinalizerProvider().check(lease, lease).failures == []
    said = capsys.readouterr().out
    assert "billed under the label p/s/: $6.00/h (9001 for r at $6.00/h)" in said
    assert "instance 9002" in said
    assert "is left alone" in said
    assert "strays" not in said


def test_a_lease_leaves_alone_what_another_key_rented(vast, capsys):
    vast.has(9001, label=f"p/s/r/{order_digest(owner_of(SSH_KEY), 'ours')}")
    vast.has(9002, label=f"p/s/r/{order_digest(owner_of('of another backend'), 'theirs')}")
    StackFinalizerProvider().delete("p/s/", {"label_prefix": "p/s/", "public_key": SSH_KEY})
    assert vast.writes() == ["DELETE /instances/9001/"]
    assert "instance 9002" in capsys.readouterr().out


def test_a_lease_waits_for_what_a_cut_off_rent_call_may_have_made(vast, capsys):
    clock = current().clock
    file = current().market().shared(f"x{SUFFIX}")
    with RentJournal(file, clock, Progress("", clock, print)).locked() as entry:
        entry.record_intent(f"{PREFIX}abc")
    vast.unlisted_for = 1
    vast.has(9001, label=f"{PREFIX}abc")
    StackFinalizerProvider().delete("p/s/", {"label_prefix": "p/s/"})
    assert vast.contracts == {}
    assert "may not be listed yet" in capsys.readouterr().out


@pytest.mark.usefixtures("vast")
def test_a_lease_notes_its_account_and_is_never_replaced():
    provider, props = StackFinalizerProvider(), {"label_prefix": "p/s/"}
    made = provider.create(props)
    assert (made.id, made.outs) == ("p/s/", {**props, "losses": {}, "account_id": 4711})
    assert provider.read(made.id, outputs(made)).outs == made.outs
    assert provider.diff(made.id, props, props).changes is False
    renamed = provider.diff(made.id, props, {"label_prefix": "p/t/"})
    assert (renamed.changes, renamed.replaces) == (True, [])
    moved = outputs(provider.update(made.id, outputs(made), {"label_prefix": "p/t/"}))
    assert moved == {"label_prefix": "p/t/", "losses": {}, "account_id": 4711}


def test_a_new_lease_is_refused_where_its_label_is_billed_already(vast):
    vast.has(9001, label="p/s/endpoint-instance/abc")
    vast.has(9002, label="p/s2/endpoint-instance/abc")
    (failure,) = StackFinalizerProvider().check({}, {"label_prefix": "p/s/"}).failures
    assert failure.property == ""
    assert "something billed under the label p/s/: $6.00/h (9001" in failure.reason
    assert "whose machines this one would end" in failure.reason
    assert StackFinalizerProvider().check({}, {"label_prefix": "p/other/"}).failures == []
    assert vast.writes() == []


def test_a_stack_is_not_renamed_to_what_is_billed_already(vast):
    vast.has(9001, label="p/s/endpoint-instance/abc")
    vast.has(9002, label="p/t/endpoint-instance/abc")
    finalizer, olds = StackFinalizerProvider(), {"label_prefix": "p/s/"}
    (failure,) = finalizer.check(olds, {"label_prefix": "p/t/"}).failures
    assert "something billed under the label p/t/: $6.00/h (9002" in failure.reason
    assert finalizer.check(olds, {"label_prefix": "p/u/"}).failures == []


def test_a_key_of_another_account_ends_nothing_and_forgets_nothing(vast):
    vast.account_id = 1
    lease = {"label_prefix": "p/s/", "account_id": 4711.0}
    with pytest.raises(WrongAccount, match="account 1, and what carries the label p/s/"):
        StackFinalizerProvider().delete("p/s/", lease)
    with pytest.raises(WrongAccount, match="instance 9001 was rented on account 4711"):
        InstanceProvider().read("9001", rented(account_id=4711.0))
    with pytest.raises(WrongAccount, match="set VAST_API_KEY to a key of account 4711"):
        InstanceProvider().delete("9001", rented(account_id=4711.0))
    assert vast.writes() == []


def test_a_key_that_may_not_see_its_account_is_no_difference(vast):
    vast.broken = {"GET /users/current/"}
    vast.has(9001)
    InstanceProvider().delete("9001", rented(account_id=4711.0))
    assert vast.contracts == {}


def test_while_vast_does_not_name_the_account_nothing_is_concluded(vast):
    vast.failing = {"GET /users/current/"}
    with pytest.raises(ApiFailed, match=r"instance 9001, which stays in the state.*answered 400"):
        InstanceProvider().read("9001", rented(account_id=4711.0))
    vast.has(9001)
    with pytest.raises(ApiFailed, match="/users/current/"):
        InstanceProvider().delete("9001", rented(account_id=4711.0))
    assert vast.writes() == []


def test_what_the_lease_did_not_see_is_counted_by_its_next_refresh(vast):
    """Section 1: the machine was taken away after the lease had looked, and replaced."""
    vast.has(is_bid=True, label=f"{PREFIX}abc")
    lease = {"label_prefix": "p/s/", "interruptible": True}
    early = outputs(StackFinalizerProvider().read("p/s/", lease))
    assert early["losses"] == {}
    vast.has(**STOPPED)
    olds = outputs(InstanceProvider().read("9001", rented(**TAKEN)))
    InstanceProvider().delete("9001", olds)
    assert list(outputs(StackFinalizerProvider().read("p/s/", early))["losses"]) == ["9001"]
    others = {"label_prefix": "q/s/", "interruptible": True}
    assert outputs(StackFinalizerProvider().read("q/s/", others))["losses"] == {}


def test_the_lease_counts_what_was_taken_away_only_where_that_can_happen(vast):
    vast.has(is_bid=True, actual_status="stopped", label=f"{PREFIX}abc", ports={})
    vast.has(9002, is_bid=True, actual_status="stopped", label="q/s/x/abc", ports={})
    provider = StackFinalizerProvider()
    calm = provider.read("p/s/", {"label_prefix": "p/s/"})
    assert (outputs(calm)["losses"], vast.calls) == ({}, [])
    props = {"label_prefix": "p/s/", "interruptible": True}
    once = outputs(provider.read("p/s/", props))
    assert list(once["losses"]) == ["9001"]
    assert outputs(provider.read("p/s/", once))["losses"] == once["losses"]
    changed = provider.diff("p/s/", {"label_prefix": "p/s/"}, props)
    assert (changed.changes, changed.replaces) == (True, [])
    assert outputs(provider.update("p/s/", once, props))["losses"] == once["losses"]


def test_the_lease_stands_when_nobody_says_what_was_taken_away(vast, capsys):
    vast.withdrawn = True
    props = {"label_prefix": "p/s/", "interruptible": True, "losses": lost(1)}
    assert outputs(StackFinalizerProvider().read("p/s/", props)) == props
    assert "whether a machine was taken away is not known" in capsys.readouterr().out
