from __future__ import annotations

import pytest

from components.machine.errors import HostUnfit
from components.vast.errors import (
    ApiFailed,
    ApiUnreachable,
    ImageRefused,
    LeftRunning,
    NoCandidateLeft,
    RentedElsewhere,
    ReplyLost,
)
from tests.helpers.fake_market import Boot, FakeMarket
from tests.helpers.rental_scene import LABEL, ORDER


def test_a_lost_reply_is_found_by_its_label_and_never_rented_twice(world):
    world.market.lose_replies = 1
    world.market.boots[1] = Boot(listed_after=20)
    rented = world.provision()
    assert world.market.rented == [1]
    assert rented.instance.id == 9000


def test_a_lost_reply_without_a_contract_goes_on_to_the_next_offer(world):
    world.market.refuse = {1: ReplyLost("no answer")}
    assert world.provision().instance.machine_id == 2
    assert world.clock.passed >= 60


def test_a_contract_that_shows_up_after_all_is_ended_when_another_one_works(world):
    world.market.lose_replies = 1
    world.market.boots[1] = Boot(listed_after=70)
    rented = world.provision()
    assert world.market.rented == [1, 2]
    assert list(world.market.alive) == [rented.instance.id]
    assert "destroying instance 9000, which carries the label p/s/endpoint/abc" in "".join(
        world.lines
    )


def test_one_that_shows_up_is_ended_before_it_is_said_that_nothing_is_billed(world):
    world.market.lose_replies = 1
    world.market.boots[1] = Boot(listed_after=70)
    world.market.inspection = HostUnfit("the disk is too slow")
    with pytest.raises(NoCandidateLeft, match="nothing is billed any more"):
        world.provision()
    assert world.market.alive == {}


def test_one_that_shows_up_is_ended_before_a_fault_of_the_configuration_is_told(world):
    world.market.lose_replies = 1
    world.market.boots[1] = Boot(listed_after=70)
    world.market.inspection = ImageRefused("no such image")
    with pytest.raises(ImageRefused, match="nothing is billed any more"):
        world.provision()
    assert world.market.alive == {}


def test_leftovers_that_cannot_be_ended_do_not_cost_the_machine_that_works(world):
    class Late(FakeMarket):
        def inspect(self, one, *, adopted):
            self.failing = [ApiFailed("Vast is down")] * 3
            return super().inspect(one, adopted=adopted)

    world.market = Late(world.clock)
    assert world.provision().instance.machine_id == 1
    assert world.told("looking for leftovers failed: Vast is down")


def test_a_lost_reply_and_no_list_either_is_said_with_the_label(world):
    class Silent(FakeMarket):
        def rent(self, offer_id, order):
            super().rent(offer_id, order)
            self.failing = [ApiUnreachable("no answer")]
            raise ReplyLost("no answer")

    world.market = Silent(world.clock)
    with pytest.raises(LeftRunning, match="a contract with the label p/s/endpoint/abc may exist"):
        world.provision()


def test_a_rent_call_of_a_process_that_was_killed_is_waited_for(world):
    """Its contract is not listed yet when the next process begins."""
    provisioner = world.provisioner()
    with provisioner._journal.locked() as entry:
        entry.record_intent(LABEL)
        world.market.rent(5, ORDER)
        world.market.boots[5] = Boot(listed_after=25)
    rented = world.provision()
    assert rented.adopted
    assert world.market.rented == [5]


def test_a_note_of_long_ago_is_waited_for_no_more(world):
    with world.provisioner()._journal.locked() as entry:
        entry.record_intent(LABEL)
    world.clock.sleep(3600)
    began = world.clock.passed
    assert world.provision().instance.machine_id == 1
    assert world.clock.passed - began < 60


def test_a_settled_note_is_waited_for_no_more(world):
    world.provision()
    world.market.alive.clear()
    began = world.clock.passed
    world.offers = world.offers[5:]
    assert not world.provision().adopted
    assert world.clock.passed - began < 60


def test_two_processes_do_not_rent_for_one_resource_at_once(world):
    with world.file.lock(), pytest.raises(RentedElsewhere, match="nothing was rented by this one"):
        world.provision()
    assert world.market.rented == []
    assert world.clock.passed >= 60
