from __future__ import annotations

import dataclasses

import pytest

from components.core.progress import Progress
from components.vast.errors import ApiFailed, ApiUnreachable, KeyRefused, RateLimited, StillBilled
from components.vast.labels import order_digest, owner_of
from components.vast.rental.termination import AGAIN, DEADLINE, POLL, SETTLING, Terminator
from tests.helpers.fake_market import Boot, FakeMarket
from tests.helpers.fakes import VirtualClock
from tests.helpers.rental_scene import ORDER


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def market(clock) -> FakeMarket:
    return FakeMarket(clock)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def terminator(market, clock, said) -> Terminator:
    return Terminator(market, clock, Progress("instance", clock, said.append))


def test_a_contract_that_goes_is_read_back(market, terminator):
    terminator.terminate(market.rent(1, ORDER), 6.0)
    assert market.alive == {}
    assert len(market.destroyed_at) == 1


def test_one_that_is_gone_already_is_gone(market, terminator):
    terminator.terminate(9999, 6.0)
    assert market.alive == {}


def test_a_delete_that_lied_is_sent_again_but_not_at_every_look(market, terminator, clock):
    contract = market.rent(1, ORDER)
    market.undying = 2
    terminator.terminate(contract, 6.0)
    assert market.alive == {}
    first, second, third = market.destroyed_at
    assert AGAIN <= second - first < AGAIN + POLL
    assert AGAIN <= third - second < AGAIN + POLL
    assert clock.passed == third + SETTLING


@pytest.mark.parametrize(
    "error", [ApiFailed("503"), RateLimited("429"), ApiUnreachable("no answer")]
)
def test_failures_on_the_way_do_not_end_it(market, terminator, error, said):
    contract = market.rent(1, ORDER)
    market.failing = [error] * 5
    terminator.terminate(contract, 6.0)
    assert market.alive == {}
    assert f"instance {contract} is not proven gone: {error}" in said[0]


@pytest.mark.parametrize("failing", [[], [ApiFailed("503 at DELETE")] * 10_000])
def test_what_is_not_proven_gone_is_named_with_price_and_remedy(market, terminator, clock, failing):
    contract = market.rent(1, ORDER)
    market.undying = 10**6
    market.failing = list(failing)
    with pytest.raises(StillBilled) as billed:
        terminator.terminate(contract, 6.0)
    text = str(billed.value)
    assert f"instance {contract} is not proven gone" in text
    assert "$6.00/h" in text
    assert f"vastai destroy instance {contract} -y" in text
    assert ("503 at DELETE" if failing else "still listed as running") in text
    assert clock.passed >= DEADLINE


def test_a_key_that_is_refused_says_what_is_billed_on(market, terminator):
    contract = market.rent(1, ORDER)
    market.failing = [KeyRefused("unknown key")]
    with pytest.raises(KeyRefused, match=rf"instance {contract} \(\$6.00/h\) was not destroyed"):
        terminator.terminate(contract, 6.0)
    assert list(market.alive) == [contract]


def test_a_sweep_takes_the_stacks_label_and_nothing_else(market, terminator):
    mine = market.rent(1, ORDER)
    market.rent(2, dataclasses.replace(ORDER, label="p/s2/endpoint/abc"))
    assert terminator.sweep("p/s/", owner="") == [mine]
    assert market.labels() == ["p/s2/endpoint/abc"]


def test_a_sweep_leaves_alone_what_another_key_rented(market, terminator):
    ours, theirs = owner_of("ours"), owner_of("theirs")
    mine = market.rent(1, dataclasses.replace(ORDER, label=f"p/s/r/{order_digest(ours, 'old')}"))
    market.rent(2, dataclasses.replace(ORDER, label=f"p/s/r/{order_digest(theirs, 'old')}"))
    before = market.rent(3, dataclasses.replace(ORDER, label="p/s/r/0123456789"))
    assert terminator.sweep("p/s/", owner=ours) == [mine, before]
    assert market.labels() == [f"p/s/r/{order_digest(theirs, 'old')}"]


def test_a_sweep_keeps_what_it_is_told_to(market, terminator):
    kept = market.rent(1, ORDER)
    stray = market.rent(2, ORDER)
    assert terminator.sweep("p/s/", owner="", keep=kept) == [stray]
    assert list(market.alive) == [kept]


def test_a_sweep_ends_the_others_though_one_will_not_go(market, terminator):
    stuck = market.rent(1, ORDER)
    market.rent(2, ORDER)
    market.undying = int(DEADLINE / AGAIN)
    with pytest.raises(StillBilled, match=f"instance {stuck}"):
        terminator.sweep("p/s/", owner="")
    assert list(market.alive) == [stuck]


def test_a_contract_whose_rent_call_was_cut_off_is_waited_for(market, terminator, clock):
    known = market.rent(2, dataclasses.replace(ORDER, label="p/s/other/abc"))
    market.boots[1] = Boot(listed_after=20)
    late = market.rent(1, ORDER)
    assert terminator.sweep("p/s/", owner="", awaited={ORDER.label: 50.0}) == [known, late]
    assert market.alive == {}
    assert 20 <= clock.passed < 30


def test_a_rent_call_that_came_to_nothing_is_not_waited_for_longer_than_it_can_take(
    terminator, clock
):
    assert terminator.sweep("p/s/", owner="", awaited={ORDER.label: 50.0}) == []
    assert clock.passed == pytest.approx(50, abs=3)
