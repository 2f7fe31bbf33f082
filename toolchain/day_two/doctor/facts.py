"""What the doctor reads before it judges."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from components.vast.api.key_facts import KeyFacts
from components.vast.api.models import Instance
from toolchain.day_two.attempt import Failed
from toolchain.day_two.fleet import Fleet
from toolchain.orphans import Known
from toolchain.overdue import Recorded


@dataclasses.dataclass(frozen=True)
class Tools:
    """Programs of this computer, each in words; empty for one that is not there."""

    python: str
    pulumi: str
    """With its Python language host."""
    provider_host: str
    """What Pulumi runs dynamic providers with."""
    plugin: str
    """Of pulumi-command, where set-up looks after it."""
    home: str
    """Home, backend and passphrase of the emulator's stacks."""
    haproxy: str
    haproxy_place: str = ""
    """What `VASTVLLM_HAPROXY` names."""
    haproxy_install: str = "make setup"


@dataclasses.dataclass(frozen=True)
class KeyPlace:
    """Where the API key comes from."""

    source: str
    """`VAST_API_KEY`, or a file's path."""
    is_readable_by_others: bool = False


@dataclasses.dataclass(frozen=True)
class LockFact:
    """A lock on the stack."""

    pid: int
    since: str
    is_stale: bool
    """Proven to be held by nobody."""
    is_worked_on: bool
    """Held by a process of this computer that is alive."""


@dataclasses.dataclass(frozen=True)
class Facts:
    """All that the checks decide from."""

    stack: str
    """Empty if none was named."""
    on_account: bool
    now: float
    """Seconds since 1970."""
    environment: Mapping[str, str] | Failed
    tools: Tools
    settings: Mapping[str, Any] | Failed | None
    """Of the stack, by their keys without the project's name; None without a stack."""
    settings_refused: str = ""
    """The sentence that the program would end with."""
    key: KeyPlace | Failed | None = None
    market: str | Failed | None = None
    """Its address, if it answers."""
    account: KeyFacts | Failed | None = None
    contracts: tuple[Instance, ...] | Failed | None = None
    ledger: bool | Failed | None = None
    """Whether it can be read."""
    seconds_ahead: float | None = None
    """Of the market's clock; negative for a clock that is late. None if the market names no time.
    """
    hub: str | Failed | None = None
    registry: str | Failed | None = None
    backend: str = ""
    """Where Pulumi keeps states; empty if it was never told."""
    stacks: tuple[str, ...] | Failed | None = None
    fleet: Fleet | Failed | None = None
    """None for a stack that is not there."""
    locks: tuple[LockFact, ...] = ()
    known: Known | Failed | None = None
    """What the states of all stacks hold."""
    recorded: tuple[Recorded, ...] = ()
