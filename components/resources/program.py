"""The endpoints that the running program declares, and the gate in front of all of them.

Pulumi registers what a program has declared also when the program ends with an error. So a refusal
of the second endpoint would not keep the first one from renting. Nothing is registered before the
program's own code has run, though. So each endpoint's finalizer, which comes before every rental,
waits for the gate, and the gate is shut if any endpoint was refused.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any

import pulumi
from pulumi.runtime.settings import get_monitor

from components.core.commands import as_typed_here
from components.core.errors import ConfigurationError
from components.endpoints import Declared, check
from components.vast.labels import stack_prefix


class Program:
    """The endpoints of one run of a program."""

    def __init__(self) -> None:
        """Begin without endpoints, and with an open gate."""
        self._declared: list[Declared] = []
        self._refusal = ""

    def declare(self, new: Declared) -> None:
        """Add an endpoint.

        Raises:
            EndpointRefused: see `endpoints.check`.
        """
        check(new, self._declared, stack_prefix(pulumi.get_project(), pulumi.get_stack()))
        self._declared.append(new)

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """Shut the gate if the block refuses its endpoint, and end the program with a sentence.

        Raises:
            pulumi.RunError: if the block raises a `ConfigurationError`.
        """
        try:
            yield
        except ConfigurationError as error:
            self._refusal = as_typed_here(str(error))
            raise pulumi.RunError(self._refusal) from None

    def admitted(self, value: str) -> pulumi.Output[str]:
        """Return `value` once the program's own code has run, if no endpoint was refused."""

        async def admit() -> str:
            if self._refusal:
                raise pulumi.RunError(self._refusal)
            return value

        return pulumi.Output.from_input(admit())


_programs: weakref.WeakKeyDictionary[Any, Program] = weakref.WeakKeyDictionary()


def running() -> Program:
    """Return the program that runs now: each run has a connection to the engine of its own."""
    return _programs.setdefault(get_monitor(), Program())
