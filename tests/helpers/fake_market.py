"""A market in virtual time: contracts with a life of their own, hosts that fail in their way.

Its calls are a fake of `InstancesApi`, which the same contract test holds to what `VastApi` does.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from components.core.errors import StackError
from components.machine.errors import HostUnfit
from components.machine.first_contact import fingerprint
from components.machine.inspection import HostFacts, Inspection, Rate
from components.machine.tcp_probe import ProbeResult
from components.vast.api.models import Instance
from components.vast.api.payloads import RentRequest
from components.vast.errors import BootFailed, ContractParked, OfferTaken, ReplyLost
from tests.helpers.fake_instances import FakeInstances
from tests.helpers.fakes import VirtualClock
from tests.helpers.offers import instance

FACTS = HostFacts(
    gpu_names=("NVIDIA H200",) * 2,
    gpu_ram_mib=143771.0,
    gpu_link="NV18",
    driver="580.95.05",
    disk_free_gb=520.0,
    shm_gib=64.0,
    memory_gib=503.0,
)
HOST_KEY = "ssh-ed25519 host"
INSPECTION = Inspection(FACTS, Rate(4000.0, ""))


@dataclasses.dataclass
class Boot:
    """How a machine behaves once it is rented; seconds of virtual time."""

    running_after: float = 30.0
    listed_after: float = 0.0
    dies_with: tuple[str, str] | None = None
    """Status and message that it ends with."""
    ports: bool = True
    filtered_for: float = 0.0
    filtered_ports: dict[str, list[tuple[float, float]]] = dataclasses.field(default_factory=dict)
    """From when until when, in seconds of running, a port of this name is filtered instead."""
    ssh_after: float = 0.0
    log_after: float = 0.0
    """Seconds of running until the market's log names its host key."""
    named: tuple[str, ...] = (HOST_KEY,)
    breaks_in_check: int = 0
    quarantine_reason: str = ""
    price: float = 6.0
    interruptible: bool = False
    outbid_after: float = 1e9
    between: tuple[str, float] | None = None
    """A status between loading and running, and its seconds."""


@dataclasses.dataclass
class Contract:
    since: float
    offer_id: int
    label: str
    order: RentRequest | None = None
    """What it was rented with; None for one that a test put here."""
    parked: bool = False
    """Made by a rent call that was refused: it is stopped."""


class FakeMarket(FakeInstances):
    """Vast as `Provisioner` sees it, and the machines behind it.

    A machine has its offer's number unless `machines` says another one; offers 1 to 20 are there.
    """

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(offers=range(1, 21))
        self.clock = clock
        self.boots: dict[int, Boot] = {}
        self.alive: dict[int, Contract] = {}
        self.rented: list[int] = []
        self.refuse: dict[int, BaseException] = {}
        self.parks: dict[int, StackError] = {}
        """By offer: the refusal of a rent call that makes a contract all the same."""
        self.lose_replies = 0
        self.inspection: BaseException | None = None
        """Raised by every inspection."""
        self.inspected: list[tuple[int, bool]] = []
        """Contracts, and whether each was adopted."""
        self.undying = 0
        self.failing: list[Exception] = []
        """Raised by the next calls, one each."""
        self.destroyed_at: list[float] = []
        self.most_alive = 0
        self.lists = 0
        self.logs = 0
        self.machines: dict[int, int] = {}
        """Machine of an offer whose machine has another number."""
        self.hosts: dict[int, int] = {}
        """Host of a machine; else each has its own."""

    def rent(self, offer_id: int, order: RentRequest) -> int:
        if offer_id in self.refuse:
            raise self.refuse[offer_id]
        taken = {one.offer_id for one in self.alive.values()}
        if offer_id not in self.offers - taken:
            raise OfferTaken("taken by ourselves, or by somebody else")
        contract = 9000 + len(self.rented)
        self.rented.append(offer_id)
        parks = self.parks.get(offer_id)
        self.alive[contract] = Contract(
            self.clock.passed, offer_id, order.label, order, parked=parks is not None
        )
        self.most_alive = max(self.most_alive, len(self.alive))
        if self.lose_replies > 0:
            self.lose_replies -= 1
            raise ReplyLost("no answer")
        if parks is not None:
            raise ContractParked(f"refused, and made contract {contract}", contract, parks)
        return contract

    def instance(self, instance_id: int) -> Instance | None:
        self._fail_if_told()
        contract = self.alive.get(instance_id)
        if contract is None:
            return None
        age = self.clock.passed - contract.since
        boot = self._boot_of(contract)
        return self._row(instance_id, contract, boot, age) if age >= boot.listed_after else None

    def instances(self, max_age: float = 0.0) -> list[Instance]:
        assert max_age >= 0
        self._fail_if_told()
        self.lists += 1
        return [one for one in map(self.instance, list(self.alive)) if one is not None]

    def destroy(self, instance_id: int) -> None:
        self._fail_if_told()
        self.destroyed_at.append(self.clock.passed)
        if self.undying > 0:
            self.undying -= 1
            return
        self.alive.pop(instance_id, None)

    def reach(self, one: Instance, port: str) -> ProbeResult:
        assert port in one.ports
        contract, boot = self._behind(one)
        running = self.clock.passed - contract.since - boot.running_after
        spans = boot.filtered_ports.get(port, [(0.0, boot.filtered_for)])
        filtered = any(since <= running < until for since, until in spans)
        return "timed out" if filtered else "refused"

    def log_in(self, one: Instance) -> str:
        contract, boot = self._behind(one)
        if self.clock.passed - contract.since < boot.running_after + boot.ssh_after:
            raise BootFailed("connection refused")
        return HOST_KEY

    def named_keys(self, one: Instance) -> frozenset[str]:
        contract, boot = self._behind(one)
        self.logs += 1
        if self.clock.passed - contract.since < boot.running_after + boot.log_after:
            raise BootFailed("the market's log names none")
        return frozenset(map(fingerprint, boot.named))

    def inspect(self, one: Instance, *, adopted: bool) -> Inspection:
        self.inspected.append((one.id, adopted))
        if self.inspection is not None:
            raise self.inspection
        _, boot = self._behind(one)
        if boot.breaks_in_check > 0:
            boot.breaks_in_check -= 1
            raise BootFailed("connection lost")
        if boot.quarantine_reason:
            raise HostUnfit(boot.quarantine_reason)
        return INSPECTION

    def labels(self) -> list[str]:
        return sorted(one.label for one in self.alive.values())

    def _has(self, instance_id: int) -> bool:
        return instance_id in self.alive

    def _relabel(self, instance_id: int, label: str) -> None:
        self.alive[instance_id].label = label

    def _behind(self, one: Instance) -> tuple[Contract, Boot]:
        contract = self.alive[one.id]
        return contract, self._boot_of(contract)

    def _boot_of(self, contract: Contract) -> Boot:
        return self.boots.get(self._machine_of(contract), Boot())

    def _machine_of(self, contract: Contract) -> int:
        return self.machines.get(contract.offer_id, contract.offer_id)

    def _fail_if_told(self) -> None:
        if self.failing:
            raise self.failing.pop(0)

    def _row(self, instance_id: int, contract: Contract, boot: Boot, age: float) -> Instance:
        machine_id = self._machine_of(contract)
        status, message = "loading", "pulling"
        over = boot.between[1] if boot.between else 0.0
        if boot.between and age >= boot.running_after:
            status, message = boot.between[0], "soon"
        running = age >= boot.running_after + over
        if running:
            status, message = "running", "success"
        if boot.dies_with and age >= boot.running_after / 2:
            status, message = boot.dies_with
        changes: dict[str, Any] = {
            "id": instance_id,
            "machine_id": machine_id,
            "host_id": self.hosts.get(machine_id, machine_id),
            "label": contract.label,
            "actual_status": status,
            "status_msg": message,
            "dph_total": boot.price,
            "is_bid": boot.interruptible,
        }
        if contract.order is not None:
            changes |= {
                "image_uuid": contract.order.image,
                "disk_space": contract.order.disk_gb,
            }
        if contract.parked or age >= boot.outbid_after:
            states = ("intended_status", "cur_state", "next_state")
            changes |= {"actual_status": "exited", **dict.fromkeys(states, "stopped")}
        if age >= boot.outbid_after:
            changes |= {"dph_base": 1.9, "min_bid": 2.0}
        if changes["actual_status"] != "running" or not boot.ports:
            changes["ports"] = {}
        return Instance.from_json(instance(**changes))
