from __future__ import annotations

import contextlib
import itertools

import pytest

from components.core.progress import Progress
from components.vast.api.payloads import RentRequest
from components.vast.errors import (
    ContractParked,
    ImageRefused,
    NoCandidateLeft,
    NoCredit,
    NoOffer,
    OfferTaken,
    RateLimited,
    RentRefused,
    ReplyLost,
    StillBilled,
)
from components.vast.market.ranking import Candidate, shortlist
from components.vast.rental.budget import MOST_TRIES
from components.vast.rental.journal import RentJournal
from emulator.contracts import FATAL_STATUS_MSG
from tests.helpers.fake_market import Boot, Contract, FakeMarket
from tests.helpers.offers import need, offer
from tests.helpers.rental_scene import DEAD, LABEL, ORDER, PORTS, World


def test_a_healthy_host_is_rented_once_and_told_by_stages(world):
    rented = world.provision()
    assert world.market.rented == [1]
    assert rented.instance.ports == {"22/tcp": 40022, "8000/tcp": 40123}
    assert rented.host_key == "ssh-ed25519 host"
    assert list(rented.boot_seconds) == ["contract", "image", "container", "ports", "ssh", "check"]
    assert rented.boot_seconds["image"] >= 30
    assert rented.inspection.rate.mbps == 4000
    assert not rented.adopted


def test_each_try_is_one_line_with_host_place_price_stage_verdict_time_and_cents(world):
    world.market.boots[1] = Boot(quarantine_reason="1 GPU is there")
    world.provision()
    first, second = (line for line in world.lines if "instance: try " in line)
    assert first == (
        "instance: try 1: machine 1 in Iceland, IS, $6.00/h, stage check, host fault: "
        "1 GPU is there; given back; 31 s, 5.2 cents"
    )
    assert second.startswith("instance: try 2: machine 2 in Iceland, IS, $6.00/h, stage check, wor")


def test_no_wait_is_silent_for_15_seconds(world):
    world.market.boots[1] = Boot(running_after=600, filtered_for=30, ssh_after=200)
    world.provision()
    gaps = [after - before for before, after in itertools.pairwise(world.spoken_at)]
    assert max(gaps) <= 15


@pytest.mark.parametrize(
    "filtered",
    [
        {"22/tcp": [(0, 40)], "8000/tcp": [(0, 80)]},
        # Open in between: it begins to count anew.
        {"22/tcp": [(0, 40), (60, 100)], "8000/tcp": [(0, 80)]},
    ],
)
def test_each_port_has_its_own_time_to_open(world, filtered):
    world.market.boots[1] = Boot(filtered_ports=filtered)
    world.provision()
    assert world.market.rented == [1]


@pytest.mark.parametrize(
    ("boot", "stage", "reason"),
    [
        (DEAD, "image", "the container is exited"),
        (Boot(dies_with=("offline", "")), "image", "the container is offline"),
        (Boot(dies_with=("stopped", "")), "image", "the container is stopped"),
        (Boot(dies_with=("frozen", "")), "image", "the container is frozen"),
        (
            Boot(dies_with=("created", "OCI runtime create failed: CDI")),
            "image",
            "the host cannot start containers",
        ),
        (
            Boot(dies_with=("created", FATAL_STATUS_MSG)),
            "image",
            "unresolvable CDI devices nvidia.com/gpu=0)",
        ),
        (
            Boot(dies_with=("loading", "no space left on device")),
            "image",
            "the host cannot start containers",
        ),
        (Boot(listed_after=5000), "contract", "not within 1 min: instance 9000 is not listed"),
        (Boot(running_after=5000), "image", "not within 20 min: container loading: pulling"),
        (Boot(between=("recycling", 5000)), "container", "not within 5 min: container recycling"),
        (
            Boot(ports=False),
            "ports",
            "not within 3 min: running, but no mapping for 22/tcp, 8000/tcp",
        ),
        (Boot(filtered_for=5000), "ports", "port 22/tcp is mapped to 203.0.113.9:40022 and cannot"),
        (Boot(ssh_after=5000), "ssh", "not within 5 min: waiting for SSH (connection refused)"),
        (Boot(breaks_in_check=500), "check", "not within 4 min: waiting for SSH (connection lost)"),
        (Boot(quarantine_reason="1 GPU is there"), "check", "1 GPU is there"),
        (Boot(price=8.5), "contract", "costs $8.50/h and the cap is $8.00/h"),
        (Boot(interruptible=True), "contract", "is interruptible and was ordered on-demand"),
    ],
)
def test_a_host_that_fails_is_given_back_before_the_next_one_is_rented(world, boot, stage, reason):
    world.market.boots[1] = boot
    rented = world.provision()
    assert rented.instance.machine_id == 2
    assert world.market.rented == [1, 2]
    assert world.market.most_alive == 1
    verdict = world.told("try 1: ")
    assert f"stage {stage}, host fault" in verdict
    assert reason in verdict


def test_a_machine_that_is_outbid_while_it_starts_is_given_back_by_that_name(world):
    """Section 1 of marketplace-facts.md: not as a container that exited."""
    world.market.boots[1] = Boot(outbid_after=15, interruptible=True)
    world.market.boots[2] = Boot(interruptible=True)
    assert world.provision(interruptible=True).instance.machine_id == 2
    verdict = world.told("try 1: ")
    assert "it was outbid before it worked: its bid is $1.900/h, and $2.000/h wins now" in verdict


def test_a_fatal_status_ends_the_try_at_once(world):
    world.market.boots[1] = Boot(running_after=20, dies_with=("exited", ""))
    world.provision()
    assert world.clock.passed < 120


def test_a_status_that_does_not_change_is_no_verdict(world):
    world.market.boots[1] = Boot(running_after=1100)
    assert world.provision().instance.machine_id == 1


def test_a_connection_lost_in_the_check_is_tried_again(world):
    world.market.boots[1] = Boot(breaks_in_check=2)
    assert world.provision().instance.machine_id == 1


def test_a_port_that_opens_a_little_late_is_no_verdict(world):
    world.market.boots[1] = Boot(filtered_for=20)
    assert world.provision().instance.machine_id == 1


def test_an_image_that_cannot_be_pulled_is_nobodys_host_fault(world):
    world.market.boots[1] = Boot(dies_with=("created", "pull access denied for img"))
    with pytest.raises(ImageRefused, match="correct `image`") as refused:
        world.provision()
    assert "given back in stage image after 16 s, at most 2.7 cents" in str(refused.value)
    assert world.market.rented == [1]
    assert world.market.alive == {}


def test_a_taken_offer_costs_nothing_and_the_next_is_tried(world):
    world.market.refuse = {1: OfferTaken("taken"), 2: OfferTaken("taken")}
    assert world.provision().instance.machine_id == 3
    assert "0 s, 0.0 cents" in world.told("try 1: ")


PARKED = OfferTaken("offer 1 cannot start now")


def test_a_contract_of_a_refused_rental_is_destroyed_and_told_and_the_next_is_tried(world):
    """Section 3 of marketplace-facts.md."""
    world.market.parks = {1: PARKED}
    rented = world.provision()
    assert rented.instance.machine_id == 2
    assert list(world.market.alive) == [rented.instance.id]
    assert world.market.most_alive == 1
    assert world.told("giving instance 9000 back: refused, and made contract 9000")
    verdict = world.told("try 1: ")
    assert "$0.10/h, stage rent, host fault: refused, and made contract 9000; destroyed" in verdict
    assert verdict.endswith("1 s, 0.0 cents")


def test_a_refused_rental_of_an_empty_account_leaves_no_contract_either(world):
    """Section 3: whatever it was refused for."""
    world.market.parks = {1: NoCredit("no credit")}
    with pytest.raises(NoCredit):
        world.provision()
    assert (world.market.rented, world.market.alive) == ([1], {})


def test_a_contract_of_a_refused_rental_that_does_not_go_is_said_with_what_it_costs(world):
    """Section 3."""
    world.market.parks = {1: PARKED}
    world.market.undying = 1000
    with pytest.raises(StillBilled, match=r"instance 9000 failed .* costs up to \$0.10/h"):
        world.provision()


@pytest.mark.parametrize(
    "answer",
    [PARKED, ReplyLost("no answer"), RentRefused("bad price"), RateLimited("another program")],
)
def test_sweeps_follow_every_kind_of_failed_rental(world, answer):
    """Section 3: a contract that nobody named is found by its label."""

    class Silent(FakeMarket):
        def rent(self, offer_id, order):
            if offer_id == 1:
                contract = 9000 + len(self.rented)
                self.rented.append(offer_id)
                self.alive[contract] = Contract(
                    self.clock.passed, offer_id, order.label, order, parked=True
                )
            raise answer if offer_id == 1 else OfferTaken("taken")

    world.market = Silent(world.clock)
    world.offers = world.offers[:2]
    with pytest.raises((NoCandidateLeft, RentRefused, RateLimited)):
        world.provision()
    assert world.market.rented == [1]
    assert world.market.alive == {}


def test_what_was_destroyed_before_it_was_listed_is_waited_for_if_nothing_else_works(world):
    """Section 3: Vast did not know the contract yet when it was to be destroyed."""

    class Late(FakeMarket):
        def destroy(self, instance_id):
            if self.instance(instance_id) is not None:
                super().destroy(instance_id)

    world.market = Late(world.clock)
    world.market.boots[1] = Boot(listed_after=40)
    world.market.parks = {1: PARKED}
    world.offers = world.offers[:1]
    with pytest.raises(NoCandidateLeft):
        world.provision()
    assert world.market.alive == {}
    assert 40 <= world.clock.passed < 70


def test_who_dies_after_the_refusal_leaves_it_to_the_next_up(world):
    """Section 3: the label is on the contract; it is stopped, so it is not gone on with."""
    with contextlib.suppress(ContractParked):
        world.market.parks = {5: PARKED}
        world.market.rent(5, ORDER)
    rented = world.provision()
    assert not rented.adopted
    assert (world.market.rented, list(world.market.alive)) == ([5, 1], [rented.instance.id])
    assert world.told("instance 9000 is left over from an earlier try: destroying it")


def test_a_machine_whose_offer_was_taken_may_come_back_under_a_new_one(world: World) -> None:
    world.offers = [offer(id=1, machine_id=1)]
    world.market.refuse = {1: OfferTaken("taken")}

    def listed_anew() -> list[Candidate]:
        found = world.candidates()
        world.offers = [offer(id=11, machine_id=1)]
        return found

    rented = world.provisioner().provision(ORDER, listed_anew, world.market, PORTS)
    assert world.market.rented == [11]
    assert rented.instance.machine_id == 11


def test_an_unfit_machine_does_not_come_back_under_a_new_offer(world: World) -> None:
    world.offers = [offer(id=1, machine_id=1)]
    world.market.boots[1] = DEAD

    def listed_anew() -> list[Candidate]:
        found = world.candidates()
        world.offers = [offer(id=11, machine_id=1)]
        return found

    with pytest.raises(NoCandidateLeft, match="no other offer comes into question"):
        world.provisioner().provision(ORDER, listed_anew, world.market, PORTS)
    assert world.market.rented == [1]


def test_an_empty_account_stops_at_once(world):
    world.market.refuse = {1: NoCredit("no credit")}
    with pytest.raises(NoCredit):
        world.provision()
    assert world.market.rented == []
    assert "configuration fault: no credit" in world.told("try 1: ")


def test_a_market_without_an_offer_is_said_as_it_is(world):
    world.offers = [offer(dph_total=9.0)]
    with pytest.raises(NoOffer, match="maxDollarsPerHour"):
        world.provision()


def test_a_market_that_runs_dry_does_not_hide_what_was_tried(world: World) -> None:
    world.offers = [offer(id=1, machine_id=1)]
    world.market.boots[1] = DEAD

    def last_one() -> list[Candidate]:
        found = world.candidates()
        world.offers = [offer(dph_total=9.0)]
        return found

    with pytest.raises(NoCandidateLeft, match="machine 1 in Iceland"):
        world.provisioner().provision(ORDER, last_one, world.market, PORTS)


def test_tries_are_bounded_and_end_with_a_table_and_what_it_cost(world):
    world.market.boots = dict.fromkeys(range(1, 21), DEAD)
    with pytest.raises(NoCandidateLeft) as left:
        world.provision()
    text = str(left.value)
    assert text.startswith("12 tries in ")
    assert "(there are 12)" in text
    assert "$0." in text
    assert "nothing is billed any more" in text
    assert world.market.rented == list(range(1, MOST_TRIES + 1))
    assert world.market.alive == {}
    head = next(n for n, line in enumerate(world.lines) if "verdict" in line and "cents" in line)
    rows = world.lines[head + 2 : head + 14]
    assert [row.split()[1] for row in rows] == [str(n) for n in range(1, 13)]
    assert all("Iceland, IS" in row and "6.00" in row and "image" in row for row in rows)


def test_the_budget_of_time_ends_the_tries_and_the_one_that_is_under_way(world):
    world.market.boots = {n: Boot(running_after=5000) for n in range(1, 21)}
    with pytest.raises(NoCandidateLeft, match="rentBudgetMinutes is 30 and"):
        world.provision(budget_seconds=1800.0)
    assert world.market.rented == [1, 2]
    assert world.market.alive == {}
    assert world.clock.passed == pytest.approx(1800, abs=10)
    assert "budget: the budget for all tries is used up" in world.told("try 2: ")


def test_a_budget_that_was_spent_on_waiting_for_an_earlier_call_rents_nothing(world):
    with RentJournal(
        world.file, world.clock, Progress("", world.clock, world.say)
    ).locked() as entry:
        entry.record_intent(f"{ORDER.label}0")
    with pytest.raises(NoCandidateLeft, match="0 tries in 1 min for at most") as failed:
        world.provision(budget_seconds=30.0)
    assert "rentBudgetMinutes is 0.5" in str(failed.value)
    assert world.market.rented == []


def test_the_budget_of_money_ends_the_tries_and_the_one_that_is_under_way(world):
    world.market.boots = {n: Boot(running_after=5000) for n in range(1, 21)}
    with pytest.raises(NoCandidateLeft, match=r"rentBudgetDollars 3.00"):
        world.provision(budget_dollars=3.0)  # half an hour at $6.00/h
    assert world.market.rented == [1, 2]
    assert world.clock.passed == pytest.approx(1800, abs=10)
    assert world.market.alive == {}


def test_an_error_of_our_own_gives_the_machine_back(world):
    world.market.inspection = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        world.provision()
    assert world.market.alive == {}


def test_a_failed_machine_that_will_not_go_stops_everything(world):
    world.market.boots[1] = DEAD
    world.market.undying = 10**6
    with pytest.raises(StillBilled, match="could not be destroyed") as billed:
        world.provision()
    assert "$6.00/h" in str(billed.value)
    assert world.market.rented == [1]


def test_a_label_is_noted_before_it_is_sent(world):
    world.market.refuse = {1: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        world.provision()
    with world.provisioner()._journal.locked() as entry:
        assert entry.uncommitted() == (LABEL, pytest.approx(0, abs=1))


@pytest.mark.parametrize("ordered", [True, False])
def test_a_contract_of_the_other_kind_is_given_back(world, ordered):
    world.market.boots = {1: Boot(interruptible=not ordered), 2: Boot(interruptible=ordered)}
    rented = world.provision(interruptible=ordered)
    assert world.market.rented == [1, 2]
    assert rented.instance.machine_id == 2
    kinds = ("on-demand", "interruptible") if ordered else ("interruptible", "on-demand")
    assert world.told(f"the contract is {kinds[0]} and was ordered {kinds[1]}")


def test_each_offer_is_rented_with_its_own_bid(world, monkeypatch):
    prices = []
    rent = world.market.rent

    def noting(offer_id: int, order: RentRequest) -> int:
        prices.append(order.price)
        contract: int = rent(offer_id, order)
        return contract

    monkeypatch.setattr(world.market, "rent", noting)
    wanted = need(contract="interruptible")
    world.offers = [offer(id=1, min_bid=2.0), offer(id=2, machine_id=8, min_bid=3.0)]
    world.market.boots = {1: DEAD, 2: Boot(interruptible=True)}
    monkeypatch.setattr(world, "candidates", lambda: shortlist(world.offers, {}, wanted))
    world.provision(interruptible=True)
    assert prices == [pytest.approx(2.4), pytest.approx(3.6)]
