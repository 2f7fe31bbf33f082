"""The turn of servers among processes, over real files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from components.resources.rollout_files import SharedRollout
from components.vast.api.locked_file import LockedJsonFile
from tests.helpers.places import ROOT

GROUP = "vast-vllm/dev/chat"

HOLD = f"""\
import sys
import time
from pathlib import Path
from components.resources.rollout_files import SharedRollout
from components.vast.api.locked_file import LockedJsonFile
shared = lambda name: LockedJsonFile(Path(sys.argv[1]) / name)
with SharedRollout(shared, {GROUP!r}).turn() as held:
    print(held, flush=True)
    time.sleep(600)
"""


def rollout(folder: Path, group: str = GROUP) -> SharedRollout:
    return SharedRollout(lambda name: LockedJsonFile(folder / name), group)


def test_one_has_the_turn_until_it_ends_and_all_have_the_notes(tmp_path: Path) -> None:
    with rollout(tmp_path).turn() as first, rollout(tmp_path).turn() as second:
        assert (first, second) == (True, False)
        with rollout(tmp_path, "vast-vllm/dev/other").turn() as of_another_group:
            assert of_another_group
        with rollout(tmp_path).notes() as content:
            content.values["members"] = {"0": {"contract": "7", "serves": True}}
            content.save()
    with rollout(tmp_path).turn() as again, rollout(tmp_path).notes() as content:
        assert again
        assert content.values["members"]["0"]["serves"] is True
    with rollout(tmp_path, "vast-vllm/dev/other").notes() as content:
        assert content.values == {}


def test_a_process_that_dies_lets_go_of_its_turn(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        with rollout(tmp_path).turn() as held:
            assert not held
        holder.kill()
        holder.wait()
        with rollout(tmp_path).turn() as held:
            assert held
