"""The command line of the loop."""

from __future__ import annotations

import argparse

import pytest

from toolchain.scale.__main__ import _sessions, budget


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
    ],
)
def test_anything_else_is_none(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is no budget"):
        budget(text)


def test_sessions_are_a_number_that_a_server_takes():
    assert _sessions("64") == 64
    for text in ("0", "-1", "6.4", "", "10001"):
        with pytest.raises(argparse.ArgumentTypeError):
            _sessions(text)
