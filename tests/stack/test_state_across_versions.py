"""A state that an earlier release really wrote: refreshed, brought up and destroyed by this one.

`states/2026-11-24.json` is a `pulumi stack export` of a stack on an emulator, at the commit that
gave what a stack runs a digest, without the source positions of the machine that it ran on. Its
machine is long gone, as it would be after a month away. `tests/faults` plays states that are older
still on machines that are alive.
"""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from tests.stack.world import Stack, run

EXPORTED = Path(__file__).parent / "states/2026-11-24.json"
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

    again = stack.preview("--expect-no-changes")
    assert again.status == 0, again.outcome()
    destroyed = stack.destroy()
    assert destroyed.status == 0, destroyed.outcome()
    assert emulator.status()["contracts"] == []
