from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest

from components.progress import Progress
from components.vast import market
from components.vast.api import Order
from components.vast.errors import (
    ApiFailed,
    BootFailed,
    HostUnfit,
    ImageRefused,
    NoCandidateLeft,
    NoCredit,
    OfferTaken,
    ReplyLost,
    StillBilled,
)
from components.vast.host_check import HostFacts
from components.vast.rental import MOST_TRIES, Deadlines, Rental
from components.vast.wire import Instance
from tests.fakes import VirtualClock
from tests.vast.offers import instance, need, offer

LABEL = "p/s/endpoint/abc"
ORDER = Order(image="img", disk_gb=500.0, label=LABEL, onstart="true", ports=(8000,))
PORTS = ("22/tcp", "8000/tcp")
FACTS = HostFacts(("NVIDIA H200",) * 2, 143771.0, "580.95.05", 520.0, 64.0)


@dataclasses.dataclass
class Boot:
    """How a machine behaves once it is rented; seconds of virtual time."""

    running_after: float = 30.0
    dies_with: tuple[str, str] | None = None
    """Status and message that it ends with."""
    ports: bool = True
    ssh_after: float = 0.0
    unfit: str = ""


class FakeMarket:
    """Contracts with a life of their own; refuses worlds that Vast could not be in."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.boots: dict[int, Boot] = {}
        self.alive: dict[int, tuple[float, int, str]] = {}
        self.rented: list[int] = []
        self.refuse: dict[int, Exception] = {}
        self.lose_reply = False
        self.undying = 0
        self.most_alive = 0

    def rent(self, offer_id: int, order: Order) -> int:
        if offer_id in self.refuse:
            raise self.refuse[offer_id]
        contract = 9000 + len(self.rented)
        self.rented.append(offer_id)
        self.alive[contract] = (self.clock.passed, offer_id, order.label)
        self.most_alive = max(self.most_alive, len(self.alive))
        if self.lose_reply:
            self.lose_reply = False
            raise ReplyLost("no answer")
        return contract

    def instance(self, instance_id: int) -> Instance | None:
        if instance_id not in self.alive:
            return None
        since, offer_id, label = self.alive[instance_id]
        boot = self.boots.get(offer_id, Boot())
        age = self.clock.passed - since
        running = age >= boot.running_after
        status, message = "loading", "pulling"
        if running:
            status, message = "running", "success"
        if boot.dies_with and age >= boot.running_after / 2:
            status, message = boot.dies_with
        changes: dict[str, Any] = {"actual_status": status, "status_msg": message, "label": label}
        if not (running and boot.ports):
            changes["ports"] = {}
        return Instance.from_json(instance(id=instance_id, machine_id=offer_id, **changes))

    def instances(self) -> list[Instance]:
        return [one for one in map(self.instance, list(self.alive)) if one is not None]

    def destroy(self, instance_id: int) -> None:
        if self.undying > 0:
            self.undying -= 1
            return
        self.alive.pop(instance_id, None)

    def check(self, one: Instance) -> tuple[HostFacts, str]:
        since, offer_id, _ = self.alive[one.id]
        boot = self.boots.get(offer_id, Boot())
        if self.clock.passed - since < boot.running_after + boot.ssh_after:
            raise BootFailed("connection refused")
        if boot.unfit:
            raise HostUnfit(boot.unfit)
        return FACTS, "ssh-ed25519 host"


class World:
    """One market, one policy, offers 1 to 20 with a machine each."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.market = FakeMarket(self.clock)
        self.lines: list[str] = []
        progress = Progress("instance", self.clock, self.lines.append)
        self.rental = Rental(self.market, self.clock, progress, Deadlines())
        self.searches = 0

    def candidates(self) -> list[market.Candidate]:
        self.searches += 1
        offers = [offer(id=n, machine_id=n) for n in range(1, 21)]
        return market.shortlist(offers, {}, need())

    def obtain(self):
        return self.rental.obtain(ORDER, self.candidates, self.market.check, PORTS)


@pytest.fixture
def world() -> World:
    return World()


def test_a_healthy_host_is_rented_once_and_told_by_stages(world):
    rented = world.obtain()
    assert world.market.rented == [1]
    assert rented.instance.ports == {"22/tcp": 40022, "8000/tcp": 40123}
    assert rented.host_key == "ssh-ed25519 host"
    assert list(rented.boot_seconds) == ["contract", "image", "ports", "ssh"]
    assert rented.boot_seconds["image"] >= 30
    assert not rented.adopted


def test_no_wait_is_silent_for_15_seconds(world):
    world.market.boots[1] = Boot(running_after=600)
    spoken: list[float] = []
    progress = Progress("instance", world.clock, lambda _: spoken.append(world.clock.passed))
    world.rental = Rental(world.market, world.clock, progress, Deadlines())
    world.obtain()
    gaps = [after - before for before, after in itertools.pairwise(spoken)]
    assert max(gaps) <= 15


@pytest.mark.parametrize(
    ("boot", "reason"),
    [
        (Boot(dies_with=("exited", "")), "exited"),
        (Boot(dies_with=("offline", "")), "offline"),
        (Boot(dies_with=("created", "OCI runtime create failed: CDI")), "cannot start containers"),
        (Boot(dies_with=("loading", "no space left on device")), "cannot start containers"),
        (Boot(running_after=5000), "the image was not there within 20 min"),
        (Boot(ports=False), "no mapping for 22/tcp, 8000/tcp"),
        (Boot(ssh_after=5000), "no login by SSH within 5 min"),
        (Boot(unfit="1 GPU is there"), "1 GPU is there"),
    ],
)
def test_a_host_that_fails_is_given_back_before_the_next_one_is_rented(world, boot, reason):
    world.market.boots[1] = boot
    rented = world.obtain()
    assert rented.instance.machine_id == 2
    assert world.market.rented == [1, 2]
    assert world.market.most_alive == 1
    verdict = next(line for line in world.lines if "given back after" in line)
    assert reason in verdict
    assert "$" in verdict


def test_a_fatal_status_ends_the_try_at_once(world):
    world.market.boots[1] = Boot(running_after=20, dies_with=("exited", ""))
    world.obtain()
    assert world.clock.passed < 120


def test_a_status_that_does_not_change_is_no_verdict(world):
    world.market.boots[1] = Boot(running_after=1100)
    assert world.obtain().instance.machine_id == 1


def test_an_image_that_cannot_be_pulled_is_nobodys_host_fault(world):
    world.market.boots[1] = Boot(dies_with=("created", "pull access denied for img"))
    with pytest.raises(ImageRefused, match="correct `image`"):
        world.obtain()
    assert world.market.rented == [1]
    assert world.market.alive == {}


def test_a_taken_offer_costs_nothing_and_the_next_is_tried(world):
    world.market.refuse = {1: OfferTaken("taken"), 2: OfferTaken("taken")}
    assert world.obtain().instance.machine_id == 3


def test_an_empty_account_stops_at_once(world):
    world.market.refuse = {1: NoCredit("no credit")}
    with pytest.raises(NoCredit):
        world.obtain()
    assert world.market.rented == []


def test_tries_are_bounded_and_each_machine_is_tried_once(world):
    world.market.boots = {n: Boot(dies_with=("exited", "")) for n in range(1, 21)}
    with pytest.raises(NoCandidateLeft, match="nothing is billed any more"):
        world.obtain()
    assert world.market.rented == list(range(1, MOST_TRIES + 1))
    assert world.market.alive == {}


def test_a_lost_reply_is_found_by_its_label_and_never_rented_twice(world):
    world.market.lose_reply = True
    rented = world.obtain()
    assert world.market.rented == [1]
    assert rented.instance.id == 9000


def test_a_lost_reply_without_a_contract_goes_on_to_the_next_offer(world):
    world.market.refuse = {1: ReplyLost("no answer")}
    assert world.obtain().instance.machine_id == 2
    assert world.clock.passed >= 60


def test_the_contract_of_an_earlier_try_is_adopted(world):
    world.market.rent(5, ORDER)
    rented = world.obtain()
    assert rented.adopted
    assert world.market.rented == [5]
    assert world.searches == 0


def test_leftovers_of_the_same_resource_are_destroyed_and_strangers_are_not(world):
    world.market.rent(5, dataclasses.replace(ORDER, label="p/s/endpoint/old"))
    world.market.rent(6, dataclasses.replace(ORDER, label="p/s/endpoint-2/abc"))
    world.market.rent(7, dataclasses.replace(ORDER, label=""))
    world.obtain()
    assert sorted(label for _, _, label in world.market.alive.values()) == [
        "",
        "p/s/endpoint-2/abc",
        LABEL,
    ]


def test_an_adopted_machine_that_fails_is_replaced(world):
    world.market.boots[5] = Boot(unfit="wrong")
    world.market.rent(5, ORDER)
    assert world.obtain().instance.machine_id == 1
    assert len(world.market.alive) == 1


def test_an_error_of_the_platform_gives_the_machine_back(world):
    def failing(_one):
        raise ApiFailed("Vast is down")

    with pytest.raises(ApiFailed):
        world.rental.obtain(ORDER, world.candidates, failing, PORTS)
    assert world.market.alive == {}


def test_destroy_is_repeated_until_the_contract_is_gone(world):
    contract = world.market.rent(1, ORDER)
    world.market.undying = 2
    world.rental.destroy(contract)
    assert world.market.alive == {}


def test_a_contract_that_will_not_go_is_named_with_its_price(world):
    contract = world.market.rent(1, ORDER)
    world.market.undying = 10**6
    with pytest.raises(StillBilled) as billed:
        world.rental.destroy(contract)
    assert f"instance {contract}" in str(billed.value)
    assert "$6.00/h" in str(billed.value)


def test_a_failed_machine_that_will_not_go_stops_everything(world):
    world.market.boots[1] = Boot(dies_with=("exited", ""))
    world.market.undying = 10**6
    with pytest.raises(StillBilled, match="could not be destroyed"):
        world.obtain()
    assert world.market.rented == [1]


def test_a_sweep_takes_the_stacks_label_and_nothing_else(world):
    mine = world.market.rent(1, ORDER)
    world.market.rent(2, dataclasses.replace(ORDER, label="p/s2/endpoint/abc"))
    assert world.rental.sweep("p/s/") == [mine]
    assert [label for _, _, label in world.market.alive.values()] == ["p/s2/endpoint/abc"]
