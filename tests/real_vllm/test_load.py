"""`make load` against a real vLLM: real guidellm, the stack's authority, the gate, the key."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.stack_world import run
from tests.real_vllm.world import NAME, PROFILE, RealStack
from toolchain.day_two.load import installed
from toolchain.real_vllm.set_up import VERSION

pytestmark = pytest.mark.timeout(1800)

LOADS = ("--clients", "1,2,4", "--prompt", "64", "--answer", "8", "--each", "40")
"""On two busy cores it writes a few tokens a second."""


def load(stack: RealStack, home: Path, *words: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "toolchain.day_two.load", "--stack", stack.name, "--account"]
    environment = {**stack.environment, "STACK_HOME": str(home)}
    done = run([*command, "--json", *words], environment)
    assert stack.outputs()["api_key"] not in done.output
    assert done.status == 0, done.outcome()
    (line,) = [one for one in done.output.splitlines() if one.startswith("{")]
    return dict(json.loads(line))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def twice(stack: RealStack, home: Path) -> list[dict[str, Any]]:
    done = stack.up()
    assert done.status == 0, done.outcome()
    installed.ensure()
    return [load(stack, home, *LOADS), load(stack, home, *LOADS)]


def test_each_load_is_measured_as_it_was_asked_for(twice):
    for answer in twice:
        conditions = answer["test"]["conditions"]
        assert conditions["model"] == NAME
        assert conditions["profile"] == PROFILE
        assert conditions["vllm"] == VERSION.partition("+")[0]
        points = answer["test"]["points"]
        assert [one["load"] for one in points] == [1, 2, 4]
        assert {(one["failed"], one["answer_tokens"]) for one in points} == {(0, 8)}
        # Each letter is a token here, and so is each of the settings that the template adds.
        assert all(64 < one["prompt_tokens"] < 120 for one in points)
        assert all(0 < one["first_token"]["p50"] < one["request"]["p50"] for one in points)


def test_a_second_test_is_compared_with_the_first(twice):
    """By load; on a CPU other work decides how near they are, so no distance is asked for."""
    first, again = (answer["test"]["points"] for answer in twice)
    shares = [
        later["tokens_per_second"] / before["tokens_per_second"] - 1
        for before, later in zip(first, again, strict=True)
    ]
    assert twice[0]["apart"] == []
    assert [one["tokens_per_second"] for one in twice[1]["apart"]] == pytest.approx(shares)
    (said,) = [note for note in twice[1]["notes"] if note.startswith("against the test of")]
    within = sum(one["is_within_noise"] for one in twice[1]["apart"])
    assert f"{within} of 3 loads are within the noise of both" in said


def test_it_is_kept_for_this_user_alone_without_the_key(twice, stack):
    for answer in twice:
        path = Path(answer["file"])
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        text = path.read_text()
        assert stack.outputs()["api_key"] not in text
        assert json.loads(text)["points"] == answer["test"]["points"]
        assert "<svg" in Path(answer["picture"]).read_text()


def test_pictures_and_rates_are_asked_for_too(stack, home, twice):
    del twice
    few = ("--rates", "0.2", "--prompt", "32", "--answer", "4", "--each", "40")
    answer = load(stack, home, *few, "--picture", "224x224", "--shared", "16")
    (found,) = answer["test"]["points"]
    assert found["failed"] == 0
    # 32 of the text and as many of the template; a picture of this size has 64 and more.
    assert found["prompt_tokens"] > 110
