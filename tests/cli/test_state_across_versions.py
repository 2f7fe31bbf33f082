"""A state that an earlier release really wrote: refreshed, brought up and destroyed by this one.

`states/2026-11-24.json` is a `pulumi stack export` of a stack on an emulator, at the commit that
gave what a stack runs a digest, without the source positions of the machine that it ran on. Its
machine is long gone, as it would be after a month away. `tests/faults` plays states that are older
still on machines that are alive.
"""

from __future__ import annotations

import json

import yaml

from tests.helpers.places import ROOT
from tests.helpers.stack_world import Stack, run

EXPORTED = ROOT / "tests/states/2026-11-24.json"
PASSPHRASE = "the passphrase of an emulated stack"


def imported(stack: Stack) -> None:
    deployment = json.loads(EXPORTED.read_text())["deployment"]
    salt = deployment["secrets_providers"]["state"]["salt"]
    (stack.folder / "passphrase").write_text(PASSPHRASE)
    stack.config_file.write_text(yaml.safe_dump({"encryptionsalt": salt}))
    done = run(
        [
            "pulumi",
            "--non-interactive",
            "stack",
            "import",
            "--stack",
            "old",
            "--file",
            str(EXPORTED),
        ],
        stack.environment,
    )
    assert done.status == 0, done.outcome()


def older_paths() -> dict[str, str]:
    """By type of resource: how the exported state names the class of its provider."""
    resources = json.loads(EXPORTED.read_text())["deployment"]["resources"]
    return {
        resource["type"]: resource["inputs"]["__provider"]
        for resource in resources
        if "__provider" in (resource.get("inputs") or {})
    }


OLDER_PATHS = older_paths()


def named_by_older_paths(stack: Stack) -> set[str]:
    """Let the state name the providers by the paths of the older release; return their types.

    A resource that no `up` updates keeps that path for ever.
    """
    (file,) = (stack.backend / ".pulumi/stacks").rglob("old.json")
    state = json.loads(file.read_text())
    changed = set()
    for resource in state["checkpoint"]["latest"]["resources"]:
        older = OLDER_PATHS.get(resource["type"])
        if older is not None:
            resource["inputs"]["__provider"] = resource["outputs"]["__provider"] = older
            changed.add(resource["type"])
    file.write_text(json.dumps(state, indent=4))
    return changed


def test_a_state_of_november_is_refreshed_brought_up_and_destroyed(emulator, tmp_path):
    stack = Stack(tmp_path, emulator, name="old")
    imported(stack)
    key = stack.outputs()["api_key"]

    refreshed = stack.refresh()
    assert refreshed.status == 0, refreshed.outcome()
    assert "is gone: neither its own page nor the list knows it" in refreshed.output

    up = stack.up()
    assert up.status == 0, up.outcome()
    assert "Traceback" not in up.output
    known = stack.outputs()
    # The machine is another one, and an earlier host has seen that key.
    assert known["api_key"] != key
    assert known["smoke_report"]["ok"] is True
    (contract,) = emulator.status()["contracts"]
    assert contract["id"] == known["instance_id"]

    # What this release has not moved in the state still stands by the path of the older one.
    assert named_by_older_paths(stack) >= OLDER_PATHS.keys()
    again = stack.preview("--expect-no-changes")
    assert again.status == 0, again.outcome()
    destroyed = stack.destroy()
    assert destroyed.status == 0, destroyed.outcome()
    assert emulator.status()["contracts"] == []
