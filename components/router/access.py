"""What the procedures of a router reach the world by, and the first look at its computer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from components.core.clock import Clock
from components.core.progress import Progress
from components.machine.own_computer import Computer
from components.router import facts, scripts
from components.router.asking import RouterClient
from components.router.errors import RouterRefused
from components.router.facts import Facts
from components.router.state import RouterRequest

PROGRAM = "haproxy"
"""HAProxy's name at another computer."""

Connect = Callable[[str], Computer]
"""Gives the client of a router's computer, by `host`."""

Ask = Callable[[str, str, str], RouterClient]
"""Gives the client of a router, by URL, authorities and identity."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """How long a router may take, in seconds."""

    look: float = 0.25
    """From one question to the next, while it is waited for."""
    proof: float = 30.0
    """To serve its new files, once it was started or reloaded."""
    back: float = 10.0
    """To serve its last good files again."""
    checks: float = 10.0
    """To look at each of its members."""
    stop: float = 10.0
    """To end once it is asked to, before it is killed."""
    end: float = 60.0
    """To end, with all that this takes: the machines behind it are not held up longer."""


@dataclasses.dataclass(frozen=True)
class Access:
    """Clients, time and randomness."""

    connect: Connect
    ask: Ask
    clock: Clock
    progress: Progress
    program_here: str
    """HAProxy on this computer, a name or a path."""
    random_text: Callable[[], str]
    """Gives a text that nobody has been given before."""
    limits: Limits = dataclasses.field(default_factory=Limits)

    def program(self, request: RouterRequest) -> str:
        """Name HAProxy at the router's computer."""
        return PROGRAM if request.host else self.program_here

    def look(self, request: RouterRequest, expected: str = "") -> Facts:
        """Ask the router's computer what is there, and for the files of the version `expected`.

        Raises:
            ComputerUnreachable: if it does not answer.
        """
        script = scripts.facts(request.label, self.program(request), expected)
        return facts.read(self.connect(request.host).run(script).stdout)


def preflight(
    wanted: RouterRequest, before: RouterRequest | None, owner: str | None, access: Access
) -> Facts:
    """Look whether the router can run where it shall run; changes nothing there.

    `before` is what was asked for so far, and None for a new router. `owner` is that of the state,
    empty for a new router, and None if it is not known.

    Raises:
        RouterRefused: if it cannot.
        ComputerUnreachable: if nobody can tell.
    """
    found = access.look(wanted)
    problem = facts.refusal(
        found,
        wanted,
        before,
        owner=owner,
        is_here=access.connect(wanted.host).is_here(),
        named="" if access.program(wanted) == PROGRAM else access.program(wanted),
    )
    if problem:
        raise RouterRefused(problem)
    return found
