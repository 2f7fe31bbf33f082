"""States of finalizer and orphan cleanup: written as they were read, older ones as they came."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.property_bag import StateUnreadable
from components.vast.endpoint_states import CleanupState, EndpointScope, FinalizerState, Orphan

SCOPES = st.builds(
    EndpointScope,
    st.just("p/s/"),
    st.none() | st.just("endpoint"),
    st.none() | st.just("ssh-ed25519 A"),
)
MONEY = st.floats(0, 1e6, allow_nan=False)
LOSSES = st.dictionaries(
    st.from_regex(r"[1-9][0-9]{0,6}", fullmatch=True),
    st.fixed_dictionaries({"at": MONEY, "dollars": MONEY}),
    max_size=3,
)
IDS = st.integers(1, 10**9)
FINALIZERS = st.builds(
    FinalizerState,
    SCOPES,
    st.none() | st.booleans(),
    LOSSES,
    st.none() | st.integers(0, 10**9),
    st.lists(SCOPES, max_size=2).map(tuple),
)
CLEANUPS = st.builds(
    CleanupState,
    SCOPES,
    IDS.map(str),
    st.lists(IDS.map(str), max_size=2).map(tuple),
    st.frozensets(IDS, max_size=3),
    st.lists(st.builds(Orphan, IDS, st.text(max_size=9), MONEY), max_size=3).map(tuple),
    st.lists(IDS, max_size=3).map(tuple),
    MONEY,
)


def through_pulumi(bag: dict[str, Any]) -> dict[str, Any]:
    """As Pulumi hands it back: all numbers are floats."""
    return dict(json.loads(json.dumps(bag), parse_int=float))


@given(FINALIZERS)
def test_a_finalizers_state_is_read_as_it_was_written(state):
    assert FinalizerState.from_bag(through_pulumi(state.to_bag())) == state


@given(CLEANUPS)
def test_a_cleanups_state_is_read_as_it_was_written(state):
    assert CleanupState.from_bag(through_pulumi(state.to_bag())) == state


@pytest.mark.parametrize("lacking", [(), ("account_id",), ("account_id", "interruptible")])
def test_a_finalizer_of_an_older_release_is_written_as_it_came(lacking):
    bag = {
        "label_prefix": "p/s/",
        "public_key": "ssh-ed25519 A",
        "interruptible": True,
        "losses": {"9001": {"at": 1.0, "dollars": 2.5}},
        "account_id": 7.0,
    }
    for key in lacking:
        del bag[key]
    assert FinalizerState.from_bag(bag).to_bag() == bag


def test_what_an_older_state_lacks_is_no_change_and_anything_else_is():
    older = EndpointScope("p/s/", None, "ssh-ed25519 A")
    assert not older.differs(EndpointScope("p/s/", "endpoint", "ssh-ed25519 A"))
    assert older.differs(EndpointScope("p/t/", "endpoint", "ssh-ed25519 A"))
    assert older.differs(EndpointScope("p/s/", "endpoint", "ssh-ed25519 B"))
    # A key that is not known yet may become another one.
    assert older.differs(EndpointScope("p/s/", "endpoint", None))
    named = EndpointScope("p/s/", "endpoint", "ssh-ed25519 A")
    assert named.differs(EndpointScope("p/s/", "chat", "ssh-ed25519 A"))


@pytest.mark.parametrize("kind", [FinalizerState, CleanupState])
@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        ({}, "`label_prefix` is missing in the state"),
        ({"label_prefix": "p/s/", "account_id": "much", "looked_at": "much"}, "none of its kind"),
    ],
)
def test_a_spoilt_state_is_refused_in_a_sentence_that_shows_no_value(kind, spoilt, said):
    with pytest.raises(StateUnreadable, match=said) as caught:
        kind.from_bag(spoilt)
    assert "much" not in str(caught.value)
