"""States that earlier releases really wrote, and what this release makes of them.

Each file of `tests/states` is a `pulumi stack export` of a stack on an emulator, less the source
positions of the machine that it ran on. Its secrets open nothing: the emulator and its hosts are
gone, and so the passphrase stands here. Every file is kept for what it alone proves:

- `2026-11-24.json`, of the commit that gave what a stack runs a digest, has shared keys and no
  authority. Its preview shows the change-over to what came since, and nothing else.
- `2026-11-28.json`, of the commit before the folders of the code were arranged by layer (e4e00ca),
  has every resource of today. Its preview restarts the server in place with this release's scripts,
  and changes nothing else. It is refreshed, brought up and destroyed; its machine is long gone, as
  it would be after a month away.
- `2026-11-28-one-machine.json`, of the commit before endpoints had several machines (1f957c9), is
  declared by this release as that commit did, input by input, but for the host's scripts.

`tests/faults` plays states that are older still, on machines that are alive.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.places import ROOT
from tests.helpers.stack_world import PROJECT, Emulator, Stack

STATES = ROOT / "tests/states"
CLOCK = """
import time
from components.core.clock import SystemClock
SystemClock.epoch = lambda self: time.time() - {seconds_ago}
"""
"""What Python runs before anything else, as its `sitecustomize`."""

PASSPHRASE = "the passphrase of an emulated stack"

SECRET = "1b47061264138c4ac30d75fd1eb44270"
"""How Pulumi marks a secret in a state (github.com/pulumi/pulumi, sdk/go/common/resource)."""

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""How Pulumi writes a string that it does not know yet (sdk/go/common/resource/plugin)."""

CHANGE_OVER = {
    "endpoint-revisions": "create",
    "endpoint-holdings": "create",
    "endpoint-authority": "create",
    "endpoint-api-key": "update",
    "endpoint-lease": "update",
    "endpoint-offer": "update",
    "endpoint-instance": "replace: image",
    "endpoint-server": "replace",
    "endpoint-smoke-test": "replace",
}
"""By name of a resource: what the preview of the state of 2026-11-24 does to it, as e4e00ca did.

The state has the profile's image of that day. So the machine is replaced, and what runs on it.
"""

NEWER_SCRIPTS = {"endpoint-server": {"agent", "rehearse"}, "endpoint-smoke-test": {"environment"}}
"""By name of a resource: inputs that the preview of the state of 2026-11-28 changes in place."""

NEWEST_SCRIPTS = {"endpoint-server": {"agent"}, "endpoint-smoke-test": {"environment"}}
"""The same of the state with one machine."""


@pytest.fixture
def stack(emulator: Emulator, tmp_path: Path) -> Stack:
    return Stack(tmp_path, emulator, name="old")


def exported(day: str) -> dict[str, Any]:
    return dict(json.loads((STATES / f"{day}.json").read_text())["deployment"])


def file_of(stack: Stack) -> Path:
    return stack.backend / ".pulumi/stacks" / PROJECT / f"{stack.name}.json"


def give(stack: Stack, state: dict[str, Any]) -> None:
    """Let the stack have a state, and the key of its secrets."""
    stack.passphrase = PASSPHRASE
    (stack.folder / "passphrase").write_text(PASSPHRASE)
    salt = state["secrets_providers"]["state"]["salt"]
    stack.config_file.write_text(yaml.safe_dump({"encryptionsalt": salt}))
    checkpoint = json.loads(file_of(stack).read_text())
    checkpoint["checkpoint"]["latest"] = state
    file_of(stack).write_text(json.dumps(checkpoint))


def on_the_day_of(state: dict[str, Any], stack: Stack) -> Stack:
    """The same stack for somebody whose resources have the time of the export.

    A certificate in the state ends some day, and a preview after that day says so.
    """
    written = dt.datetime.fromisoformat(state["manifest"]["time"][:19] + "+00:00")
    folder = stack.folder / "clock"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(
        CLOCK.format(seconds_ago=time.time() - written.timestamp())
    )
    return stack.with_environment({"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"})


def changes(preview: str) -> dict[str, str]:
    """By name of a resource: what a preview would do to it, and why it would be replaced."""
    found = {}
    for step in json.loads(preview[preview.index("{\n") :])["steps"]:
        # An update of a replaced resource's successor has steps of its own.
        if step["op"] in {"create", "update", "replace", "delete"}:
            why = ", ".join(sorted(step.get("replaceReasons") or []))
            found[step["urn"].split("::")[-1]] = f"{step['op']}: {why}" if why else step["op"]
    return found


def differences(preview: str) -> dict[str, set[str]]:
    """By name of a resource that is updated: the inputs that differ."""
    steps = json.loads(preview[preview.index("{\n") :])["steps"]
    found = {}
    for step in steps:
        if step["op"] == "update":
            old, new = step["oldState"]["inputs"], step["newState"]["inputs"]
            # The path of the provider's class moves with the code.
            names = (old.keys() | new.keys()) - {"__provider"}
            found[step["urn"].split("::")[-1]] = {
                name for name in names if old.get(name) != new.get(name)
            }
    return found


def declared(preview: str) -> dict[str, tuple[Any, ...]]:
    """By URN: what the program declares of a resource; see `declaration`."""
    steps = json.loads(preview[preview.index("{\n") :])["steps"]
    return {step["urn"]: declaration(step["newState"]) for step in steps}


def declaration(resource: dict[str, Any]) -> tuple[Any, ...]:
    """What a program says of a resource, by what a state or a preview has.

    Less what moves with the code: the path of the provider's class, and the host's scripts.
    """
    of_the_code = {"__provider", "agent"}
    given = resource.get("inputs", {}).items()
    inputs = {name: of for name, of in given if name not in of_the_code}
    aside = ("parent", "additionalSecretOutputs", "replaceOnChanges", "provider")
    waits_for = sorted(resource.get("dependencies") or [])
    return (without_secrets(inputs), waits_for, *(resource.get(name) for name in aside))


def without_secrets(value: Any) -> Any:
    """Write each secret of a state as a preview writes it."""
    if isinstance(value, list):
        return [without_secrets(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    if SECRET in value.values():
        return "[secret]"
    return {name: without_secrets(entry) for name, entry in value.items()}


def where_known(new: Any, old: Any) -> Any:
    """What a preview does not know yet, as it was: what an update gives out shows at its end."""
    if new == UNKNOWN:
        return old
    if isinstance(new, list | tuple) and len(new) == len(old):
        return type(new)(where_known(one, before) for one, before in zip(new, old, strict=True))
    if isinstance(new, dict) and isinstance(old, dict):
        return {name: where_known(value, old.get(name)) for name, value in new.items()}
    return new


def named_by_paths_of(older: dict[str, Any], stack: Stack) -> None:
    """Let the stack's state name every provider by the path that an exported state has.

    A resource that no `up` updates keeps that path for ever.
    """
    paths = {
        resource["type"]: resource["inputs"]["__provider"]
        for resource in older["resources"]
        if "__provider" in (resource.get("inputs") or {})
    }
    state = stack.state()
    for resource in state["resources"]:
        if path := paths.pop(resource["type"], None):
            resource["inputs"]["__provider"] = resource["outputs"]["__provider"] = path
    assert not paths
    give(stack, state)


def test_states_of_earlier_releases_change_over_or_go_on(stack, emulator):
    november = exported("2026-11-24")
    give(stack, november)
    preview = on_the_day_of(november, stack).preview("--refresh=false", "--json")
    assert preview.status == 0, preview.outcome()
    assert changes(preview.output) == CHANGE_OVER

    newer = exported("2026-11-28")
    give(stack, newer)
    preview = on_the_day_of(newer, stack).preview("--refresh=false", "--json")
    assert preview.status == 0, preview.outcome()
    assert changes(preview.output) == dict.fromkeys(NEWER_SCRIPTS, "update")
    assert differences(preview.output) == NEWER_SCRIPTS

    refreshed = stack.refresh()
    assert refreshed.status == 0, refreshed.outcome()
    assert "is gone: neither its own page nor the list knows it" in refreshed.output

    up = stack.up()
    assert up.status == 0, up.outcome()
    assert "Traceback" not in up.output
    known = stack.outputs()
    # The machine is another one, and what clients trust is still the same.
    assert known["ca_certificate"] == newer["resources"][0]["outputs"]["ca_certificate"]
    assert known["smoke_report"]["ok"] is True
    (contract,) = emulator.status()["contracts"]
    assert contract["id"] == known["instance_id"]

    named_by_paths_of(newer, stack)
    destroyed = stack.destroy()
    assert destroyed.status == 0, destroyed.outcome()
    assert emulator.status()["contracts"] == []


def test_one_machine_is_declared_as_before_there_could_be_several(stack):
    before = exported("2026-11-28-one-machine")
    give(stack, before)
    preview = on_the_day_of(before, stack).preview("--refresh=false", "--json", "--show-sames")
    assert preview.status == 0, preview.outcome()
    assert changes(preview.output) == dict.fromkeys(NEWEST_SCRIPTS, "update")
    assert differences(preview.output) == NEWEST_SCRIPTS
    was = {one["urn"]: declaration(one) for one in before["resources"]}
    now = declared(preview.output)
    # A program declares no default provider.
    assert now.keys() == {urn for urn in was if "pulumi:providers:" not in urn}
    assert {urn: where_known(now[urn], was[urn]) for urn in now} == {urn: was[urn] for urn in now}
