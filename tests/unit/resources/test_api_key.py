"""The key of a stack, of which its machines have theirs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.keys import digest
from components.core.property_bag import Properties
from components.resources.api_key import ApiKeyProvider
from components.resources.context import Context, using
from components.vllm.api_key_state import ApiKeyInputs, ApiKeyState
from tests.helpers.fakes import VirtualClock


@pytest.fixture
def said() -> Iterator[list[str]]:
    lines: list[str] = []
    with using(Context(clock=VirtualClock(), say=lines.append)):
        yield lines


def inputs(generation: int = 1, *, shared: bool = False) -> Properties:
    return {"generation": float(generation), "shared": shared}


def made(**changed: Any) -> Properties:
    outs = dict(ApiKeyProvider().create(inputs(**changed)).outs or {})
    assert len(bytes.fromhex(outs["api_key"])) == 24
    return outs


def updated(olds: Properties, news: Properties) -> Properties:
    assert ApiKeyProvider().diff("api-key", olds, news).changes
    outs = dict(ApiKeyProvider().update("api-key", olds, news).outs or {})
    assert outs["digest"] == digest(outs["api_key"])
    assert not ApiKeyProvider().diff("api-key", outs, news).changes
    return outs


def of_an_older_release() -> Properties:
    outs = made()
    del outs["shared"], outs["previous_digest"]
    return outs


def test_a_higher_generation_is_another_key_and_takes_over_from_none(said):
    before = made()
    after = updated(before, inputs(2))
    assert after["api_key"] != before["api_key"]
    assert after["previous_digest"] == ""
    assert said == []


def test_the_key_of_an_older_release_was_seen_by_its_hosts_so_the_stack_gets_another(said):
    before = of_an_older_release()
    after = updated(before, inputs())
    assert after["api_key"] != before["api_key"]
    assert after["previous_digest"] == before["digest"]
    assert ["hosts have seen this stack's key" in line for line in said] == [True]


def test_a_refresh_finds_it_as_an_older_release_has_recorded_it(said):
    recorded = {"generation": 1.0}
    assert not ApiKeyProvider().diff("api-key", of_an_older_release(), recorded).changes
    assert said == []


def test_it_stays_where_machines_are_to_take_it_themselves(said):
    before = of_an_older_release()
    assert not ApiKeyProvider().diff("api-key", before, inputs(shared=True)).changes
    assert said == []


def test_a_key_that_becomes_a_shared_one_is_the_same_and_one_that_was_shared_is_not():
    before = made()
    shared = updated(before, inputs(shared=True))
    assert shared["api_key"] == before["api_key"]
    alone = updated(shared, inputs())
    assert alone["api_key"] != shared["api_key"]
    assert alone["previous_digest"] == shared["digest"]


def test_a_generation_that_rises_as_sharing_ends_leaves_no_machine_its_key():
    shared = made(shared=True)
    assert updated(shared, inputs(2))["previous_digest"] == ""


# --------------------------------------------------------------------------- the state

STATES = st.builds(
    ApiKeyState,
    st.builds(ApiKeyInputs, st.integers(0, 2**40), st.booleans()),
    st.text(),
    st.text(),
    st.none() | st.text(),
)


@given(STATES)
def test_a_state_is_read_back_as_it_was_written(state):
    bag = json.loads(json.dumps(state.to_bag()), parse_int=float)
    assert ApiKeyState.from_bag(bag) == state
    assert None not in bag.values()


def test_a_state_of_an_older_release_is_one_of_a_shared_key():
    state = ApiKeyState.from_bag({"generation": 1.0, "api_key": "s3cret", "digest": "d"})
    assert state.inputs == ApiKeyInputs(1, shared=True)
    assert "s3cret" not in repr(state)
