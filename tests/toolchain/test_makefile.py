"""What `make` refuses before anything runs; `-n` prints the commands and starts none."""

from __future__ import annotations

import os

import pytest

from tests.stack.world import PATH, Done, run


def make(*words: str) -> Done:
    return run(["make", "-n", *words], {"PATH": PATH, "HOME": os.environ["HOME"]})


@pytest.mark.parametrize(
    ("goal", "instead"),
    [
        ("up", "pulumi up --stack dev"),
        ("preview", "pulumi preview --stack dev"),
        ("refresh", "pulumi refresh --stack dev"),
        ("outputs", "pulumi stack output --stack dev"),
        ("down", "pulumi destroy --stack dev"),
        ("chat", "Use it"),
    ],
)
def test_what_knows_the_emulator_alone_says_so_and_names_pulumis_command(goal, instead):
    done = make(goal, "STACK=dev", "ON=account")
    assert done.status != 0
    assert f"`make {goal}` knows the emulator alone and has done nothing" in done.output
    assert instead in done.output
    assert "toolchain" not in done.output


@pytest.mark.parametrize("goal", ["down", "up", "pin", "orphans", "release", "cost"])
def test_a_place_that_does_not_exist_is_not_the_emulator(goal):
    done = make(goal, "STACK=dev", "NAME=r1", "ON=acount")
    assert done.status != 0
    assert "ON=acount is no place" in done.output
    assert "toolchain" not in done.output


@pytest.mark.parametrize("value", ["0", "no", "false"])
def test_no_is_not_yes(value):
    done = make("orphans", f"DELETE={value}")
    assert done.status != 0
    assert f"DELETE={value} is neither yes nor no" in done.output
    assert "toolchain" not in done.output


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (["release", "STACK=dev"], "NAME"),
        (["promote", "TO=staging"], "RELEASE"),
        (["promote", "RELEASE=r1"], "TO"),
        (["adopt", "STACK=dev"], "INSTANCE"),
    ],
)
def test_what_is_missing_is_asked_for(words, missing):
    done = make(*words)
    assert done.status != 0
    assert f"`make {words[0]}` needs {missing}=..." in done.output
    assert "toolchain" not in done.output


@pytest.mark.parametrize("goal", ["pin", "release", "rollback", "adopt"])
def test_on_the_account_a_stack_is_named(goal):
    done = make(goal, "ON=account", "NAME=r1", "INSTANCE=1")
    assert done.status != 0
    assert "add STACK=..." in done.output


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["down"], "on_emulator --stack local destroy"),
        (["down", "ON="], "on_emulator --stack local destroy"),
        (["orphans"], "toolchain.orphans --emulator"),
        (["orphans", "DELETE=1", "ON=account"], "toolchain.orphans  --delete"),
        (["release", "NAME=r1", "STACK=dev", "ON=account"], '"r1" --stack dev --account'),
        (["promote", "RELEASE=r1", "TO=prod", "ON=account"], '--to "prod" --from "" --account'),
        (["cost", "STACK=dev", "DAYS=3"], "--stack dev --days 3"),
    ],
)
def test_what_is_right_runs(words, command):
    done = make(*words)
    assert done.status == 0, done.outcome()
    assert command in done.output
