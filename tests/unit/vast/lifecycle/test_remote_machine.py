"""What a machine is asked over SSH while it is rented or taken over, and what a failure means."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from components.core.errors import HostError
from components.machine.ssh_types import (
    CommandFailed,
    HostAddress,
    HostUnreachable,
    LoginRefused,
    Result,
)
from components.resources.context import Context
from components.vast.api.models import Instance
from components.vast.errors import BootFailed
from components.vast.lifecycle.remote_machine import RemoteMachine
from tests.helpers.fakes import VirtualClock
from tests.helpers.offers import instance
from tests.helpers.states import inputs

ONE = Instance.from_json(instance())
ELSEWHERE = Instance.from_json({**instance(), "public_ipaddr": "198.51.100.7"})
ERRORS = [
    HostUnreachable(HostAddress("203.0.113.9", 40022), "closed"),
    LoginRefused("no"),
    CommandFailed("late"),
]


class Shell:
    """A host that answers one thing to whatever it is asked, and notes how it was left."""

    def __init__(self, answer: Result | str | HostError) -> None:
        self._answer = answer
        self.closed = 0
        self.asked: list[Any] = []

    def connect(self) -> Any:
        return self.run()

    def run(self, *_: object, **given: Any) -> Any:
        self.asked.append(given.get("stdin"))
        if isinstance(self._answer, HostError):
            raise self._answer
        return self._answer

    def close(self) -> None:
        self.closed += 1


class Given(Context):
    """A context whose hosts a test makes."""

    make: Callable[[], Shell]

    def host(self, *_: object, **__: object) -> Any:
        return self.make()


@contextlib.contextmanager
def machine_of(*shells: Shell) -> Iterator[RemoteMachine]:
    """A machine behind these connections, one after the other."""
    context = Given(clock=VirtualClock())
    object.__setattr__(context, "make", iter(shells).__next__)
    with RemoteMachine(inputs(), "p/s/r/1", context, 0.5) as machine:
        yield machine


def test_a_script_gives_what_it_printed() -> None:
    shell = Shell(Result(0, " taken over\n", ""))
    with machine_of(shell) as machine:
        assert machine.run(ONE, "echo") == "taken over"
    assert (shell.asked, shell.closed) == (["echo"], 1)


def test_a_script_that_fails_says_its_status_and_the_end_of_its_errors() -> None:
    with (
        machine_of(Shell(Result(3, "", "x" * 500 + "no space left\n"))) as machine,
        pytest.raises(BootFailed, match=r"ended with 3: x{287}no space left$"),
    ):
        machine.run(ONE, "false")


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_script_that_cannot_be_run_is_a_failed_boot(error: HostError) -> None:
    with machine_of(Shell(error)) as machine, pytest.raises(BootFailed) as caught:
        machine.run(ONE, "true")
    assert str(caught.value) == str(error)


@pytest.mark.parametrize("error", ERRORS[:2], ids=lambda error: type(error).__name__)
def test_a_login_that_does_not_work_yet_is_a_failed_boot(error: HostError) -> None:
    with machine_of(Shell(error)) as machine, pytest.raises(BootFailed):
        machine.log_in(ONE)


def test_a_machine_that_moved_gets_another_connection_and_the_first_one_is_closed() -> None:
    first, second = Shell("key of the first"), Shell("key of the second")
    with machine_of(first, second) as machine:
        assert [machine.log_in(ONE), machine.log_in(ONE)] == ["key of the first"] * 2
        assert first.closed == 0
        assert machine.log_in(ELSEWHERE) == "key of the second"
        assert (first.closed, second.closed) == (1, 0)
    assert (first.closed, second.closed) == (1, 1)
