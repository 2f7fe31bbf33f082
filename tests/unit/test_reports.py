"""Of a test that passes, its worker tells once; of any other, all."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from tests.reports import worth_telling

When = Literal["setup", "call", "teardown"]
PRINTED = [("Captured stdout teardown", "what it printed")]


def report(when: When, outcome: Any = "passed", *, sections: Any = ()) -> pytest.TestReport:
    return pytest.TestReport(
        "test", ("test.py", 1, "test"), {}, outcome, None, when, sections, duration=1.0
    )


def told(*reports: pytest.TestReport) -> list[tuple[str | None, str, float]]:
    return [(one.when, one.outcome, one.duration) for one in worth_telling(reports)]


def test_of_one_that_passes_the_test_alone_is_told_with_the_time_of_all():
    assert told(report("setup"), report("call"), report("teardown")) == [("call", "passed", 3.0)]


def test_whatever_fails_or_is_skipped_is_told():
    assert told(report("setup"), report("call"), report("teardown", "failed")) == [
        ("call", "passed", 2.0),
        ("teardown", "failed", 1.0),
    ]
    assert told(report("setup"), report("call", "failed"), report("teardown")) == [
        ("call", "failed", 3.0)
    ]
    assert told(report("setup", "failed"), report("teardown")) == [("setup", "failed", 1.0)]
    assert told(report("setup", "skipped"), report("teardown")) == [("setup", "skipped", 1.0)]


def test_what_was_printed_behind_it_is_told():
    assert told(report("setup"), report("call"), report("teardown", sections=PRINTED)) == [
        ("call", "passed", 2.0),
        ("teardown", "passed", 1.0),
    ]
