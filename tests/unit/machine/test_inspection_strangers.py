"""The check of a machine that does as it likes: which of its answers is a verdict, and when."""

from __future__ import annotations

from typing import Any

import pytest

from components.core.errors import HostError
from components.machine.errors import HostUnfit
from components.machine.ssh_types import (
    CommandFailed,
    HostAddress,
    HostUnreachable,
    LoginRefused,
    Nonsense,
)
from components.resources.context import Context
from components.vast.api.models import Instance
from components.vast.errors import BootFailed
from components.vast.lifecycle.remote_machine import RemoteMachine
from tests.helpers.fakes import VirtualClock
from tests.helpers.offers import instance
from tests.helpers.states import inputs

ONE = Instance.from_json(instance())
ADDRESS = HostAddress("203.0.113.9", 40022)


class Shell:
    """A host on which every command ends in this error."""

    def __init__(self, error: HostError) -> None:
        self._error = error

    def run(self, *_: object, **__: object) -> Any:
        raise self._error

    def close(self) -> None:
        pass


class Given(Context):
    """A context whose hosts are those of a test."""

    def host(self, *_: object, **__: object) -> Any:
        return self.shell

    shell: Any = None


def verdicts(error: HostError, looks: int) -> list[type[BaseException]]:
    """What each of several checks of one machine came to."""
    context = Given(clock=VirtualClock())
    object.__setattr__(context, "shell", Shell(error))
    found: list[type[BaseException]] = []
    with RemoteMachine(inputs(), "p/s/r/1", context, 0.5) as machine:
        for _ in range(looks):
            with pytest.raises(HostError) as caught:
                machine.inspect(ONE, adopted=False)
            found.append(caught.type)
    return found


def test_a_lost_connection_is_borne_as_often_as_it_is_lost() -> None:
    for error in (HostUnreachable(ADDRESS, "closed"), LoginRefused("no")):
        assert verdicts(error, 3) == [BootFailed] * 3


def test_a_machine_that_is_late_twice_is_unfit() -> None:
    assert verdicts(CommandFailed("late"), 2) == [BootFailed, HostUnfit]


def test_a_machine_that_says_what_cannot_be_is_unfit_at_once() -> None:
    assert verdicts(Nonsense("what"), 1) == [HostUnfit]
