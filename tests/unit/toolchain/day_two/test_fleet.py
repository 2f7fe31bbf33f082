"""What a state says of a stack's machines, and what it must not give away."""

from __future__ import annotations

import copy

import pytest

from components.core.property_bag import StateUnreadable
from tests.helpers.fleets import (
    CONTRACT,
    KEY,
    PASSPHRASE,
    ROUTED,
    deployment,
    destroyed,
    encrypted,
    fleet,
)
from tests.helpers.state_secrets import key_of, salt_of
from toolchain.day_two.command import Asked
from toolchain.day_two.fleet import NoStack, exported, fleet_of


def test_the_key_of_the_state_is_its_passphrases():
    assert key_of(PASSPHRASE, salt_of(encrypted())) == KEY


def test_one_machine_and_no_router():
    found = fleet()
    (machine,) = found.machines
    assert (machine.endpoint, machine.replica, machine.contract) == ("endpoint", 0, CONTRACT)
    assert machine.server is not None
    assert machine.server.api_key == found.outputs["api_key"]
    assert found.router is None
    assert found.contracts == {CONTRACT}


def test_four_machines_behind_a_router():
    found = fleet(4)
    assert [one.replica for one in found.machines] == [0, 1, 2, 3]
    assert found.contracts == {CONTRACT + replica for replica in range(4)}
    assert found.router is not None
    assert found.router.url == ROUTED == found.outputs["endpoint_url"]


@pytest.mark.parametrize(
    ("name", "endpoint", "replica"),
    [
        ("endpoint-instance", "endpoint", 0),
        ("endpoint-0a1b2c3d-instance", "endpoint", 0),
        ("endpoint-r3-instance", "endpoint", 3),
        ("endpoint-r3-0a1b2c3d-instance", "endpoint", 3),
        ("chat-large-instance", "chat-large", 0),
        ("somebody's own name", "somebody's own name", 0),
    ],
)
def test_a_machine_is_found_by_the_name_of_its_resource(name, endpoint, replica):
    state = deployment()
    for resource in state["resources"]:
        resource["urn"] = resource["urn"].replace("::endpoint-instance", f"::{name}")
    (machine,) = fleet_of("old", state).machines
    assert (machine.endpoint, machine.replica) == (endpoint, replica)


def test_a_destroyed_stack_has_nothing():
    found = fleet_of("old", destroyed())
    assert (found.machines, found.router, dict(found.outputs)) == ((), None, {})


def test_a_machine_whose_server_never_came_up_is_there_without_one():
    state = deployment()
    state["resources"] = [
        one for one in state["resources"] if not one["type"].endswith("vllm:Server")
    ]
    state["pending_operations"] = [
        {"type": "creating", "resource": {"urn": "urn:pulumi:old::p::t::endpoint-server"}}
    ]
    found = fleet_of("old", state)
    assert found.machines[0].server is None
    assert found.serving == ()
    assert found.pending == ("creating endpoint-server",)


def test_a_machine_that_is_being_replaced_is_leaving():
    state = deployment()
    old = copy.deepcopy(next(r for r in state["resources"] if r["type"].endswith("vast:Instance")))
    state["resources"].append({**old, "id": "7", "delete": True})
    old["outputs"]["instance_id"] = 7.0
    found = fleet_of("old", state)
    assert [(one.contract, one.is_leaving) for one in found.machines] == [
        (7, True),
        (CONTRACT, False),
    ]


def test_secrets_are_known_and_not_shown():
    found = fleet(2)
    key, pem = found.outputs["api_key"], found.outputs["ssh_private_key"]
    assert key in found.secrets
    inner = pem.splitlines()[2]
    assert inner in found.secrets
    for text in (repr(found), repr(found.machines[0]), str(found.machines)):
        assert key not in text
        assert inner not in text


def test_values_that_a_secret_assigns_are_secrets_and_short_words_are_not():
    state = deployment()
    server = next(r for r in state["resources"] if r["type"].endswith("vllm:Server"))
    kind = "4dabf18193072939515e22adb298388d"
    text = "\"HF_TOKEN='hf_abcdefghijklmnop'\\nMODE=spawn\\n\""
    server["outputs"]["environment"] = {kind: "1b47061264138c4ac30d75fd1eb44270", "plaintext": text}
    secrets = fleet_of("old", state).secrets
    assert "hf_abcdefghijklmnop" in secrets
    assert "spawn" not in secrets


def test_a_state_whose_secrets_are_encrypted_is_unreadable():
    state = deployment()
    kind = "4dabf18193072939515e22adb298388d"
    state["resources"][0]["outputs"]["api_key"] = {kind: "x", "ciphertext": "v1:a:b"}
    with pytest.raises(StateUnreadable, match="cannot be decrypted"):
        fleet_of("old", state)


def test_a_stack_that_was_never_made_is_not_made_by_a_look(tmp_path, monkeypatch):
    monkeypatch.setattr("toolchain.on_emulator.BELONGINGS", tmp_path)
    asked = Asked(stack="typo", on_account=False, as_json=False)
    with pytest.raises(NoStack, match="there is no stack typo on the emulator"):
        exported(asked)
    assert list(tmp_path.iterdir()) == []
