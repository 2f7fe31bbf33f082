"""First contact while a machine boots: whose host key is taken, and what becomes of the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.vast.errors import CannotAdopt, NobodyVouches
from components.vast.rental.boot import Deadlines
from components.vast.rental.provisioner import MOST_UNPROVEN
from tests.helpers.fake_market import Boot, Contract
from tests.helpers.rental_scene import LABEL, ORDER, PORTS, World

PROOF = "firstContact is verified"
MIDDLE = Boot(named=("ssh-ed25519 AAAA", "ssh-rsa BBBB"))
SILENT = Boot(log_after=1e9)
IN_TIME = Deadlines().named


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("proof_needed", ["", PROOF])
def test_a_key_that_the_log_names_is_proven_without_a_wait(world: World, proof_needed: str) -> None:
    rented = world.provision(proof_needed=proof_needed)
    assert rented.is_named
    assert world.market.logs == 1
    assert "its SSH host key is the one that the market's log names" in "\n".join(world.lines)
    assert list(rented.boot_seconds) == ["contract", "image", "container", "ports", "ssh", "check"]


@pytest.mark.parametrize("proof_needed", ["", PROOF])
def test_a_log_that_is_late_is_waited_for(world: World, proof_needed: str) -> None:
    world.market.boots[1] = Boot(log_after=IN_TIME - 15)
    rented = world.provision(proof_needed=proof_needed)
    assert rented.is_named
    assert world.market.rented == [1]
    assert world.told("the SSH host key is not proven yet (the market's log names none)")


def test_without_a_log_a_key_is_taken_on_trust_and_said_to_be(world: World) -> None:
    world.market.boots[1] = SILENT
    rented = world.provision()
    assert not rented.is_named
    assert world.market.rented == [1]
    assert IN_TIME <= world.clock.passed < IN_TIME + 60
    said = world.told("taken on trust (firstContact), and no Hub token is sent there")
    assert "within 2 min: the key SHA256:" in said


def test_without_a_log_a_machine_that_must_be_proven_is_given_back(world: World) -> None:
    world.market.boots[1] = SILENT
    rented = world.provision(proof_needed=PROOF)
    assert world.market.rented == [1, 2]
    assert len(world.market.alive) == 1
    assert rented.is_named
    said = world.told("try 1: machine 1")
    assert "stage host key, host fault: nobody vouches for instance 9000 within 2 min" in said
    assert f"names none); {PROOF}; given back" in said


@pytest.mark.parametrize("proof_needed", ["", PROOF])
@pytest.mark.parametrize("late", [0.0, 60.0])
def test_a_machine_in_the_middle_is_given_back_whatever_the_setting(
    world: World, proof_needed: str, late: float
) -> None:
    world.market.boots[1] = Boot(named=MIDDLE.named, log_after=late)
    rented = world.provision(proof_needed=proof_needed)
    assert world.market.rented == [1, 2]
    assert len(world.market.alive) == 1
    assert rented.is_named
    said = world.told("try 1: machine 1")
    assert "another machine answers at 203.0.113.9:40022 than was rented: it shows the SSH" in said
    assert "the market's log of instance 9000 names SHA256:" in said
    assert "nothing secret was sent to it" in said


@pytest.mark.parametrize(
    ("boot", "proof_needed", "said"),
    [
        (MIDDLE, "", "another machine answers at"),
        (MIDDLE, PROOF, "another machine answers at"),
        (SILENT, PROOF, "nobody vouches for instance 9001"),
    ],
)
def test_no_third_machine_is_tried_where_two_could_not_be_proven(
    world: World, boot: Boot, proof_needed: str, said: str
) -> None:
    world.market.boots = dict.fromkeys(range(1, 21), boot)
    with pytest.raises(NobodyVouches, match=r"2 machines could not be proven.*no other is") as told:
        world.provision(proof_needed=proof_needed)
    assert said in str(told.value)
    assert "all were given back, at most $" in str(told.value)
    assert len(world.market.rented) == MOST_UNPROVEN
    assert world.market.alive == {}


def test_the_budget_ends_the_wait_for_a_log(world: World) -> None:
    world.market.boots = dict.fromkeys(range(1, 21), SILENT)
    with pytest.raises(Exception, match="rentBudgetMinutes is 1") as told:
        world.provision(proof_needed=PROOF, budget_seconds=60.0)
    assert "nothing is billed any more" in str(told.value)
    assert world.market.alive == {}


def test_what_an_interrupted_up_left_is_proven_as_well(world: World) -> None:
    world.market.alive[9100] = Contract(since=-1000.0, offer_id=1, label=LABEL)
    world.market.boots[1] = MIDDLE
    rented = world.provision()
    assert world.market.rented == [2]
    assert rented.is_named
    assert 9100 not in world.market.alive


def test_a_machine_of_a_person_s_own_is_kept_where_it_cannot_be_proven(world: World) -> None:
    world.market.alive[9100] = Contract(since=-1000.0, offer_id=1, label="by hand")
    world.market.boots[1] = MIDDLE
    with pytest.raises(CannotAdopt, match="another machine answers"):
        world.provisioner().adopt(9100, ORDER, world.market, PORTS)
    assert 9100 in world.market.alive
