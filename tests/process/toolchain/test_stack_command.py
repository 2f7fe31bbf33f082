"""A command on a stack: its lock, its words, and what is billed when it was interrupted."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from components.vast.api.models import Instance
from tests.helpers.offers import instance
from tests.helpers.places import ROOT
from toolchain.stack_command import INTERRUPTED, Place, billed, run_on_stack
from toolchain.stack_lock import StackLocked

PULUMI = """#!/bin/sh
echo "run \\`pulumi up\\` with $*"
trap 'echo interrupted; exit 1' INT
[ -z "$INTERRUPTED_BY_SOMEBODY" ] || { kill -INT $PPID; sleep 60 >/dev/null 2>&1 & wait; }
exit 0
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    script = tmp_path / "pulumi"
    script.write_text(PULUMI)
    script.chmod(0o755)
    return Place(
        folder=ROOT,
        notes=tmp_path / "notes",
        up="`make up`",
        down="`make down`",
        cancel="`cancel`",
        change=lambda line: line.replace("pulumi up", "make up"),
    )


def environment(folder: Path, **more: str) -> dict[str, str]:
    return {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "PULUMI_BACKEND_URL": f"file://{folder}/state?metadata=skip",
        "HOME": str(folder),
        **more,
    }


def lock(folder: Path, **changes: Any) -> Path:
    path = folder / "state/.pulumi/locks/organization/vast-vllm/dev/1.json"
    path.parent.mkdir(parents=True)
    since = "2027-01-15T08:00:00Z"
    held = {"pid": os.getpid(), "hostname": socket.gethostname(), "timestamp": since, **changes}
    path.write_text(json.dumps(held))
    return path


def test_what_pulumi_says_is_said_in_the_words_of_the_place(place, tmp_path, capfd):
    done = run_on_stack(place, ["up"], "dev", environment(tmp_path), quiet=False)
    assert done.returncode == 0
    assert capfd.readouterr().out == "run `make up` with --non-interactive up\n"


def test_a_stack_that_somebody_works_on_is_left_alone(place, tmp_path, capfd):
    path = lock(tmp_path)
    with pytest.raises(StackLocked, match=f"process {os.getpid()} works on it"):
        run_on_stack(place, ["up"], "dev", environment(tmp_path), quiet=False)
    assert path.exists()
    assert capfd.readouterr().out == ""
    told = run_on_stack(place, ["stack", "output"], "dev", environment(tmp_path), quiet=True)
    assert "stack output" in told.stdout


def test_a_stale_lock_of_an_earlier_command_goes(place, tmp_path, capfd):
    run_on_stack(place, ["up"], "dev", environment(tmp_path), quiet=True)
    (note,) = place.notes.iterdir()
    path = lock(tmp_path, pid=json.loads(note.read_text())["pid"])
    run_on_stack(place, ["destroy"], "dev", environment(tmp_path), quiet=False)
    assert not path.exists()
    assert "the lock was taken away" in capfd.readouterr().err


def test_an_interrupted_command_says_what_is_billed_or_that_nobody_could_say(
    place, tmp_path, capfd
):
    here = environment(tmp_path, INTERRUPTED_BY_SOMEBODY="yes", VAST_URL="http://127.0.0.1:9")
    done = run_on_stack(place, ["up"], "dev", here, quiet=False)
    assert done.returncode == INTERRUPTED
    said = capfd.readouterr()
    assert said.out.endswith("interrupted\n")
    assert "what is billed for the stack dev could not be asked" in said.err
    assert "`make up` goes on with what is there, `make down` ends it" in said.err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        run_on_stack(place, ["up"], "dev", here, quiet=True)


def test_what_is_billed_is_named_with_its_price(place):
    two = [
        Instance.from_json(instance(id=number, dph_total=price))
        for number, price in ((7, 5.1846), (8, 1.0))
    ]
    assert billed("dev", two, place) == (
        "interrupted: instance 7 at $5.18/h, instance 8 at $1.00/h are billed for the stack dev; "
        "`make up` goes on with them, `make down` ends them"
    )
    assert "is billed for the stack dev; `make up` goes on with it" in billed("dev", two[:1], place)
    assert billed("dev", [], place) == "interrupted: nothing is billed for the stack dev"
