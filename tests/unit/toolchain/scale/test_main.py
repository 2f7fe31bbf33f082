"""The command line of the loop."""

from __future__ import annotations

import argparse

import pytest

from toolchain.scale.__main__ import _parser, budget


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


def test_sessions_are_a_number_that_a_server_takes():
    words = ["--budget", "300/day", "--sessions"]
    assert _parser().parse_args([*words, "64"]).sessions == 64
    for text in ("0", "-1", "6.4", "", "10001", "6_4", "\u0666"):
        with pytest.raises(SystemExit, match="2"):
            _parser().parse_args([*words, text])
