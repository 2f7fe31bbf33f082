"""Whatever the market and the host write, what the commands print is text and nothing else."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from emulator.hostile import RUDE, RUDE_FIELDS
from tests.helpers.places import ROOT
from tests.helpers.polling import eventually
from tests.helpers.stack_fixtures import own_emulator, own_stack
from tests.helpers.stack_world import Emulator, Stack
from tests.unit.core.test_display import MARKS

SMALL = {
    "model": "qwen2.5-0.5b-1x4090",
    "offerQuery": "num_gpus=1 gpu_ram>=20",
    "datacenterOnly": False,
    "minReliability": "0.5",
    "readyMinutes": 3,
}
ALWAYS = 100_000


emulator = own_emulator()
stack = own_stack("rude", SMALL)


def printed(stack: Stack, command: str, *arguments: str) -> tuple[int, str]:
    """Run a command as a CI does; its output, byte for byte, is text and nothing else."""
    words = ["pulumi", "--non-interactive", "--color", "never", command, "--stack", stack.name]
    if command != "stack":
        words += ["--config-file", str(stack.config_file)]
    done = subprocess.run(
        [*words, *arguments],
        cwd=ROOT,
        env=dict(stack.environment),
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
    )
    text = done.stdout.decode()
    for line in text.split("\n"):
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", line), repr(line)
        assert not MARKS.search(line), repr(line)
        assert not re.search(r"##\w*\[", line), repr(line)
        assert not line.lstrip().startswith("::"), repr(line)
    assert "Traceback" not in text, text
    return done.returncode, text


YES = ("--yes", "--skip-preview")
SEEN = "::error::fake"
"""Of `RUDE`, what is left of it wherever it is printed."""


def test_what_is_armed_is_rude_indeed() -> None:
    assert {"\x1b", "\x9b", "\u202e", "\r", "\u2028"} <= set(RUDE)
    assert "##[" in RUDE
    assert "\n::" in RUDE


def test_a_preview_of_a_rude_market(stack: Stack, emulator: Emulator) -> None:
    emulator.arm("rude", ALWAYS, fields=f"{RUDE_FIELDS},gpu_name")
    status, text = printed(stack, "preview")
    emulator.disarm()
    assert status == 0, text
    assert SEEN in text


def test_a_server_that_logs_rudely(stack: Stack, emulator: Emulator) -> None:
    """Its last lines are shown, and the error that they lead to."""
    emulator.arm("rude", ALWAYS)
    emulator.arm("bad_flag", 1, flag=f"--x{RUDE}")
    status, text = printed(stack, "up", *YES)
    assert status != 0, text
    assert "the log's last lines" in text
    assert SEEN in text
    assert printed(stack, "destroy", *YES)[0] == 0


def test_a_host_that_lies_rudely(stack: Stack, emulator: Emulator, tmp_path: Path) -> None:
    status, text = printed(stack, "up", *YES)
    assert status == 0, text
    assert SEEN in printed(stack, "stack", "output")[1] + text
    (one,) = emulator.status()["contracts"]
    emulator.arm("hostile", 1, mode="lies", over="both", id=str(one["id"]))
    eventually(lambda: len(emulator.status()["faults"]) == 1)
    status, text = printed(stack, "refresh", *YES)
    assert status == 0, text
    assert printed(stack, "preview")[0] == 0
    assert printed(stack, "up", *YES)[0] != 0
    plan = tmp_path / "state.json"
    assert printed(stack, "stack", "export", "--file", str(plan))[0] == 0
    assert "\\u001b" not in plan.read_text()
    status, text = printed(stack, "destroy", *YES)
    assert status == 0, text
    assert emulator.status()["contracts"] == []
