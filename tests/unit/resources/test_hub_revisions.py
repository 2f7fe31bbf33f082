"""The resource that keeps a stack's commits, against a Hub that answers what a test says."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.property_bag import Properties
from components.resources.context import Context, using
from components.resources.hub_revisions import HubRevisionsProvider
from components.vllm.hub_client import HubAddressRefused
from components.vllm.hub_references import HubFile, Reference, Resolved
from components.vllm.hub_revisions_state import RevisionsInputs, RevisionsState
from tests.helpers.fake_hub import FakeHub
from tests.helpers.fakes import VirtualClock

A, B = "a" * 40, "b" * 40


@dataclasses.dataclass(frozen=True, kw_only=True)
class HubContext(Context):
    fake: FakeHub

    def hub(self) -> Any:
        return self.fake


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def hub(said: list[str]) -> Iterator[FakeHub]:
    fake = FakeHub(A, B)
    with using(HubContext(clock=VirtualClock(), say=said.append, fake=fake)):
        yield fake


def inputs(revision: str = "main", token: str = "") -> Properties:
    wanted = [{"repository": "org/model", "revision": revision}]
    return {"references": wanted, "token": token, "resolved": None}


def checked(olds: Properties, news: Properties) -> Properties:
    result = HubRevisionsProvider().check(olds, news)
    assert not result.failures
    return result.inputs


def commit(bag: Properties) -> str:
    return str(bag["resolved"]["org/model"]["commit"])


def changes(olds: Properties, news: Properties) -> bool:
    return bool(HubRevisionsProvider().diff("x", olds, news).changes)


def test_a_branch_is_resolved_once_and_then_kept(hub: FakeHub, said: list[str]) -> None:
    first = checked({}, inputs())
    assert commit(first) == A
    assert said == []

    hub.main = B
    second = checked(first, inputs())
    assert second == first
    assert not changes(first, second)
    assert "main of org/model has moved on to bbbbbbbbbbbb" in said[0]


def test_another_revision_is_resolved_anew(hub: FakeHub) -> None:
    first = checked({}, inputs())
    hub.main = B
    named = checked(first, inputs(B))
    assert commit(named) == B
    assert changes(first, named)
    assert commit(checked(named, inputs())) == B


def test_a_commit_is_asked_about_once(hub: FakeHub) -> None:
    first = checked({}, inputs(A))
    assert checked(first, inputs(A)) == first
    assert hub.asked == [(A, "")]


def test_the_token_is_asked_with_and_not_kept(hub: FakeHub) -> None:
    assert "hf_secret" not in str(checked({}, inputs(token="hf_secret")))
    assert hub.asked == [("main", "hf_secret")]


def test_without_the_hub_nothing_new_is_taken_but_a_named_commit(
    hub: FakeHub, said: list[str]
) -> None:
    first = checked({}, inputs())
    hub.is_down = True
    assert checked(first, inputs()) == first
    result = HubRevisionsProvider().check({}, inputs())
    (failure,) = result.failures
    assert failure.property == ""
    assert "nobody says which commit main of org/model is" in failure.reason
    named = checked({}, inputs(A))
    assert named["resolved"]["org/model"]["source"] == "setting"
    assert "is taken at aaaaaaaaaaaa" in said[-1]


def test_files_that_become_known_are_an_update(hub: FakeHub) -> None:
    hub.is_down = True
    unseen = checked({}, inputs(A))
    hub.is_down = False
    assert changes(unseen, checked(unseen, inputs(A)))


def test_an_address_that_cannot_be_believed_is_refused_in_check() -> None:
    with using(Context(environment={"HF_ENDPOINT": "http://hub.example"})):
        result = HubRevisionsProvider().check({}, inputs())
    with pytest.raises(HubAddressRefused):
        Context(environment={"HF_ENDPOINT": "http://hub.example"}).hub()
    assert "without TLS" in result.failures[0].reason


TEXTS = st.text(max_size=8)
REFERENCES = st.builds(Reference, TEXTS, TEXTS)
FILES = st.lists(st.builds(HubFile, TEXTS, st.integers(0, 2**50), TEXTS), max_size=2).map(tuple)
RESOLVED = st.builds(
    Resolved, REFERENCES, TEXTS, st.sampled_from(["hub", "setting"]), st.none() | FILES
)


@given(
    st.lists(REFERENCES, max_size=2).map(tuple),
    st.lists(RESOLVED, max_size=2, unique_by=lambda one: one.reference.repository),
)
def test_a_state_is_read_back_as_it_was_written(references, resolved) -> None:
    state = RevisionsState(references, {one.reference.repository: one for one in resolved})
    bag = json.loads(json.dumps(state.to_bag()), parse_int=float)
    assert RevisionsState.from_bag(bag) == state


def test_the_token_is_in_no_repr() -> None:
    assert "hf_secret" not in repr(RevisionsInputs.from_bag(inputs(token="hf_secret")))
