"""What `make` refuses before anything runs; `-n` prints the commands and starts none."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.documented import commands
from tests.helpers.examples import examples
from tests.helpers.places import ROOT
from tests.helpers.stack_world import PATH, Done, run

MAKE = shutil.which("make", path=PATH) or "make"


def make(*words: str, **environment: str) -> Done:
    """Have the commands printed; a hundred times for some of the tests, so by no other program."""
    done = subprocess.run(
        [MAKE, "-n", *words],
        cwd=ROOT,
        env={"PATH": PATH, "HOME": os.environ["HOME"], **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return Done(done.returncode, done.stdout)


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
@pytest.mark.parametrize(("goal", "name"), [("orphans", "DELETE"), ("scale", "ONCE")])
def test_no_is_not_yes(goal, name, value):
    done = make(goal, f"{name}={value}", "BUDGET=3/day")
    assert done.status != 0
    assert f"{name}={value} is neither yes nor no" in done.output
    assert "toolchain" not in done.output


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (["release", "STACK=dev"], "NAME"),
        (["promote", "TO=staging"], "RELEASE"),
        (["promote", "RELEASE=r1"], "TO"),
        (["adopt", "STACK=dev"], "INSTANCE"),
        (["scale", "STACK=dev"], "BUDGET"),
    ],
)
def test_what_is_missing_is_asked_for(words, missing):
    done = make(*words)
    assert done.status != 0
    assert f"`make {words[0]}` needs {missing}=..." in done.output
    assert "toolchain" not in done.output


@pytest.mark.parametrize("value", ["1;id", "$(shell id)", "1,-2", "-1", "1 2", "1,`id`"])
@pytest.mark.parametrize("name", ["CLIENTS", "RATES"])
def test_loads_are_numbers_with_commas(name, value):
    done = make("load", f"{name}={value}")
    assert done.status != 0
    assert f"{name} is no list of numbers" in done.output
    assert "toolchain" not in done.output


@pytest.mark.parametrize("loads", ['1:6"; id', "$(shell id)", "-1:6", "1:6\t2:3", "`id`"])
def test_loads_to_measure_are_numbers(loads):
    done = make("measure", f"LOADS={loads}")
    assert done.status != 0
    assert "LOADS is no list of loads" in done.output
    assert "toolchain" not in done.output


def test_loads_to_measure_and_their_cap_reach_the_command():
    done = make("measure", "STACK=dev", "DOLLARS=2.50", "LOADS=1:6 16:48:8192:256")
    assert done.status == 0, done.outcome()
    lines = done.output.replace("\\\n", " ").splitlines()
    (words,) = [line.split() for line in lines if "toolchain.measure" in line]
    assert words[3:] == ["dev", "--max-dollars", "2.50", "--loads", '"1:6', '16:48:8192:256"']


def test_loads_reach_their_command_as_they_are_typed():
    done = make("load", "STACK=dev", "ON=account", "CLIENTS=1,4,16", "BUDGET=2.50", "JSON=1")
    assert done.status == 0, done.outcome()
    lines = done.output.replace("\\\n", " ").splitlines()
    (words,) = [line.split() for line in lines if "toolchain.day_two.load" in line]
    assert words[3:] == [
        *("--stack", "dev", "--account", "--json"),
        *("--clients", "1,4,16", "--budget", '"2.50"'),
    ]


@pytest.mark.parametrize(
    "goal", ["pin", "release", "rollback", "adopt", "scale", "load", "dashboard"]
)
def test_on_the_account_a_stack_is_named(goal):
    done = make(goal, "ON=account", "NAME=r1", "INSTANCE=1", "BUDGET=3/day")
    assert done.status != 0
    assert "add STACK=..." in done.output


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["down"], "on_emulator --stack local destroy"),
        (["down", "ON="], "on_emulator --stack local destroy"),
        (["orphans"], "toolchain.orphans --emulator"),
        (["orphans", "DELETE=1", "ON=account"], "toolchain.orphans  --delete"),
        (["overdue"], "toolchain.overdue --emulator"),
        (
            ["overdue", "STACK=dev", "DELETE=1", "ON=account"],
            "toolchain.overdue  --stack dev --end",
        ),
        (["release", "NAME=r1", "STACK=dev", "ON=account"], '"r1" --stack dev --account'),
        (["promote", "RELEASE=r1", "TO=prod", "ON=account"], '--to "prod" --from "" --account'),
        (["cost", "STACK=dev", "DAYS=3"], "--stack dev --days 3"),
        (
            ["dashboard", "STACK=dev", "BUDGET=300/day", "FIRST_TOKEN=2", "PORT=9500", "JSON=1"],
            "toolchain.day_two.dashboard --stack dev  --json",
        ),
        (
            ["exporter", "STACK=dev", "ON=account", "PORT=9500"],
            "toolchain.day_two.dashboard.exporter --stack dev --account",
        ),
        (
            ["scale", "STACK=dev", "BUDGET=300/day", "ONCE=1", "SESSIONS=32"],
            'toolchain.scale --stack dev --budget "300/day"  --once',
        ),
    ],
)
def test_what_is_right_runs(words, command):
    done = make(*words)
    assert done.status == 0, done.outcome()
    assert command in done.output


@pytest.mark.parametrize("goal", ["test", "test-fast"])
def test_tests_come_behind_what_is_checked_without_one(goal):
    done = make(goal)
    assert done.status == 0, done.outcome()
    checks, _, _ = done.output.partition("pytest -n")
    for command in (
        *("ruff check", "mypy", "-m toolchain.words", "-m toolchain.file_sizes"),
        "shellcheck --norc components/on_host/*.sh",
    ):
        assert command in checks


MADE = [words[1:] for place in commands().values() for words in place if words[0] == "make"]
"""What the documents say to type behind `make`."""


@pytest.mark.parametrize("words", MADE, ids=" ".join)
def test_what_the_documents_say_is_a_command(words):
    done = make(*words)
    assert done.status == 0, done.outcome()
    modules = re.findall(r"^(?:\S+=\S+ )?python3? -m (\S+)", done.output, re.MULTILINE)
    assert done.output.strip()
    for module in modules:
        assert importlib.util.find_spec(module) is not None, module


NAMES = ("STACK", "WORKERS", "NAME", "RELEASE", "TO", "FROM")
COUNTS = ("SPEED", "INSTANCE", "DAYS", "SESSIONS", "DOLLARS")
ON_THE_LINE_ALONE = (
    *("PORT", "PROMPT", "ANSWER", "SHARED", "EACH", "FIRST_TOKEN", "PICTURE"),
    *("CLIENTS", "RATES"),
)
"""Other programs export these names."""
FREE = ("MSG", "ON", "DELETE", "ONCE", "CI", "SOMETHING_ELSE")
GOALS = (
    "up",
    "chat",
    "down",
    "pin",
    "release",
    "promote",
    "rollback",
    "adopt",
    "cost",
    "scale",
    "test",
)
NEEDED = {"NAME": "r1", "RELEASE": "r1", "TO": "staging", "INSTANCE": "1", "BUDGET": "3/day"}
PLAIN = re.compile(r"(?!-)[A-Za-z0-9._-]+")
"""What stands in a command as it is."""
NUMBER = re.compile(r"[0-9.]+")
BUDGET = re.compile(r"[A-Za-z0-9./]+")
"""Of those, the command itself refuses what is no budget."""
NUMBERS = re.compile(r"[0-9.,]+")
READ = {
    "BUDGET": BUDGET,
    **dict.fromkeys([*COUNTS, *ON_THE_LINE_ALONE], NUMBER),
    **dict.fromkeys(["CLIENTS", "RATES"], NUMBERS),
    "PICTURE": PLAIN,
}
BLANKS = " \t\n\v\f\r"
"""What make takes off the front of a value on its command line."""

PIECES = st.sampled_from(
    [
        *("$(shell touch {})", "$(eval $(shell touch {}))", "$(error x)", "$(STACK)", "$", "$$"),
        *("`touch {}`", "$$(touch {})", "; touch {};", "' ; touch {} ; '", '" ; touch {} ; "'),
        *("\n\ttouch {}\n", "&& touch {}", "| cat", "--account", "#", "\\", "%", "="),
        *(" ", ":", "dev", "é"),
    ]
)


CHARACTERS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
TEXTS = st.lists(PIECES | CHARACTERS, max_size=4).map("".join)


def texts(marker: Path) -> st.SearchStrategy[str]:
    """Texts that would leave `marker` behind if anything ran them."""
    return TEXTS.map(lambda text: text.replace("{}", str(marker)))


EXAMPLES = settings(max_examples=examples(100))


GIVEN = [*NAMES, *COUNTS, "BUDGET", *FREE]


@pytest.mark.parametrize(
    ("name", "by"),
    [
        *((name, by) for name in GIVEN for by in ("line", "environment")),
        *((name, "line") for name in ON_THE_LINE_ALONE),
    ],
)
def test_what_is_given_is_data(tmp_path, name, by):
    marker = tmp_path / "ran"

    @EXAMPLES
    @given(texts(marker), st.sampled_from(GOALS))
    def holds(text: str, goal: str) -> None:
        line = {key: value for key, value in NEEDED.items() if key != name}
        words = [goal, *(f"{key}={value}" for key, value in line.items())]
        on_the_line, around = ([f"{name}={text}"], {}) if by == "line" else ([], {name: text})
        done = make(*words, *on_the_line, **around)
        assert not marker.exists(), (text, done.outcome())
        if name in FREE:
            return
        taken = text.lstrip(BLANKS) if by == "line" else text
        plain = READ.get(name, PLAIN)
        if taken and not plain.fullmatch(taken):
            assert done.status != 0
            assert f"{name} is no " in done.output
            assert "toolchain" not in done.output

    holds()


def test_a_command_is_given_what_was_asked_word_for_word(tmp_path):
    marker = tmp_path / "ran"
    shows = "--eval=show: ; @printf '%s' \"$$MSG\""

    @EXAMPLES
    @given(texts(marker))
    def holds(text: str) -> None:
        done = subprocess.run(
            [MAKE, "-s", shows, "show", f"MSG={text}"],
            cwd=ROOT,
            env={"PATH": PATH},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == text.lstrip(BLANKS).encode()
        assert not marker.exists()

    holds()


@pytest.mark.parametrize("value", ["%n $ ", "tcp://10.0.0.1:80", "7", "$(error x)", "$x%n"])
def test_what_other_programs_export_is_not_meant(value):
    around = dict.fromkeys(ON_THE_LINE_ALONE, value)
    for goal in ("help", "down", "load", "dashboard", "exporter"):
        assert make(goal, **around).outcome() == make(goal).outcome()
    on_the_line = ("CLIENTS=1,4", "PROMPT=512", "PORT=9000")
    for goal in ("load", "exporter"):
        assert make(goal, *on_the_line, **around).outcome() == make(goal, *on_the_line).outcome()
    assert "--port 9000" in make("exporter", *on_the_line, **around).output


def test_what_other_programs_export_stays_theirs():
    """`make shell` is the user's own shell."""
    shows = "--eval=show: ; @printf '%s' \"$$PROMPT\""
    done = run(["make", "-s", shows, "show"], {"PATH": PATH, "PROMPT": "$x%n $ "})
    assert done.output == "$x%n $ "


@pytest.mark.parametrize("name", ["STACK", "SPEED", "WORKERS"])
def test_nothing_is_no_stack(name):
    done = make("down", f"{name}=")
    assert done.status != 0
    assert f"{name} is empty" in done.output


def test_a_stack_of_the_environment_is_one_that_was_asked_for():
    assert "toolchain.cost --stack dev" in make("cost", STACK="dev").output
    assert "--stack" not in make("cost").output
