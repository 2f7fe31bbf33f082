"""What a schedule ends: machines past their own recorded end, and nothing else."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.resources.context import Context
from components.vast.api.models import Instance
from components.vast.errors import StillBilled, WrongAccount
from components.vast.lifecycle.auto_shutdown import OVERDUE
from components.vast.quarantine import quarantine_label
from tests.helpers.fake_instances import FakeInstances
from tests.helpers.fakes import VirtualClock
from tests.helpers.offers import instance
from tests.helpers.places import ROOT
from toolchain.overdue import Recorded, end_overdue, recorded_in

NOW = 1_800_000_000.0
LABEL = "vast-vllm/dev/endpoint-instance/abc"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AccountContext(Context):
    account: FakeInstances

    def market(self, *, patient: bool = True) -> Any:
        del patient
        return self.account


def contract(id_: int, label: str = LABEL) -> Instance:
    return Instance.from_json(instance(id=id_, label=label, dph_total=6.0))


def recorded(id_: int, ends_at: float, **changes: Any) -> Recorded:
    known = Recorded("dev", id_, LABEL, ends_at, account_id=4711, is_changing=False)
    return dataclasses.replace(known, **changes)


LATE, SOON = NOW - OVERDUE - 1, NOW - OVERDUE + 1


def ended(account: FakeInstances, *records: Recorded, end: bool = True) -> tuple[int, list[str]]:
    said: list[str] = []
    context = AccountContext(clock=VirtualClock(NOW), say=said.append, account=account)
    return end_overdue(context, records, end=end), said


def test_a_machine_past_its_recorded_end_is_ended_and_read_back():
    account = FakeInstances(contract(7), contract(8))
    status, said = ended(account, recorded(7, LATE), recorded(8, SOON))
    assert status == 0
    assert sorted(account.contracts) == [8]
    assert "instance 7 of stack dev was to destroy itself at 2027-01-15 07:49 UTC" in said[0]
    assert said[-1] == "instance 7 is gone and costs nothing any more"


def test_it_is_shown_alone_unless_its_end_is_asked_for():
    account = FakeInstances(contract(7))
    status, said = ended(account, recorded(7, LATE), end=False)
    assert (status, sorted(account.contracts)) == (1, [7])
    assert "$6.00/h" in said[0]


@pytest.mark.parametrize(
    ("changes", "label", "why"),
    [
        ({"is_changing": True}, LABEL, "an operation on it is pending"),
        ({}, "vast-vllm/dev/other-instance/abc", "it carries the label vast-vllm/dev/other"),
        ({}, "", "it carries the label (none)"),
        ({"label": ""}, LABEL, "it carries the label"),
    ],
)
def test_one_that_may_be_needed_or_is_another_is_left_and_said_to_be(changes, label, why):
    account = FakeInstances(contract(7, label))
    status, said = ended(account, recorded(7, LATE, **changes))
    assert (status, sorted(account.contracts)) == (1, [7])
    assert why in said[-1]


def test_one_that_was_marked_unfit_is_the_same_one():
    account = FakeInstances(contract(7, quarantine_label(LABEL, "download_slow")))
    assert ended(account, recorded(7, LATE))[0] == 0
    assert account.contracts == {}


def test_one_that_is_gone_is_nothing_to_end_unless_the_key_is_of_another_account():
    account = FakeInstances()
    assert ended(account, recorded(7, LATE)) == (0, [])
    account.account = 1
    with pytest.raises(WrongAccount, match="instance 7 was rented on account 4711"):
        ended(account, recorded(7, LATE))


def test_one_that_does_not_go_keeps_nobody_from_ending_the_others():
    account = FakeInstances(contract(7), contract(8), contract(9))
    account.stuck, account.forbidden = {7}, {8}
    with pytest.raises(StillBilled, match=r"instance 7 is not proven gone.*; instance 8 "):
        ended(account, *(recorded(one, LATE) for one in (7, 8, 9)))
    assert sorted(account.contracts) == [7, 8]


ENDS = st.sampled_from([0.0, 1.0, LATE, SOON, NOW, NOW + 9e6])
RECORDS = st.lists(
    st.builds(
        recorded,
        st.integers(1, 6),
        ENDS,
        is_changing=st.booleans(),
        label=st.sampled_from([LABEL, "vast-vllm/dev/other/abc", ""]),
    ),
    unique_by=lambda one: one.instance_id,
)


@given(RECORDS, st.sets(st.integers(1, 9)))
def test_whatever_is_recorded_and_rented_nothing_else_is_ever_ended(records, alive):
    account = FakeInstances(*map(contract, alive))
    ended(account, *records)
    by_id = {one.instance_id: one for one in records}
    for id_ in alive:
        one = by_id.get(id_)
        overdue = one is not None and 0 < one.ends_at <= LATE
        mine = one is not None and one.label == LABEL and not one.is_changing
        assert (id_ not in account.contracts) is (overdue and mine)


def test_a_state_is_read_as_pulumi_exports_it():
    kind = "vast-vllm:index:ModelEndpoint$pulumi-python:dynamic/vast:Instance"
    outs = {"label": LABEL, "ends_itself_at": NOW, "account_id": 4711}
    deployment = {
        "resources": [
            {"type": "pulumi:pulumi:Stack", "urn": "s"},
            {"type": kind, "urn": "a", "id": "7", "outputs": outs},
            {"type": kind, "urn": "b", "id": "8", "delete": True},
            {"type": kind, "urn": "c", "outputs": outs},
        ],
        "pending_operations": [{"type": "updating", "resource": {"urn": "b"}}],
    }
    assert recorded_in("dev", deployment) == [
        Recorded("dev", 7, LABEL, NOW, 4711, is_changing=False),
        Recorded("dev", 8, "", 0.0, 0, is_changing=True),
    ]
    assert recorded_in("dev", {}) == []


def test_a_state_of_an_older_release_has_no_end_that_could_be_over():
    exported = json.loads((ROOT / "tests/states/2026-11-24.json").read_text())
    (one,) = recorded_in("old", exported["deployment"])
    assert (one.instance_id, one.ends_at) == (1001, 0.0)
    assert one.label.startswith("vast-vllm/old/endpoint-instance/")
