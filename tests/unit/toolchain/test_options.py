"""Numbers on a command's line are refused in a sentence, before anything is asked."""

from __future__ import annotations

import argparse
import re

import pytest

from emulator import __main__ as emulator
from tests.helpers.places import ROOT
from toolchain import adopt, cost, measure
from toolchain.day_two.history import command as history
from toolchain.day_two.logs import command as logs
from toolchain.options import amount, budget, whole_number

COMMANDS = (
    (cost.main, ["--days", "3_0"]),
    (cost.main, ["--days", "0"]),
    (cost.main, ["--days", "740000"]),
    (history.main, ["--days", " 9"]),
    (history.main, ["--days", "366"]),
    (logs.main, ["--replica", "+1"]),
    (logs.main, ["--replica", "-1"]),
    (adopt.main, ["4_2"]),
    (measure.main, ["dev", "--max-dollars", "1e3"]),
    (measure.main, ["dev", "--max-dollars", "nan"]),
    (emulator.main, ["up", "--credit", "1e3"]),
    (emulator.main, ["up", "--credit", "-1"]),
    (emulator.main, ["up", "--port", "2_0"]),
    (emulator.main, ["up", "--port", "65536"]),
    (emulator.main, ["up", "--speed", "inf"]),
    (emulator.main, ["up", "--speed", "0"]),
    (emulator.main, ["up", "--seed", "\u0663"]),
    (emulator.main, ["serve", "--pace", "1.1"]),
    (emulator.main, ["serve", "--end-with", "0"]),
    (emulator.main, ["logs", "4_2"]),
    (emulator.main, ["fault", "driver_old", "--next", "0"]),
    (emulator.main, ["fault", "driver_old", "--machine", "+7"]),
)


@pytest.mark.parametrize(
    ("main", "words"), COMMANDS, ids=[f"{main.__module__}{words}" for main, words in COMMANDS]
)
def test_each_command_refuses_a_number_that_is_none(main, words, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["command", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert words[-1] in said


def test_limits_are_named():
    assert whole_number(1, 9)("9") == 9
    with pytest.raises(argparse.ArgumentTypeError, match=r"^10 is none of 1 to 9$"):
        whole_number(1, 9)("10")
    with pytest.raises(argparse.ArgumentTypeError, match=r"^0 is none of 1 or more$"):
        whole_number(1)("0")
    assert amount(most=1)("0.5") == 0.5
    assert amount(or_zero=True)("0.0") == 0
    with pytest.raises(argparse.ArgumentTypeError, match=r"^0 is not above 0 and at most 1$"):
        amount(most=1)("0")


@pytest.mark.parametrize(
    ("text", "dollars"), [("300/day", 300.0), ("$12.50/day", 12.5), ("0.01/day", 0.01)]
)
def test_a_budget_is_dollars_for_a_day(text, dollars):
    assert budget(text) == dollars


@pytest.mark.parametrize(
    "text",
    [
        "",
        "300",
        "0/day",
        "0.00/day",
        "-3/day",
        "1e3/day",
        "nan/day",
        "inf/day",
        "3/hour",
        "3/day x",
        "3_0/day",
        "\u0663/day",
    ],
)
def test_anything_else_is_none(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is no budget"):
        budget(text)


def test_no_command_reads_a_number_by_itself():
    """The emulator's stand-ins read numbers as the programs do that they stand for."""
    own = [
        str(file.relative_to(ROOT))
        for folder in ("toolchain", "emulator")
        for file in (ROOT / folder).rglob("*.py")
        if not file.is_relative_to(ROOT / "emulator/standins")
        and re.search(r"\btype=(?:int|float)\b", file.read_text(encoding="utf-8"))
    ]
    assert own == []
