"""What the end of a machine reads of its state: whatever that lacks, the bill has to end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.property_bag import StateUnreadable
from components.vast.instance_state import InstanceState
from components.vast.lifecycle.delete import LeavingInstance
from components.vast.lifecycle.market_end import MarketJob
from tests.helpers.states import PREFIX, first_rented, rented

WHOLE = rented(
    account_id=4711.0,
    losses={"9001": {"at": 1.0, "dollars": 2.0}},
    market_job=3.0,
    market_ends_at=7200.0,
)
VALUES = st.none() | st.text(max_size=3) | st.floats() | st.lists(st.integers()) | st.booleans()


def test_all_that_the_end_needs_is_read():
    assert LeavingInstance.from_bag(WHOLE) == LeavingInstance(
        account_id=4711,
        label_prefix=PREFIX,
        machine_id=7,
        carried_label=f"{PREFIX}abc",
        dollars_per_hour=6.0,
        losses={"9001": {"at": 1.0, "dollars": 2.0}},
        market_job=MarketJob(3, 7200.0),
    )


def test_a_state_of_the_first_release_names_no_account_and_no_mark():
    found = LeavingInstance.from_bag(first_rented())
    assert (found.account_id, found.carried_label, found.losses) == (0, "", {})


@given(st.dictionaries(st.sampled_from(sorted(WHOLE.keys() - {"account_id"})), VALUES))
def test_a_state_that_nobody_can_read_keeps_no_machine_from_its_end(spoilt):
    assert LeavingInstance.from_bag({**WHOLE, **spoilt}).account_id == 4711


def test_an_account_that_is_none_is_not_guessed():
    with pytest.raises(StateUnreadable, match="`account_id`"):
        LeavingInstance.from_bag({**WHOLE, "account_id": "mine"})


@pytest.mark.parametrize("port", ["ssh_port", "host_port"])
def test_a_machine_that_had_no_port_at_the_last_look_of_an_older_release_is_read(port):
    """Pulumi leaves out what is None, which that release wrote for a port that was not mapped."""
    bag = {name: value for name, value in rented().items() if name != port}
    found = InstanceState.from_bag(bag)
    assert getattr(found.observed, port) == 0
    assert port not in found.to_bag()
