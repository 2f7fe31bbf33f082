"""What was read of a stack before it is judged. Pure."""

from __future__ import annotations

import dataclasses

from components.vast.api.models import Charge, Instance
from components.vast.labels import is_labelled, stack_prefix
from components.vllm.client_types import ModelInfo, Refused, Unreachable
from toolchain.day_two.attempt import Failed
from toolchain.day_two.fleet import Fleet, Machine
from toolchain.day_two.metrics import Reading
from toolchain.day_two.readings import Window


@dataclasses.dataclass(frozen=True)
class Unreadable:
    """Metrics that no server writes."""

    why: str


@dataclasses.dataclass(frozen=True)
class GpuMemory:
    """What a host says of its GPUs' memory, all together in MiB."""

    used: float
    total: float


Metrics = Reading | Refused | Unreachable | Unreadable


@dataclasses.dataclass(frozen=True)
class SeenMachine:
    """One machine of the state, as it is found."""

    machine: Machine
    live: Instance | None
    """Its contract; None if the market has none, or could not be asked."""
    metrics: Metrics | None
    """None without a server to ask."""
    window: Window | None = None
    memory: GpuMemory | Failed | None = None
    """None if the host was not asked."""

    @property
    def name(self) -> str:
        """As it is called here: by its replica."""
        return f"machine {self.machine.replica}"


@dataclasses.dataclass(frozen=True)
class Seen:
    """A stack, as it is found."""

    fleet: Fleet
    now: float
    """Seconds since 1970."""
    asked_seldom_at: float
    """When ledger, credit and the memory of GPUs were asked for."""
    machines: tuple[SeenMachine, ...]
    public: ModelInfo | Refused | Unreachable | None
    """What the endpoint answers to the stack's key; None for a stack without one."""
    contracts: tuple[Instance, ...] | Failed
    """All of the account."""
    charges: tuple[Charge, ...] | Failed
    """Of the ledger, since a day before the first machine: of those that are gone as well."""
    credit: float | Failed
    """$."""
    project: str
    """Name of the project in labels."""

    @property
    def strays(self) -> tuple[Instance, ...]:
        """Contracts under the stack's label unknown to its state; none without an answer."""
        if isinstance(self.contracts, Failed):
            return ()
        prefix, known = stack_prefix(self.project, self.fleet.stack), self.fleet.contracts
        return tuple(
            one for one in self.contracts if is_labelled(one.label, prefix) and one.id not in known
        )
