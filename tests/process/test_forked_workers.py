"""A worker of the tests that is forked off: a process of its own, and who dies with whom."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import execnet
import psutil
import pytest

from tests.forked_workers import fork_server, modules_of_tests
from tests.helpers.polling import eventually
from tests.helpers.processes import ignores
from tests.helpers.supervised_container import alive

SAYS_WHO_IT_IS = """
import os, sys
channel.send((os.getpid(), sys.argv, "__file__" in vars(sys.modules["__main__"])))
"""
LOADED = "import sys; channel.send('graphlib' in sys.modules)"
WHICH_TESTS = """
import sys
channel.send([name for name in sys.modules if name.startswith("test_")])
"""
WHAT_IS_SAID = """
import test_two
try:
    test_two.test(1)
except AssertionError as error:
    channel.send(str(error))
"""


TESTS = {
    "test_broken": "BEGUN = True\nraise RuntimeError\n",
    "test_skipped": "import pytest\npytest.skip(allow_module_level=True)\n",
    "test_two": "def test(one):\n    assert one == 2\n",
}


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("tests")
    for name, text in TESTS.items():
        (folder / f"{name}.py").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        with fork_server(["no.such.module", "graphlib", *TESTS]) as python:
            yield f"popen//python={python}"


@pytest.fixture
def workers() -> Iterator[execnet.Group]:
    group = execnet.Group()
    yield group
    group.terminate(1)


def test_each_is_a_process_of_its_own_that_has_loaded_what_was_asked_for(
    worker: str, workers: execnet.Group
) -> None:
    both = [workers.makegateway(worker) for _ in range(2)]
    told = [one.remote_exec(SAYS_WHO_IT_IS).receive(10) for one in both]
    assert len({number for number, _, _ in told}) == 2
    assert [rest for _, *rest in told] == [[["-c"], False]] * 2
    assert [one.remote_exec(LOADED).receive(10) for one in both] == [True, True]


def test_tests_are_loaded_as_pytest_loads_them(worker: str, workers: execnet.Group) -> None:
    """Their assertions say what they compare, and what fails is left to the worker to load."""
    one = workers.makegateway(worker)
    assert one.remote_exec(WHICH_TESTS).receive(10) == ["test_two"]
    assert one.remote_exec(WHAT_IS_SAID).receive(10) == "assert 1 == 2"


def test_a_run_loads_all_tests_but_those_that_it_ignores() -> None:
    names = set(modules_of_tests(["tests/cli", "tests/faults"]))
    assert {__name__, "tests.unit.test_tiers", "tests.emulator.standins.test_checks"} <= names
    folders = {name.split(".")[1] for name in modules_of_tests([])}
    assert folders - {name.split(".")[1] for name in names} == {"cli", "faults"}


def test_it_dies_with_its_launcher(worker: str, workers: execnet.Group) -> None:
    one = workers.makegateway(worker)
    number, _, _ = one.remote_exec(SAYS_WHO_IT_IS).receive(10)
    (launcher,) = launchers()
    launcher.kill()
    eventually(lambda: not alive(number))


def test_a_ctrl_c_is_left_to_it(worker: str, workers: execnet.Group) -> None:
    """If it ended the launcher, the worker would be killed and could end nothing."""
    assert workers.makegateway(worker).remote_exec(LOADED).receive(10)
    (launcher,) = launchers()
    assert ignores(launcher.pid, signal.SIGINT)


def test_whoever_waits_for_one_that_is_killed_hears_of_it(
    worker: str, workers: execnet.Group
) -> None:
    channel = workers.makegateway(worker).remote_exec(SAYS_WHO_IT_IS + "\nchannel.receive()")
    number, _, _ = channel.receive(10)
    psutil.Process(number).kill()
    with pytest.raises(EOFError):
        channel.receive(10)
    eventually(lambda: not launchers())


def test_the_server_ends_with_the_run() -> None:
    before = {one.pid for one in children()}
    with fork_server(["graphlib"]):
        (server,) = {one.pid for one in children()} - before
    assert not alive(server)


def launchers() -> list[psutil.Process]:
    return [one for one in children() if any("launcher.py" in word for word in one.cmdline())]


def children() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if alive(one.pid)]
