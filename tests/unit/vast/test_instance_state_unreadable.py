"""A machine's state that somebody has spoilt by hand: one sentence, which shows no value."""

from __future__ import annotations

import pytest

from components.core.property_bag import StateUnreadable
from components.vast.instance_state import InstanceInputs, InstanceState
from tests.helpers.states import ordered, rented


@pytest.mark.parametrize("name", ["image", "host_key", "gpu_name", "label"])
def test_a_property_that_is_missing_is_named(name):
    bag = {key: value for key, value in rented().items() if key != name}
    with pytest.raises(StateUnreadable, match=f"`{name}` is missing in the state"):
        InstanceState.from_bag(bag)


@pytest.mark.parametrize(
    "spoilt", [{"disk_gb": "much"}, {"search": "much"}, {"leash": "much"}, {"hourly_cost": "much"}]
)
def test_one_that_is_none_of_its_kind_is_not_shown(spoilt):
    with pytest.raises(StateUnreadable) as caught:
        InstanceState.from_bag(rented(**spoilt))
    assert "much" not in str(caught.value)


def test_inputs_that_cannot_be_read_end_in_a_sentence_as_well():
    with pytest.raises(StateUnreadable, match="none of its kind"):
        InstanceInputs.from_bag(ordered(port="much"))
