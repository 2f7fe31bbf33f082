"""What holds among the endpoints of one program."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.endpoints import Declared, EndpointRefused, check

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
