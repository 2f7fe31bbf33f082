"""Several renters on one computer, in any order of their steps, never try one machine at once."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.interruption import Interrupted
from components.core.progress import Progress
from components.vast.api.locked_file import LockedJsonFile
from components.vast.api.models import Instance
from components.vast.api.payloads import RentRequest
from components.vast.errors import NoCandidateLeft, NoOffer, OfferTaken, TermsDiffer
from components.vast.fleet import Fleet, Spread
from components.vast.labels import order_digest, owner_of, renter_of, resource_of
from components.vast.market.ranking import Candidate, shortlist
from components.vast.rental.boot import Rented
from components.vast.rental.claims import Claims
from components.vast.rental.journal import RentJournal
from components.vast.rental.provisioner import Provisioner
from tests.helpers.fake_market import Boot, FakeMarket
from tests.helpers.interleaving import Interleaving
from tests.helpers.offers import need, offer
from tests.helpers.rental_scene import DEAD, LIMITS, PORTS

OWNER = owner_of("ssh-ed25519 AAAA p/s")


@dataclasses.dataclass
class Supply:
    """A market: machines by number, each with some offers, some of them bad."""

    slices: list[int]
    """Offers of each machine."""
    bad: list[bool]
    """Whether the machine fails."""
    hosts: list[int]

    def machine_ids(self) -> list[int]:
        return list(range(1, len(self.slices) + 1))

    def good_places(self, spread: Spread) -> set[int]:
        good = [number for number in self.machine_ids() if not self.bad[number - 1]]
        return {self.place(number, spread) for number in good}

    def place(self, machine_id: int, spread: Spread) -> int:
        return self.hosts[machine_id - 1] if spread == "host" else machine_id


class SharedMarket(FakeMarket):
    """A market on which each call lets others go first; it notes who tries what at once."""

    def __init__(self, clock: Interleaving, supply: Supply) -> None:
        super().__init__(clock)
        self.turn = clock.turn
        self.supply = supply
        self.faults: list[str] = []
        self.trying: dict[str, int] = {}
        """Machine by label."""
        self.rent_calls = 0
        for number in supply.machine_ids():
            self.hosts[number] = supply.hosts[number - 1]
            if supply.bad[number - 1]:
                self.boots[number] = DEAD
            for slice_ in range(supply.slices[number - 1]):
                self.machines[100 * number + slice_] = number
        self.offers = set(self.machines)

    def listed(self) -> list[Candidate]:
        self.turn()
        taken = {one.offer_id for one in self.alive.values()}
        rows = [
            offer(id=id_, machine_id=number, host_id=self.hosts[number])
            for id_, number in self.machines.items()
            if id_ not in taken
        ]
        return shortlist(rows, {}, need(), most=64)

    def rent(self, offer_id: int, order: RentRequest) -> int:
        self.turn()
        self.rent_calls += 1
        machine, mine = self.machines[offer_id], renter_of(resource_of(order.label))
        if machine in self.trying.values():
            self.faults.append(f"{order.label} and another one try machine {machine}")
        for one in self.alive.values():
            its = renter_of(resource_of(one.label))
            if self.machines[one.offer_id] == machine and its.endpoint == mine.endpoint:
                self.faults.append(f"{order.label} tries a sibling's machine {machine}")
        self.trying[order.label] = machine
        try:
            return super().rent(offer_id, order)
        except OfferTaken:
            del self.trying[order.label]
            raise

    def destroy(self, instance_id: int) -> None:
        self.turn()
        if instance_id in self.alive:
            self.trying.pop(self.alive[instance_id].label, None)
        super().destroy(instance_id)

    def instances(self, max_age: float = 0.0) -> list[Instance]:
        self.turn()
        return super().instances(max_age)

    def inspect(self, one: Instance, *, adopted: bool):
        self.turn()
        found = super().inspect(one, adopted=adopted)
        self.trying.pop(one.label, None)
        return found


class Side:
    """What rents, each replica as a process of its own does."""

    def __init__(self, folder: Path, clock: Interleaving, market: SharedMarket) -> None:
        self.folder = folder
        self.clock = clock
        self.market = market
        self.lines: list[str] = []
        self.budget_seconds = 36000.0
        self.is_asked_to_end = False
        self.first_answer = market.listed()

    def renter(self, name: str, fleet: Fleet | None):
        prefix = f"p/s/{name}-instance/"
        order = RentRequest(
            image="img",
            disk_gb=500.0,
            label=f"{prefix}{order_digest(OWNER, 'order')}",
            owner=OWNER,
            onstart="true",
            ports=(8000,),
        )
        progress = Progress(name, self.clock, self.lines.append, lambda: self.is_asked_to_end)
        provisioner = Provisioner(
            self.market,
            self.clock,
            progress,
            dataclasses.replace(LIMITS, budget_seconds=self.budget_seconds),
            RentJournal(self.file(f"{name}.rent.json"), self.clock, progress),
            claims=Claims(self.file, self.clock, label_prefix=prefix, owner=OWNER, fleet=fleet),
        )
        asked = itertools.count()

        def candidates() -> list[Candidate]:
            # The first answer is a moment old, and the same for all.
            return self.market.listed() if next(asked) else list(self.first_answer)

        return lambda: provisioner.provision(order, candidates, self.market, PORTS)

    def file(self, name: str) -> LockedJsonFile:
        self.clock.turn()
        return LockedJsonFile(self.folder / name)


@st.composite
def supplies(draw: st.DrawFn) -> Supply:
    count = draw(st.integers(1, 7))

    def each(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=count, max_size=count))

    return Supply(each(st.integers(1, 3)), each(st.booleans()), each(st.integers(901, 905)))


SEEDS = st.integers(0, 2**32)
SPREADS: st.SearchStrategy[Spread] = st.sampled_from(["machine", "host"])


@given(supplies(), st.integers(2, 5), SPREADS, SEEDS)
def test_replicas_never_meet_and_get_every_machine_that_works(supply, replicas, spread, seed):
    with tempfile.TemporaryDirectory() as folder:
        clock = Interleaving(seed)
        market = SharedMarket(clock, supply)
        side = Side(Path(folder), clock, market)
        names = ["endpoint", *(f"endpoint-r{number}" for number in range(1, replicas))]
        fleet = Fleet(replicas, spread)
        outcomes = clock.run(*(side.renter(name, fleet) for name in names))
    assert market.faults == []
    rented = [one for one in outcomes if isinstance(one, Rented)]
    others = [one for one in outcomes if not isinstance(one, Rented)]
    places = [supply.place(one.instance.machine_id, spread) for one in rented]
    assert len(set(places)) == len(places)
    assert len(rented) == min(replicas, len(supply.good_places(spread))), others
    assert all(isinstance(one, NoCandidateLeft | NoOffer) for one in others)
    assert len(market.alive) == len(rented)
    assert not any("offer" in line and "was taken" in line for line in side.lines)
    # A bad machine costs one try, whoever makes it; two stand at their end at the same moment.
    tried = [market.machines[one] for one in market.rented]
    assert len(tried) == len(set(tried)) or others


@given(supplies(), st.integers(2, 5), SEEDS)
def test_different_stacks_never_try_one_machine_at_a_time(supply, stacks, seed):
    with tempfile.TemporaryDirectory() as folder:
        clock = Interleaving(seed)
        market = SharedMarket(clock, supply)
        side = Side(Path(folder), clock, market)
        outcomes = clock.run(*(side.renter(f"chat{number}", None) for number in range(stacks)))
    assert market.faults == []
    offers = sum(count for count, bad in zip(supply.slices, supply.bad, strict=True) if not bad)
    rented = [one for one in outcomes if isinstance(one, Rented)]
    assert len(rented) == min(stacks, offers)


def scene(tmp_path: Path, supply: Supply) -> Side:
    clock = Interleaving(seed=1, pauses=(0.0,))
    return Side(tmp_path, clock, SharedMarket(clock, supply))


def test_who_finds_all_machines_claimed_says_so_and_waits(tmp_path):
    side = scene(tmp_path, Supply([2], [False], [901]))
    side.market.boots[1] = Boot(running_after=300)
    outcomes = side.clock.run(side.renter("chat0", None), side.renter("chat1", None))
    assert all(isinstance(one, Rented) for one in outcomes)
    assert any("others try the machines that are left (1)" in line for line in side.lines)
    assert side.clock.passed < 700


def test_an_offer_that_went_with_a_claim_is_not_tried(tmp_path):
    side = scene(tmp_path, Supply([1], [False], [901]))
    side.market.boots[1] = Boot(running_after=300)
    outcomes = side.clock.run(side.renter("chat0", None), side.renter("chat1", None))
    assert sorted(type(one).__name__ for one in outcomes) == ["NoOffer", "Rented"]
    assert any("others try the machines that are left (1)" in line for line in side.lines)
    assert side.market.rent_calls == 1


def test_a_wait_for_others_ends_with_the_budget(tmp_path):
    side = scene(tmp_path, Supply([2], [False], [901]))
    held = Claims(side.file, side.clock, label_prefix="p/t/other-instance/", owner="")
    side.budget_seconds = 600
    with held.on(offer(machine_id=1)) as claim:
        assert claim is not None
        (outcome,) = side.clock.run(side.renter("chat", None))
    assert isinstance(outcome, NoCandidateLeft)
    assert "0 tries in 10 min" in str(outcome)
    assert "rentBudgetMinutes is 10 " in str(outcome)
    assert side.market.rented == []


def test_a_wait_for_others_hears_ctrl_c(tmp_path):
    side = scene(tmp_path, Supply([2], [False], [901]))
    side.is_asked_to_end = True
    held = Claims(side.file, side.clock, label_prefix="p/t/other-instance/", owner="")
    with held.on(offer(machine_id=1)):
        (outcome,) = side.clock.run(side.renter("chat", None))
    assert isinstance(outcome, Interrupted)
    assert str(outcome) == "the wait for a machine was ended by Ctrl-C; nothing was rented"
    assert (side.market.rented, side.clock.passed) == ([], 0)


def test_a_machine_without_its_hosts_number_is_no_ones_with_spread_by_host(tmp_path):
    side = scene(tmp_path, Supply([1], [False], [0]))
    (outcome,) = side.clock.run(side.renter("endpoint-r1", Fleet(2, "host")))
    assert isinstance(outcome, NoCandidateLeft)
    assert side.market.rented == []


def test_what_a_sibling_found_unfit_is_tried_again_by_the_next_up(tmp_path):
    side = scene(tmp_path, Supply([1], [True], [901]))
    fleet = Fleet(2)
    first, second = (side.renter(name, fleet) for name in ("endpoint", "endpoint-r1"))
    outcomes = side.clock.run(first)
    assert isinstance(outcomes[0], NoCandidateLeft)
    outcomes = side.clock.run(second)
    assert "machines that were found unfit (1)" in str(outcomes[0])
    assert any(
        "machine 1 was unfit for another replica (the container" in one for one in side.lines
    )
    side.market.boots.clear()
    outcomes = side.clock.run(side.renter("endpoint-r1", fleet))
    assert isinstance(outcomes[0], Rented)


def test_a_verdict_is_the_siblings_alone_and_ends(tmp_path):
    side = scene(tmp_path, Supply([1], [True], [901]))
    side.clock.run(side.renter("endpoint", Fleet(2)))
    kin = Claims(
        side.file, side.clock, label_prefix="p/s/endpoint-r1-instance/", owner=OWNER, fleet=Fleet(2)
    )
    other = Claims(
        side.file, side.clock, label_prefix="p/s/chat-r1-instance/", owner=OWNER, fleet=Fleet(2)
    )
    for claims, is_told in ((kin, True), (other, False)):
        with claims.on(offer(machine_id=1)) as claim:
            assert claim is not None
            assert bool(claim.unfit_for_sibling()) is is_told
    side.clock.passed += 3600
    with kin.on(offer(machine_id=1)) as claim:
        assert claim is not None
        assert claim.unfit_for_sibling() == ""


@pytest.mark.parametrize(("spread", "is_free"), [("machine", True), ("host", False)])
def test_a_host_is_claimed_by_siblings_alone(tmp_path, spread, is_free):
    side = scene(tmp_path, Supply([1, 1], [False, False], [901, 901]))

    def claims(name: str) -> Claims:
        prefix = f"p/s/{name}-instance/"
        fleet = Fleet(2, spread)
        return Claims(side.file, side.clock, label_prefix=prefix, owner=OWNER, fleet=fleet)

    one, another = offer(machine_id=1, host_id=901), offer(machine_id=2, host_id=901)
    with claims("endpoint").on(one):
        with claims("endpoint-r1").on(another) as sibling:
            assert (sibling is not None) is is_free
        with claims("chat").on(another) as stranger:
            assert stranger is not None
        with claims("chat").on(one) as stranger:
            assert stranger is None
    with claims("endpoint-r1").on(another) as sibling:
        assert sibling is not None


def test_an_error_in_a_try_ends_its_claim(tmp_path):
    side = scene(tmp_path, Supply([1], [False], [901]))
    claims = Claims(side.file, side.clock, label_prefix="p/s/chat-instance/", owner="")
    with pytest.raises(TermsDiffer), claims.on(offer(machine_id=1)):
        raise TermsDiffer("dearer")
    with claims.on(offer(machine_id=1)) as claim:
        assert claim is not None
