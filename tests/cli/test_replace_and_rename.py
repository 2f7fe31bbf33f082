"""What a person does to a stack by name: `--replace` and `stack rename`, with the real CLI."""

from __future__ import annotations

import ssl
from typing import Any

import httpx

from components.core.keys import digest
from tests.helpers.polling import eventually
from tests.helpers.stack_fixtures import own_emulator, own_stack
from tests.helpers.stack_world import PROJECT, Emulator, Stack

SMALL = {"model": "qwen2.5-0.5b-1x4090", "datacenterOnly": False, "minReliability": "0.5"}


emulator = own_emulator()
stack = own_stack("before", SMALL, is_up=True)


def urn(stack: Stack, kind: str) -> str:
    (found,) = [one["urn"] for one in stack.state()["resources"] if one["type"].endswith(kind)]
    return str(found)


def keys_on_the_host(emulator: Emulator) -> list[str]:
    """Digests that the gate of the one machine takes."""
    place = emulator.folder / f"emulator/containers/{emulator.contract()['id']}"
    (file,) = place.rglob("serving/allowed_keys")
    return [line.split()[0] for line in file.read_text().splitlines()]


def status_with(known: dict[str, Any], key: str) -> int:
    """What the endpoint of a stack's outputs answers to who shows `key`."""
    trust = ssl.create_default_context(cadata=known["ca_certificate"])
    headers = {"Authorization": f"Bearer {key}"}
    url = f"{known['endpoint_url']}/models"
    return httpx.get(url, headers=headers, verify=trust, trust_env=False).status_code


def test_a_machine_that_is_asked_to_be_replaced_goes_before_the_next_one(stack, emulator):
    before, since = emulator.contract(), emulator.last_request()
    (its_key,) = keys_on_the_host(emulator)
    old_key = stack.outputs()["api_key"]
    done = stack.up("--replace", urn(stack, "vast:Instance"))
    assert done.status == 0, done.outcome()
    after = emulator.contract()
    assert after["id"] != before["id"]
    known = stack.outputs()
    assert known["instance_id"] == after["id"]
    # What the first host has seen opens nothing any more.
    (key_of_the_next,) = keys_on_the_host(emulator)
    assert its_key == digest(old_key) != key_of_the_next == digest(known["api_key"])
    assert status_with(known, old_key) == httpx.codes.UNAUTHORIZED
    assert status_with(known, known["api_key"]) == httpx.codes.OK
    # An offer may have been renumbered since the search; a refused call has changed nothing.
    writes = [call for call in emulator.requests(after=since) if call["writes"]]
    taken = [call["method"] for call in writes if call["status"] < httpx.codes.BAD_REQUEST]
    assert taken == ["DELETE", "PUT"], [(call["path"], call["status"]) for call in writes]


def test_a_server_that_is_asked_to_be_replaced_serves_again(stack, emulator):
    before, since = stack.outputs(), emulator.last_request()
    done = stack.up("--replace", urn(stack, "vllm:Server"))
    assert done.status == 0, done.outcome()
    after = stack.outputs()
    assert after["started_at"] > before["started_at"]
    assert after["instance_id"] == before["instance_id"]
    assert emulator.writes(after=since) == []


def test_a_lease_with_a_machine_is_not_replaced(stack, emulator):
    before = emulator.contract()
    done = stack.up("--replace", urn(stack, "vast:Lease"))
    assert done.status != 0, done.outcome()
    assert "whose lease must not be replaced" in " ".join(done.output.split())
    assert emulator.contract()["id"] == before["id"]


def test_a_renamed_stack_keeps_its_machine(stack, emulator):
    before, since = emulator.contract(), emulator.last_request()
    known = stack.outputs()
    assert stack.rename("after").status == 0
    done = stack.up()
    assert done.status == 0, done.outcome()
    after = emulator.contract()
    assert after["id"] == before["id"]
    assert before["label"].startswith(f"{PROJECT}/before/")
    assert after["label"] == before["label"].replace("/before/", "/after/")
    assert emulator.writes(after=since) == [f"PUT /api/v0/instances/{before['id']}/"]
    assert stack.outputs()["api_key"] == known["api_key"]
    assert stack.outputs()["started_at"] == known["started_at"]
    assert stack.preview("--expect-no-changes").status == 0


def test_a_stack_of_the_same_name_in_another_backend_is_refused_in_preview(
    stack, emulator, tmp_path
):
    colleagues = Stack(tmp_path / "colleague", emulator, stack.name, is_forked=True)
    colleagues.configure(**SMALL)
    done = colleagues.preview()
    assert done.status != 0, done.outcome()
    assert "a stack of the same name in another backend" in " ".join(done.output.split())
    assert colleagues.up().status != 0
    assert colleagues.destroy().status == 0
    assert len(emulator.status()["contracts"]) == 1


def test_what_a_colleague_rented_under_the_same_name_is_no_leftover(stack, emulator, tmp_path):
    ended_at_the_console(emulator, emulator.contract()["id"])
    colleagues = Stack(tmp_path / "colleague", emulator, stack.name, is_forked=True)
    colleagues.configure(**SMALL)
    done = colleagues.up()
    assert done.status == 0, done.outcome()
    theirs = emulator.contract()["id"]
    done = stack.up()
    assert done.status == 0, done.outcome()
    assert f"instance {theirs} (" in done.output
    assert "is left alone" in " ".join(done.output.split())
    ours = stack.outputs()["instance_id"]
    assert {one["id"] for one in emulator.status()["contracts"]} == {ours, theirs}
    assert stack.preview("--expect-no-changes").status == 0
    done = colleagues.destroy()
    assert done.status == 0, done.outcome()
    assert emulator.contract()["id"] == ours


def ended_at_the_console(emulator: Emulator, instance_id: int) -> None:
    answer = httpx.request(
        "DELETE",
        f"{emulator.url}/api/v0/instances/{instance_id}/",
        json={},
        headers={"Authorization": f"Bearer {emulator.key}"},
        trust_env=False,
    )
    assert answer.status_code == httpx.codes.OK, answer.text
    eventually(lambda: emulator.status()["contracts"] == [])
