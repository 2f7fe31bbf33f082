"""What holds among the endpoints of one program."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.endpoints import (
    Declared,
    EndpointRefused,
    Proof,
    check,
    passing_router_warning,
    release_facts,
    release_of_several,
    replica_name,
)
from components.machine import first_contact
from components.outputs import OF_THE_RELEASE
from components.plan import make_plan
from components.release.release import ReleaseSpec, digest_of
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


def with_router(name: str, **changes: Any) -> Declared:
    return Declared.of(name, STACK, parse(values(replicas="2", **changes)))


def test_two_routers_of_a_program_have_not_the_same_port_of_a_computer():
    one, other = with_router("a"), with_router("b")
    assert "both have their router at port 8443 of this computer: set another" in refusal(
        other, one
    )
    elsewhere = {"routerHost": "me@router.example", "routerAddress": "192.0.2.7"}
    assert not refusal(with_router("b", **elsewhere), one)
    assert not refusal(with_router("b", routerPort="8444"), one)
    alone = Declared.of("b", STACK, parse(values()))
    assert not refusal(alone, one)


@pytest.mark.parametrize(
    ("changes", "environment", "said"),
    [
        ({"replicas": "2"}, {"CI": "true"}, True),
        ({"replicas": "2"}, {}, False),
        ({"replicas": "2"}, {"CI": ""}, False),
        ({}, {"CI": "true"}, False),
        (
            {"replicas": "2", "routerHost": "me@router.example", "routerAddress": "192.0.2.7"},
            {"CI": "true"},
            False,
        ),
    ],
)
def test_a_router_on_a_computer_that_goes_with_its_job_is_told(changes, environment, said):
    warning = passing_router_warning(parse(values(**changes)), environment)
    assert ("set `routerHost`" in warning) is said


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


RUNS = make_plan(parse(values())).as_asked()
DIGEST = digest_of(RUNS)
PASSED = {"ok": True, "digest": DIGEST}
PROVEN = facts_of(smoke_report=PASSED)


def of_several(*others: Proof, through: dict[str, Any] | None = None) -> dict[str, Any]:
    first = Proof("endpoint", RUNS, PASSED)
    return release_of_several(PROVEN, [first, *others], PASSED if through is None else through)


def another(**changes: Any) -> ReleaseSpec:
    return RUNS.model_copy(update={"profile": RUNS.profile.model_copy(update=changes)})


def test_several_machines_prove_what_each_of_them_and_the_router_have_passed():
    assert of_several(Proof("endpoint-r1", RUNS, PASSED)) == PROVEN


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        (another(revision="0" * 40), "endpoint-r1 runs another commit than endpoint, "),
        (another(gpu_name="H100 NVL"), "endpoint-r1 runs other GPUs than endpoint"),
        (another(gpu_name="H100 NVL", revision="0" * 40), "another commit and other GPUs"),
        (RUNS.model_copy(update={"serve": {}}), "endpoint-r1 runs other options than endpoint"),
    ],
)
def test_a_machine_that_runs_something_else_is_named_and_proves_nothing(runs, said):
    passed = {"ok": True, "digest": digest_of(runs)}
    found = of_several(Proof("endpoint-r1", runs, passed))
    assert found["proven"] is False
    (message,) = found["unproven"]
    assert said in message


@pytest.mark.parametrize(
    "report", [{}, {"ok": False, "digest": DIGEST}, {"ok": True}, {"ok": True, "digest": "other"}]
)
def test_a_machine_or_a_router_that_has_not_passed_proves_nothing(report):
    machine = of_several(Proof("endpoint-r1", RUNS, report))
    assert machine["unproven"] == ["endpoint-r1 has not passed its smoke test"]
    router = of_several(Proof("endpoint-r1", RUNS, PASSED), through=report)
    assert router["unproven"] == ["what runs has not passed the smoke test through the router"]
    assert (machine["proven"], router["proven"]) == (False, False)


@given(st.integers(1, 31), st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z0-9]", fullmatch=True))
def test_a_machine_beyond_the_first_has_a_name_of_its_own_within_the_endpoints(index, name):
    assert replica_name(name, 0) == name
    assert re.fullmatch(rf"{name}-r\d+", replica_name(name, index))
    assert replica_name(name, index) != replica_name(name, index % 31 + 1)
