"""What a worker tells of each test to whoever deals out the tests.

Pytest tells when a test begins, and makes a report of what comes before and after it as well. To
send and to read those takes a third of a millisecond a test, and most of 8,000 tests need little
more than a millisecond.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from _pytest.runner import runtestprotocol


def play(item: pytest.Item, following: pytest.Item | None) -> None:
    """Play one test as pytest does, and tell what `worth_telling` says."""
    told = worth_telling(runtestprotocol(item, log=False, nextitem=following))
    for report in told:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)


def worth_telling(reports: Iterable[pytest.TestReport]) -> list[pytest.TestReport]:
    """Give what a reader may see of one test: what failed, was skipped or printed, and the test.

    The time of what is left out is counted to the test itself.
    """
    told, untold = [], 0.0
    for report in reports:
        if report.when != "call" and report.passed and not report.sections:
            untold += report.duration
        else:
            told.append(report)
    for report in told:
        if report.when == "call":
            report.duration += untold
    return told
