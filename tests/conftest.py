from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import execnet
import pytest
from hypothesis import settings

from tests.earlier_runs import remove_earlier
from tests.forked_workers import fork_server, modules_of_tests
from tests.helpers.examples import examples, import_the_project, project_modules
from tests.reports import play
from tests.schedule import LongFirst, give_way
from tests.summary import Summary
from tests.tiers import TIER_NAMES, tier_of, within

settings.register_profile("here", deadline=None, database=None, max_examples=examples())
# A change is judged by the same examples each time; a developer's runs look for new ones.
settings.register_profile("ci", settings.get_profile("here"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")

HANDLERS: dict[int, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGHUP: signal.SIG_DFL,
}
"""What Python does about a signal that whoever started it did not have ignored."""

A_STORY = 900
"""Seconds that a test with the real CLI may take where it does not say: a busy computer is late."""

YOUNG = 20_000
"""Objects that are made before Python looks which of them are garbage."""

_summary: list[Summary] = []


class RecordingPolicy(asyncio.DefaultEventLoopPolicy):
    """The usual event loops, and a list of those that were made."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[asyncio.AbstractEventLoop] = []

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        loop = super().new_event_loop()
        self.made.append(loop)
        return loop


@pytest.fixture
def loop_for_pulumi() -> Iterator[None]:
    """An event loop for Pulumi's mocks, which take the thread's: whoever ran one took it away.

    The mocks' own threads make loops that they leave open. They are closed here: collected in the
    middle of some other test, they would fail that one.
    """
    policy, before = RecordingPolicy(), asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(policy)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    left = asyncio.all_tasks(loop)
    loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_default_executor())
    asyncio.set_event_loop(None)
    asyncio.set_event_loop_policy(before)
    for one in policy.made:
        if not one.is_running():
            one.close()
    gc.collect()
    # What is left is looked at once, not again after each of these tests.
    gc.freeze()


def pytest_configure(config: pytest.Config) -> None:
    """Make the tiers marks, and begin to count."""
    # A run in the background ignores a Ctrl-C, one under nohup a terminal that closes, and so would
    # every command that they start.
    for number, handler in HANDLERS.items():
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)
    for tier in TIER_NAMES:
        config.addinivalue_line("markers", f"{tier}: see tests/tiers.py")
    if not hasattr(config, "workerinput"):
        _summary.append(Summary())


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect no garbage meanwhile: hardly anything is, and to look takes a fifth of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its tier."""
    for item in items:
        tier = tier_of(item.nodeid)
        item.add_marker(tier)
        if tier == "cli" and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(A_STORY))


def pytest_collection_finish() -> None:
    """Take what was collected, some 8,000 tests, out of what the garbage collector goes through."""
    if os.environ.get("CI"):
        import_the_project()
    gc.freeze()
    # The usual 700 look for garbage so often that it takes a thirtieth of a test's time.
    gc.set_threshold(YOUNG)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config, specs: list[execnet.XSpec]) -> None:
    """Fork the workers of a whole run off an interpreter that has loaded project and tests.

    Coverage would not see what is loaded before it begins.
    """
    if config.args_source is not pytest.Config.ArgsSource.TESTPATHS or config.option.cov_source:
        return
    ends = contextlib.ExitStack()
    config.add_cleanup(ends.close)
    # This file first: it says how properties are tried, which they ask when they are loaded.
    modules = [__name__, *project_modules(), *modules_of_tests(config.option.ignore or ())]
    python = ends.enter_context(fork_server(modules))
    for spec in specs:
        spec.python = python


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LongFirst:
    """Deal the files out to several workers, and remove what earlier runs left meanwhile.

    Whoever deals them out keeps all their reports, and looks for no garbage among them.
    """
    gc.disable()
    # Beside a folder that was asked for there may be anything.
    if config.option.basetemp is None:
        current = config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]  # as xdist
        threading.Thread(target=remove_earlier, args=[current], daemon=True).start()
    return LongFirst(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Say no more of each test than somebody reads."""
    if not hasattr(item.config, "workerinput"):
        return None
    play(item, nextitem)
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Hold each test to its tier, from here to its end.

    What follows it may be the end of something that other tests of this worker have shared.
    """
    if hasattr(item.config, "workerinput"):
        give_way(item.nodeid.partition("::")[0])
    with within(item.nodeid):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Hold the test itself to it."""
    with within(item.nodeid):
        return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what the tests took."""
    reports = [
        report
        for kind in terminalreporter.stats.values()
        for report in kind
        if isinstance(report, pytest.TestReport)
    ]
    for summary in _summary:
        summary.print(reports)
    if not gc.isenabled():
        # Pytest and Python look at the end whatever was said: that took more than a second.
        gc.freeze()
