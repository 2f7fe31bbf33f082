from __future__ import annotations

import pytest

from components.core.progress import Progress
from components.vast.api.models import Instance
from components.vast.errors import StillBilled
from components.vast.labels import order_digest, owner_of
from components.vast.rental.termination import Terminator
from tests.helpers.fake_instances import FakeInstances
from tests.helpers.fakes import VirtualClock
from tests.helpers.offers import instance
from toolchain.orphans import Known, ask_pulumi, end_all, find_orphans, ids_in, owners_in, to_end

KEY = "ssh-ed25519 AAAAours"
OURS = owner_of(KEY)
KNOWN = Known(
    owners={"dev": frozenset({OURS}), "prod": frozenset({""})},
    contracts=frozenset({1}),
    pending=frozenset({"prod"}),
)
PULUMI = """#!/bin/sh
case "$*" in
*"stack ls"*) echo '[{"name": "o/vast-vllm/dev"}, {"name": "o/vast-vllm/prod"}, {"name": "new"}]' ;;
*prod*) echo '{"deployment": {"pending_operations": [{"type": "creating"}], '"$LEASE"'}}' ;;
*new*) echo '{"deployment": {}}' ;;
*) echo '{"deployment": {'"$LEASE"'}}' ;;
esac
"""
LEASE = (
    '"resources": [{"type": "vast-vllm:index:E$pulumi-python:dynamic/vast:Lease", "id": "p/s/", '
    f'"outputs": {{"label_prefix": "p/s/", "public_key": "{KEY}"}}}}]'
)


class Account(FakeInstances):
    """One with 2, which stays, and 3, which is not ours."""

    def __init__(self, *contracts: Instance) -> None:
        super().__init__(*contracts)
        self.stuck, self.forbidden = {2}, {3}


def contract(id_: int, label: str, price: float = 6.0) -> Instance:
    return Instance.from_json(instance(id=id_, label=label, dph_total=price))


@pytest.mark.parametrize(
    ("label", "id_", "stack_known"),
    [
        ("vast-vllm/dev/endpoint-instance/abc", 2, True),
        ("vast-vllm/gone/endpoint-instance/abc", 2, False),
        (f"vast-vllm/dev/endpoint-instance/{order_digest(OURS, 'order')}", 2, True),
        # Of a stack of the same name in another backend.
        (f"vast-vllm/dev/endpoint-instance/{order_digest(owner_of('theirs'), 'order')}", 2, False),
        (f"vast-vllm/prod/endpoint-instance/{order_digest(owner_of('theirs'), 'order')}", 2, True),
    ],
)
def test_what_carries_our_label_and_is_in_no_state_is_an_orphan(label, id_, stack_known):
    (orphan,) = find_orphans("vast-vllm", [contract(id_, label)], KNOWN)
    assert orphan.contract.id == id_
    assert orphan.stack_known is stack_known


@pytest.mark.parametrize(
    ("label", "id_"),
    [
        ("vast-vllm/dev/endpoint-instance/abc", 1),  # in a state
        ("vast-vllm-2/dev/endpoint-instance/abc", 2),  # another project
        ("vast-vllm", 2),
        ("", 2),
        ("somebody's own machine", 2),
    ],
)
def test_what_is_known_or_not_ours_is_none(label, id_):
    assert find_orphans("vast-vllm", [contract(id_, label)], KNOWN) == []


def test_the_dearest_is_shown_first():
    cheap = contract(2, "vast-vllm/dev/r/n", price=1.0)
    dear = contract(3, "vast-vllm/dev/r/n", price=2.0)
    assert [one.contract.id for one in find_orphans("vast-vllm", [cheap, dear], KNOWN)] == [3, 2]


@pytest.mark.parametrize(
    ("asked", "ended"),
    [
        ({}, [2]),
        ({"unknown_stacks": True}, [2, 3]),
        ({"pending_stacks": True}, [2, 4]),
        ({"unknown_stacks": True, "pending_stacks": True}, [2, 3, 4]),
    ],
)
def test_what_somebody_may_still_need_is_ended_only_if_that_is_asked_for(asked, ended):
    labels = {2: "vast-vllm/dev/r/n", 3: "vast-vllm/gone/r/n", 4: "vast-vllm/prod/r/n"}
    contracts = [contract(id_, label) for id_, label in labels.items()]
    orphans = find_orphans("vast-vllm", contracts, KNOWN)
    assert [one.contract.id for one in to_end(orphans, **asked)] == ended


def test_one_that_does_not_go_keeps_nobody_from_ending_the_others():
    contracts = [contract(id_, "vast-vllm/dev/r/n") for id_ in (2, 3, 4)]
    account, clock = Account(*contracts), VirtualClock()
    said: list[str] = []
    terminator = Terminator(account, clock, Progress("orphans", clock, lambda _line: None))
    with pytest.raises(StillBilled, match=r"instance 2 is not proven gone.*; instance 3 ") as left:
        end_all(terminator, find_orphans("vast-vllm", contracts, KNOWN), said.append)
    assert "\n" not in str(left.value)
    assert sorted(account.contracts) == [2, 3]
    assert said == ["instance 4 is gone and costs nothing any more"]


def test_stacks_are_named_as_labels_name_them(tmp_path):
    pulumi = tmp_path / "pulumi"
    pulumi.write_text(PULUMI)
    pulumi.chmod(0o700)
    known = ask_pulumi({"PATH": str(tmp_path), "LEASE": LEASE})
    # Who has no lease has never rented: a contract of that name is another backend's.
    assert known.owners == {"dev": {OURS}, "prod": {OURS}}
    assert known.pending == {"prod"}


def test_ids_are_those_of_the_contracts_alone():
    state = {
        "resources": [
            {"type": "pulumi:pulumi:Stack"},
            {"type": "pulumi-python:dynamic/vast:Offer", "id": "offer"},
            {"type": "vast-vllm:index:E$pulumi-python:dynamic/vast:Instance", "id": "9001"},
            {"type": "pulumi-python:dynamic/vast:Instance", "id": "9002", "delete": True},
        ]
    }
    assert ids_in(state) == {9001, 9002}
    assert ids_in({}) == set()


def test_a_stack_knows_the_contracts_of_each_of_its_endpoints():
    keys = [KEY, "ssh-ed25519 AAAAsibling"]
    bags = [{"label_prefix": "vast-vllm/dev/", "public_key": key} for key in keys]
    finalizers = [{"type": "pulumi-python:dynamic/vast:Lease", "outputs": bag} for bag in bags]
    owners = frozenset(owners_in({"resources": finalizers}))
    assert owners == set(map(owner_of, keys))
    known = Known(owners={"dev": owners}, contracts=frozenset({1}), pending=frozenset())
    labels = [f"vast-vllm/dev/r/{order_digest(owner, 'order')}" for owner in sorted(owners)]
    labels.append(f"vast-vllm/dev/r/{order_digest(owner_of('elsewhere'), 'order')}")
    contracts = [contract(id_, label) for id_, label in enumerate(labels, start=2)]
    orphans = find_orphans("vast-vllm", contracts, known)
    assert [one.stack_known for one in orphans] == [True, True, False]


@pytest.mark.parametrize("resource", [{}, {"outputs": None}, {"outputs": {"public_key": KEY}}])
def test_a_finalizer_that_cannot_be_read_takes_what_carries_the_label_for_its_own(resource):
    state = {"resources": [{"type": "pulumi-python:dynamic/vast:Lease", **resource}]}
    assert owners_in(state) == {""}
