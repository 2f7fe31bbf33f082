"""What holds among the endpoints of one program."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.endpoints import Declared, EndpointRefused, check, release_facts
from components.machine import first_contact
from components.outputs import OF_THE_RELEASE
from components.plan import make_plan
from components.settings import parse
from tests.unit.test_settings import values

STACK = "p/s/"
FIRST = Declared("endpoint", STACK)


def refusal(new: Declared, *others: Declared) -> str:
    try:
        check(new, others, STACK)
    except EndpointRefused as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("endpoint", "two endpoints of this program are called endpoint"),
        ("endpoint2", "the endpoint endpoint begins the name of endpoint2"),
        ("endpoint-instance", "the endpoint endpoint begins the name of endpoint-instance"),
        ("end", "the name of the endpoint end begins the name of endpoint"),
        ("a/b", "'a/b' is no name for an endpoint"),
        ("", "'' is no name"),
        ("a-", "'a-' is no name"),
        ("a\n", "no name"),
        ("assistant", ""),
        ("2026-11.a_b", ""),
    ],
)
def test_names_are_unique_and_none_begins_another(name, said):
    assert said in refusal(Declared(name, STACK), FIRST)
    assert bool(said) == bool(refusal(Declared(name, STACK), FIRST))


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("p/t/", "must begin with p/s/"),
        ("p/s", "must begin with p/s/"),
        ("p/s/team", "end with a slash"),
        # Inside of what the first one's machines are called.
        ("p/s/endpoint-instance/", "the endpoint endpoint begins the name of assistant"),
        ("p/s/team/", ""),
    ],
)
def test_a_label_from_outside_stays_within_the_stack_and_outside_of_siblings(label, said):
    assert said in refusal(Declared("assistant", label), FIRST)
    assert bool(said) == bool(refusal(Declared("assistant", label), FIRST))


def test_two_endpoints_cannot_take_over_one_machine():
    adopting = dataclasses.replace(FIRST, adopt=7)
    second = Declared("assistant", STACK, adopt=7)
    assert "would both take over instance 7: set `adopt` to 0" in refusal(second, adopting)
    assert not refusal(dataclasses.replace(second, adopt=8), adopting)
    assert not refusal(Declared("assistant", STACK), FIRST)


def test_a_stack_hands_on_the_release_of_one_endpoint():
    promoted = dataclasses.replace(FIRST, promote_from="dev")
    second = Declared("assistant", STACK, promote_from="dev")
    assert "a stack says of one endpoint alone what it runs" in refusal(second, promoted)
    assert not refusal(Declared("assistant", STACK), promoted)


@given(
    st.lists(
        st.builds(
            Declared,
            st.from_regex(r"[ab]([ab1-]{0,3}[ab])?", fullmatch=True),
            st.sampled_from([STACK, "p/s/a/", "p/s/b-instance/"]),
        ),
        max_size=5,
    )
)
def test_no_admitted_endpoints_labels_begin_anothers(declared):
    admitted: list[Declared] = []
    for one in declared:
        if not refusal(one, *admitted):
            admitted.append(one)
    for one in admitted:
        others = [other for other in admitted if other is not one]
        assert not any(other.path.startswith(one.path) for other in others)


def facts_of(**changes: Any) -> dict[str, Any]:
    known = {
        "runs": make_plan(parse(values())).as_asked(),
        "files": [],
        "resolved": {},
        "compared": [],
        "smoke_report": {"ok": True},
        "host_key_from": None,
        "name": "r1",
        "let_in": True,
    }
    return release_facts(**{**known, **changes})


def test_a_report_proves_the_digest_that_it_carries_and_no_other():
    digest = facts_of()["digest"]
    assert facts_of()["proven"] is False
    assert facts_of(smoke_report={"ok": True, "digest": digest})["proven"] is True
    assert facts_of(smoke_report={"ok": False, "digest": digest})["proven"] is False
    assert facts_of(smoke_report={"ok": True, "digest": "sha256:" + "1" * 64})["proven"] is False


def test_a_machine_that_nobody_vouched_for_is_taken_by_trust():
    assert facts_of()["host_key"] == first_contact.BY_TRUST
    assert facts_of(host_key_from=first_contact.BY_LOG)["host_key"] == first_contact.BY_LOG
    assert set(OF_THE_RELEASE) < set(facts_of())
