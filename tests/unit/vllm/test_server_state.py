"""A server's state: what is written is read back, and so is what older releases wrote."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import pulumi
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.property_bag import Properties, StateUnreadable
from components.machine.remote_host import RemoteHost
from components.machine.ssh_types import HostAddress
from components.vllm.hub_references import HubFile
from components.vllm.server_state import (
    OUTPUTS,
    REPLACE_ON_CHANGE,
    RESTART_ON_CHANGE,
    SECRET,
    UPDATE_IN_PLACE,
    ServerInputs,
    ServerState,
    changed_inputs,
)
from tests.helpers.places import ROOT
from tests.helpers.server_bags import FIRST_RELEASE, inputs_of, state_bag, state_of

TESTS = ROOT / "tests"
NAMES = json.loads((TESTS / "faults/first_release.json").read_text())
NOVEMBER = json.loads((TESTS / "states/2026-11-24.json").read_text())
SERVER = "pulumi-python:dynamic/vllm:Server"

NUMBERS = st.floats(0, 1e12, allow_nan=False)
WHOLE = st.integers(0, 2**40)
TEXTS = st.text(max_size=8)
FILES = st.lists(st.builds(HubFile, TEXTS, WHOLE, TEXTS), max_size=2).map(tuple)
INPUTS = st.builds(
    ServerInputs,
    instance_id=WHOLE.map(str),
    host=st.builds(RemoteHost, st.builds(HostAddress, TEXTS, WHOLE), TEXTS, TEXTS),
    host_port=WHOLE,
    host_key_from=st.none() | TEXTS,
    token_for=st.lists(TEXTS, max_size=2).map(tuple),
    stack_key=st.none() | TEXTS,
    stack_key_digest=TEXTS,
    key_generation=st.none() | WHOLE,
    max_model_len=WHOLE,
    download_gb=NUMBERS,
    image_gb=st.none() | NUMBERS,
    disk_gb=st.none() | NUMBERS,
    commits=st.none() | st.dictionaries(TEXTS, TEXTS, max_size=2),
    hub_files=st.none() | st.dictionaries(TEXTS, FILES, max_size=2),
    authorities=st.none() | TEXTS,
    leaf=TEXTS,
    client_certificate=st.none() | TEXTS,
    key_grace_minutes=NUMBERS,
    max_request_mib=st.none() | WHOLE,
    ready_minutes=NUMBERS,
    drain_minutes=st.none() | NUMBERS,
    rollout=st.none() | TEXTS,
    unknown=st.just(frozenset()),
)
STATES = st.builds(
    ServerState,
    inputs=INPUTS,
    status=st.none() | TEXTS,
    companion_revisions=st.dictionaries(TEXTS, TEXTS, max_size=2),
    files=FILES,
    files_compared=st.lists(TEXTS, max_size=2).map(tuple),
    boot_seconds=st.dictionaries(TEXTS, NUMBERS, max_size=2),
    replaced_keys=st.dictionaries(TEXTS, NUMBERS, max_size=2),
)


def through_pulumi(bag: Mapping[str, Any]) -> Properties:
    """A bag as it comes back: all numbers are floats, and what is None is left out."""
    return dict(json.loads(json.dumps(bag), parse_int=float))


@given(STATES)
def test_a_state_is_read_back_as_it_was_written(state: ServerState) -> None:
    assert ServerState.from_bag(through_pulumi(state.to_bag())) == state


@given(INPUTS)
def test_so_are_inputs(inputs: ServerInputs) -> None:
    assert ServerInputs.from_bag(through_pulumi(inputs.to_bag())) == inputs
    assert None not in inputs.to_bag().values()


@given(INPUTS, st.data())
def test_what_a_preview_does_not_know_stays_unknown_and_counts_as_changed(
    inputs: ServerInputs, data: st.DataObject
) -> None:
    bag = inputs.to_bag()
    names = data.draw(st.sets(st.sampled_from(sorted(bag))))
    known = {name: value for name, value in bag.items() if name not in names}
    unknown = {name: [pulumi.output.Unknown()] for name in names}
    read = ServerInputs.from_bag({**known, **unknown})
    assert read.unknown == names
    assert read.to_bag() == known
    assert set(changed_inputs(inputs, read, sorted(bag))) == names


# --------------------------------------------------------------------------- older releases


def exported() -> tuple[Properties, Properties]:
    """The server's inputs and outputs in a state of November; its secrets are words here."""
    (resource,) = (one for one in NOVEMBER["deployment"]["resources"] if one["type"] == SERVER)
    plain = dict.fromkeys(SECRET, "secret") | {"replaced_keys": {}, "boot_seconds": {"a": 1.0}}

    def in_plain(part: str) -> Properties:
        return {name: plain.get(name, value) for name, value in resource[part].items()}

    return in_plain("inputs"), in_plain("outputs")


def test_a_state_of_november_is_written_as_it_came_until_a_value_changes() -> None:
    _, outputs = exported()
    del outputs["__provider"]
    state = ServerState.from_bag(outputs)
    assert state.to_bag() == outputs
    found = dataclasses.replace(state, status="hangs")
    assert found.to_bag() == {**outputs, "status": "hangs"}
    changed = dataclasses.replace(state, inputs=dataclasses.replace(state.inputs, leaf="PEM"))
    assert changed.to_bag() == {**outputs, "leaf": "PEM"}


def test_it_is_read_as_this_release_would_have_written_it() -> None:
    inputs, outputs = exported()
    state = ServerState.from_bag(outputs)
    assert state.inputs.shared_api_key
    assert state.inputs.stack_key_digest == outputs["key_digest"]
    assert state.former_certificate == outputs["ca_certificate"]
    assert state.inputs == ServerInputs.from_bag(inputs)


def test_the_properties_of_the_first_release_are_all_that_is_needed() -> None:
    inputs = {*NAMES[SERVER]["inputs"]} - {"__provider"}
    assert {*FIRST_RELEASE} <= inputs
    assert inputs_of().unknown == frozenset()
    assert state_of().status == "ready"


# --------------------------------------------------------------------------- kinds of inputs


def test_every_input_says_what_its_change_means() -> None:
    """Those that mean nothing by themselves are named here."""
    own = {field.name for field in dataclasses.fields(ServerInputs)} - {"host", "unknown"}
    names = own | {"public_ip", "ssh_port", "host_key", "private_key"}
    quiet = {"host_key_from", "token_for", "stack_key", "previous_key_digest", "key_scope"}
    assert {*REPLACE_ON_CHANGE, *RESTART_ON_CHANGE, *UPDATE_IN_PLACE} == names - quiet - {
        "image_gb",
        "disk_gb",
        "rehearse",
        "replica",
        "replicas",
        "former_keys",
        "metrics",
    }


def test_outputs_are_no_inputs() -> None:
    assert not {*OUTPUTS} & {*REPLACE_ON_CHANGE, *RESTART_ON_CHANGE, *UPDATE_IN_PLACE}
    assert {*SECRET} - {*OUTPUTS} == {*SECRET} - {"api_key"}


# --------------------------------------------------------------------------- what cannot be read


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ssh_port", "hunter2"),
        ("ssh_port", 0.5),
        ("tls", "hunter2"),
        ("private_key", 7.0),
        ("commits", ["hunter2"]),
        ("hub_files", {"hunter2": [{}]}),
        ("boot_seconds", {"hunter2": "x"}),
        ("instance_id", "hunter2"),
        ("ready_minutes", True),
    ],
)
def test_an_error_names_the_property_and_not_its_value(name: str, value: Any) -> None:
    with pytest.raises(StateUnreadable) as caught:
        ServerState.from_bag(state_bag(**{name: value}))
    assert f"`{name}` is none of its kind" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", [*FIRST_RELEASE, "api_key", "key_digest"])
def test_a_property_that_every_release_wrote_is_missed(name: str) -> None:
    bag = state_bag()
    del bag[name]
    with pytest.raises(StateUnreadable, match=f"`{name}` is missing"):
        ServerState.from_bag(bag)


def test_no_secret_is_in_a_repr() -> None:
    secrets = dict.fromkeys(SECRET, "s3cret")
    assert "s3cret" not in repr(ServerState.from_bag(state_bag(**secrets)))
    assert "s3cret" not in repr(ServerState.from_bag(state_bag(**secrets)).target)
