"""What a rental is: its record, its phases, and what a change of it asks and costs."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from emulator.market import storage_per_hour

RUNNING = "running"
STOPPED = "stopped"


class Phase(StrEnum):
    """Where a container is. The API's actual_status is derived from it."""

    NEW = "new"
    CREATED = "created"
    LOADING = "loading"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    EXITED = "exited"
    REBOOTING = "rebooting"
    RECYCLING = "recycling"
    FAILED = "failed"
    DESTROYING = "destroying"
    GONE = "gone"


class Effect(StrEnum):
    """What the host must do because of a change of phase."""

    PREPARE = "prepare"
    START = "start"
    KILL = "kill"
    WIPE = "wipe"
    REMOVE = "remove"
    TURN = "turn"
    """Its ports and its shell are as its faults say from now on."""


@dataclass(frozen=True)
class Charge:
    """Money owed for one stretch: kind is gpu, disk, bwd or bwu; quantity in seconds or bytes."""

    contract_id: int
    kind: str
    since: float
    until: float
    quantity: float
    amount: float


@dataclass(frozen=True)
class Contract:
    """One rental. Money in $ (prices per hour, GB-month or GB), sizes in GB, moments in epoch s."""

    id: int
    machine_id: int
    offer_id: int
    num_gpus: int
    disk_gb: float
    label: str | None
    image: str
    runtype: str
    env: dict[str, str] = field(repr=False)
    onstart: str | None = field(repr=False)
    args: list[str] = field(repr=False)
    is_bid: bool
    gpu_per_hour: float
    min_bid: float
    storage_cost: float
    inet_up_cost: float
    inet_down_cost: float
    start_date: float
    end_date: float
    address: str
    image_bytes: float
    pull_seconds: float
    phase: Phase = Phase.NEW
    due: float | None = None
    intended: str = RUNNING
    start_queued: bool = False
    parked: bool = False
    """Whether it was made though it could not start: its rent call was refused."""
    reads_stopped: bool = False
    """Whether a stop reads `stopped`, as clients remember it, instead of `exited` (measured)."""
    status_msg: str | None = None
    charged_until: float = 0.0
    pulled_bytes: float = 0.0
    running_since: float | None = None
    offline_until: float | None = None
    later_floor: float | None = None
    floor_falls_at: float | None = None
    ended: bool = False
    ports: dict[str, int] = field(default_factory=dict)
    ssh_port: int = 0
    ssh_keys: list[str] = field(default_factory=list)
    volume_id: int | None = None
    mount_path: str | None = None
    template_id: int | None = None
    template_hash_id: str | None = None
    template_name: str | None = None
    traffic_seen: int = 0
    running_once: bool = False
    faults: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def holds_gpus(self) -> bool:
        """True while the machine's GPUs are this contract's and nobody else's."""
        return not self.parked and self.phase not in (Phase.STOPPED, Phase.GONE)

    @property
    def container_up(self) -> bool:
        """True while the container's processes should be alive."""
        return self.phase in (Phase.RUNNING, Phase.STOPPING) and self.running_since is not None

    @property
    def storage_per_hour(self) -> float:
        """$/h of the disk alone."""
        return storage_per_hour(self.disk_gb, self.storage_cost)

    def per_hour_now(self) -> float:
        """$/h that the contract costs in its present phase, without traffic."""
        if self.phase is Phase.GONE or self.offline_until is not None:
            return 0.0
        gpu = self.gpu_per_hour if self.phase in (Phase.RUNNING, Phase.STOPPING) else 0.0
        return gpu + self.storage_per_hour


@dataclass(frozen=True)
class Step:
    """A contract carried forward, what its host must do now, in order, and what it cost."""

    contract: Contract
    effects: tuple[Effect, ...] = ()
    charges: tuple[Charge, ...] = ()
