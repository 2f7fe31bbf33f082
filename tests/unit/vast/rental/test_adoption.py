from __future__ import annotations

import dataclasses

import pytest

from components.vast.errors import (
    ApiFailed,
    ApiUnreachable,
    CannotAdopt,
    KeyRefused,
    LeftRunning,
    NoCandidateLeft,
)
from components.vast.labels import order_digest, owner_of
from components.vast.quarantine import quarantine_label
from emulator.contracts import FATAL_STATUS_MSG
from tests.helpers.fake_market import Boot, Contract, FakeMarket
from tests.helpers.rental_scene import DEAD, LABEL, ORDER, PORTS


def test_the_contract_of_an_earlier_try_is_adopted(world):
    world.market.rent(5, ORDER)
    rented = world.provision()
    assert rented.adopted
    assert world.market.rented == [5]
    assert world.searches == 0


def test_leftovers_of_the_same_resource_are_destroyed_and_strangers_are_not(world):
    world.market.rent(5, dataclasses.replace(ORDER, label="p/s/endpoint/old"))
    world.market.rent(6, dataclasses.replace(ORDER, label="p/s/endpoint-2/abc"))
    world.market.rent(7, dataclasses.replace(ORDER, label=""))
    world.provision()
    assert world.market.labels() == ["", "p/s/endpoint-2/abc", LABEL]


def test_a_machine_that_is_marked_unfit_is_ended_first_and_not_rented_again(world):
    world.market.rent(1, dataclasses.replace(ORDER, label=quarantine_label(LABEL, "download_slow")))
    rented = world.provision()
    assert rented.instance.machine_id == 2
    assert world.market.labels() == [LABEL]
    assert world.market.most_alive == 1
    assert "instance 9000 was marked unfit (download slow), so that machine 1 is not" in (
        world.told("marked unfit")
    )


def test_a_market_of_unfit_machines_alone_is_said_as_it_is(world):
    world.market.rent(1, dataclasses.replace(ORDER, label=quarantine_label(LABEL, "download_slow")))
    world.offers = world.offers[:1]
    with pytest.raises(NoCandidateLeft, match=r"nothing but machines that were found unfit \(1\)"):
        world.provision()
    assert world.market.alive == {}


def test_of_two_contracts_with_the_order_s_own_label_one_is_kept(world):
    world.market.rent(5, ORDER)
    world.market.rent(6, ORDER)
    assert world.provision().adopted
    assert len(world.market.alive) == 1


@pytest.mark.parametrize("boot", [Boot(quarantine_reason="wrong"), Boot(price=9.0), DEAD])
def test_an_adopted_machine_that_fails_is_replaced_by_another_one(world, boot):
    world.market.boots[1] = boot
    world.market.rent(1, ORDER)
    assert world.provision().instance.machine_id == 2
    assert len(world.market.alive) == 1


@pytest.mark.parametrize(
    "error",
    [ApiFailed("Vast is down"), ApiUnreachable("no answer"), KeyRefused("unknown key")],
)
def test_a_machine_that_cannot_be_seen_is_kept_and_named_with_its_price(world, error):
    world.market.inspection = error
    with pytest.raises(LeftRunning) as left:
        world.provision()
    text = str(left.value)
    assert "instance 9000 was rented for $6.00/h" in text
    assert str(error) in text
    assert "run `pulumi up` to go on with it" in text
    assert world.market.labels() == [LABEL]
    assert "platform fault" in world.told("try 1: ")


def test_what_could_not_be_seen_is_adopted_by_the_next_up(world):
    class Outage(FakeMarket):
        down = True

        def instances(self, max_age=0.0):
            if self.down and self.rented and self.clock.passed > 30:
                raise ApiUnreachable("no answer")
            return super().instances(max_age)

    world.market = Outage(world.clock)
    world.market.boots[1] = Boot(running_after=100)
    with pytest.raises(LeftRunning):
        world.provision()
    world.market.down = False
    assert world.provision().adopted
    assert world.market.rented == [1]


def test_only_what_was_there_before_may_serve_already(world):
    world.provision()
    world.provision()
    assert world.market.inspected == [(9000, False), (9000, True)]


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), KeyboardInterrupt()])
def test_an_adopted_machine_is_kept_whatever_becomes_of_this_process(world, error):
    world.market.rent(5, ORDER)
    world.market.inspection = error
    with pytest.raises(type(error)):
        world.provision()
    assert world.market.labels() == [LABEL]
    assert "instance 9000 is kept ($6.00/h)" in world.told("is kept")


@pytest.fixture
def by_hand(world) -> Contract:
    """A contract that somebody rented and that runs, on machine 20; its id is 7001."""
    one = Contract(world.clock.passed - 600, 20, LABEL)
    world.market.alive[7001] = one
    return one


def taken_over(world):
    return world.provisioner().adopt(7001, ORDER, world.market, PORTS)


@pytest.mark.parametrize("listed", [LABEL, "by hand", "p/s/endpoint/older"])
def test_what_was_rented_by_hand_is_taken_over_whatever_label_the_list_still_shows(
    world, by_hand, listed
):
    by_hand.label = listed
    world.market.alive[7002] = Contract(world.clock.passed, 19, "p/s/endpoint/left")
    assert taken_over(world).instance.id == 7001
    assert list(world.market.alive) == [7001]
    assert world.market.rented == []


@pytest.mark.parametrize(
    "boot",
    [
        Boot(quarantine_reason="1 GPU"),
        Boot(price=9.0),
        Boot(dies_with=("exited", FATAL_STATUS_MSG)),
    ],
)
@pytest.mark.usefixtures("by_hand")
def test_what_was_rented_by_hand_and_fails_is_kept_and_nothing_is_rented(world, boot):
    world.market.boots[20] = boot
    with pytest.raises(CannotAdopt, match=r"7001 .* was kept and costs \$\d.*`pulumi destroy`"):
        taken_over(world)
    assert list(world.market.alive) == [7001]
    assert world.market.rented == []


def test_what_was_rented_by_hand_and_is_gone_is_followed_by_no_other(world):
    with pytest.raises(CannotAdopt, match="7001, which `adopt` names, is gone"):
        taken_over(world)
    assert world.market.rented == []


@pytest.mark.usefixtures("by_hand")
def test_what_was_rented_by_hand_and_cannot_be_seen_is_kept(world):
    world.market.inspection = ApiUnreachable("no network")
    with pytest.raises(LeftRunning, match="7001"):
        taken_over(world)
    assert list(world.market.alive) == [7001]


def test_what_another_key_rented_under_the_same_name_is_left_alone(world):
    ours, theirs = owner_of("ours"), owner_of("theirs")
    order = dataclasses.replace(
        ORDER, label=f"p/s/endpoint/{order_digest(ours, 'now')}", owner=ours
    )
    world.market.rent(
        20, dataclasses.replace(ORDER, label=f"p/s/endpoint/{order_digest(ours, 'old')}")
    )
    other = world.market.rent(
        19, dataclasses.replace(ORDER, label=f"p/s/endpoint/{order_digest(theirs, 'old')}")
    )
    rented = world.provisioner().provision(order, world.candidates, world.market, PORTS)
    assert set(world.market.alive) == {other, rented.instance.id}
    assert "is left alone" in world.told(f"instance {other} ($6.00/h) carries the label")


def test_a_ctrl_c_ends_the_wait_keeps_the_machine_and_says_what_it_costs(world):
    world.is_asked_to_end = True
    with pytest.raises(LeftRunning) as caught:
        world.provision()
    assert str(caught.value) == (
        "instance 9000 was rented for $6.00/h, and the wait for it was ended by Ctrl-C in stage "
        "image; it goes on starting and is billed: run `pulumi up` to go on with it or "
        "`pulumi destroy` to end it"
    )
    assert world.clock.passed < 10
    assert "interrupted: the wait for it was ended by Ctrl-C" in world.told("instance: try 1")
    world.is_asked_to_end = False
    assert world.provision().adopted
    assert world.market.rented == [1]
