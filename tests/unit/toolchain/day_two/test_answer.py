"""The verdict of an answer, and what each reader gets: a person, a program, cron."""

from __future__ import annotations

import functools
import json
from typing import Literal

import pytest
from rich.text import Text

from components.core.errors import PlatformError
from toolchain.day_two import command
from toolchain.day_two.answer import NOT_ASKED, NOT_WELL, WELL, Answer, Problem, in_utc
from toolchain.day_two.command import Asked, at_once, parser, run

HERE = Asked(stack="local", on_account=False, as_json=False)
ACCOUNT = Asked(stack="dev", on_account=True, as_json=False)
ILL = Problem(about="machine 0", text="it is gone", mend="`pulumi up --stack dev`")


class Small(Answer):
    format: Literal["vast-vllm/small/1"] = "vast-vllm/small/1"
    size: int = 0


def small(**changes) -> Small:
    return Small(**{"asked_at": in_utc(0), "stack": "dev", **changes})


@pytest.mark.parametrize(
    ("answer", "status", "verdict"),
    [
        (small(), WELL, "well"),
        (small(notes=("it is cold",)), WELL, "well"),
        (small(problems=(ILL,)), NOT_WELL, "not well"),
        (small(not_asked=("nobody answers",)), NOT_ASKED, "could not be asked"),
        (small(problems=(ILL,), not_asked=("nobody answers",)), NOT_WELL, "not well"),
    ],
)
def test_the_exit_status_follows_the_verdict(answer, status, verdict, capsys):
    assert run(ACCOUNT, lambda: answer, lambda _: ()) == status
    assert answer.verdict == verdict
    assert verdict in answer.model_dump_json()
    capsys.readouterr()


def test_a_program_gets_the_model_and_nothing_else(capsys):
    for_program = Asked(stack="dev", on_account=True, as_json=True)
    run(for_program, lambda: small(size=3, problems=(ILL,)), lambda _: (Text("for a person"),))
    printed = capsys.readouterr()
    read = json.loads(printed.out)
    assert read["format"] == "vast-vllm/small/1"
    assert read["size"] == 3
    assert read["problems"] == [ILL.model_dump()]
    assert printed.err == ""


def test_a_program_gets_the_model_of_a_failure(capsys):
    for_program = Asked(stack="dev", on_account=True, as_json=True)

    def fail() -> Small:
        raise PlatformError("nobody\x1b[2J answers")

    assert run(for_program, fail, lambda _: ()) == NOT_ASKED
    printed = capsys.readouterr().out
    assert json.loads(printed) == {
        "format": "vast-vllm/failure/1",
        "stack": "dev",
        "reason": "nobody answers",
    }


def test_a_person_reads_one_sentence_of_a_failure(capsys):
    def fail() -> Small:
        raise PlatformError("nobody answers: `pulumi refresh`")

    assert run(HERE, fail, lambda _: ()) == NOT_ASKED
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "nobody answers: `make refresh`\n"


def test_commands_are_named_as_they_are_typed_where_they_are_read(capsys):
    ill = Problem(about="contracts", text="one is an orphan", mend="`make orphans ON=account`")
    run(HERE, lambda: small(problems=(ILL, ill)), lambda _: ())
    printed = capsys.readouterr().out
    assert "`make up STACK=dev`" in printed
    assert "`make orphans`" in printed
    run(ACCOUNT, lambda: small(problems=(ILL, ill)), lambda _: ())
    printed = capsys.readouterr().out
    assert "`pulumi up --stack dev`" in printed
    assert "`make orphans ON=account`" in printed


def test_without_a_terminal_no_line_is_longer_than_80_columns_or_coloured(capsys):
    long = Problem(about="machine 12", text="it is gone " * 30, mend="`pulumi up` " * 12)
    run(ACCOUNT, lambda: small(problems=(long,), notes=("word " * 60,)), lambda _: ())
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert "\x1b" not in printed


def test_what_a_stranger_wrote_is_shown_clean(capsys):
    rude = Problem(about="machine 0", text="a\x1b[2Jb\n::error::c", mend="`pulumi up`")
    run(ACCOUNT, lambda: small(problems=(rude,)), lambda _: ())
    assert "ab ::error::c" in capsys.readouterr().out


def test_an_emulator_that_does_not_run_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("EMULATOR_HOME", str(tmp_path))
    with pytest.raises(command.EmulatorDown, match="the emulator does not run here"):
        _ = HERE.environment


def test_every_command_takes_the_same_options():
    given = parser("small", "what it does").parse_args(["--stack", "dev", "--account", "--json"])
    assert command.asked(given) == Asked(stack="dev", on_account=True, as_json=True)


@pytest.mark.parametrize("count", [0, 1, 3, 40])
def test_hosts_are_asked_side_by_side_and_answered_in_order(count):
    assert at_once([functools.partial(int, number) for number in range(count)]) == list(
        range(count)
    )


def test_what_one_of_them_raises_is_raised():
    def fail() -> int:
        raise PlatformError("no")

    with pytest.raises(PlatformError):
        at_once([lambda: 1, fail])
