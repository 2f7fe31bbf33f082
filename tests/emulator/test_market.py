from __future__ import annotations

from collections import Counter

import pytest

from emulator.market import (
    DAY,
    HOUR,
    Machine,
    draw_market,
    free_gpus,
    offer_row,
    offers_of,
    storage_per_hour,
)

BIRTH = 1_800_000_000.0


def h200() -> Machine:
    machines = draw_market(0)
    return next(
        one
        for one in machines
        if one.gpu.name == "H200"
        and one.num_gpus == 8
        and free_gpus(one, now=BIRTH, birth=BIRTH, held=0) == 8
    )


def test_a_seed_is_a_market() -> None:
    assert draw_market(7) == draw_market(7)
    assert draw_market(7) != draw_market(8)


@pytest.mark.parametrize("hours", [0.0, 30.0, 300.0])
def test_a_seed_has_the_same_supply_on_any_day(hours: float) -> None:
    def listed(birth: float) -> list[tuple[int, bool]]:
        now = birth + hours * HOUR
        return [
            (offer.id, offer.rentable)
            for machine in draw_market(0)
            for offer in offers_of(machine, now=now, birth=birth, held=0)
        ]

    assert listed(BIRTH) == listed(BIRTH + 5.3 * DAY)


def test_machine_ids_are_unique() -> None:
    machines = draw_market(0)
    assert len({one.id for one in machines}) == len(machines)


@pytest.mark.parametrize("seed", [0, 1, 86])
def test_some_hosts_have_several_machines(seed: int) -> None:
    machines = [one for one in draw_market(seed) if one.gpu.name == "H200"]
    hosts = Counter(one.host_id for one in machines)
    assert sorted(hosts.values())[-3:] == [2, 2, 2]
    assert len(hosts) == len(machines) - 3


def test_what_is_rented_is_listed_no_more() -> None:
    machine = h200()
    held = [
        [one for one in offers_of(machine, now=BIRTH, birth=BIRTH, held=taken) if one.rentable]
        for taken in (0, 4, 6, 8)
    ]
    assert [[one.num_gpus for one in listed] for listed in held] == [
        [1, 2, 4, 8],
        [1, 2, 4],
        [1, 2],
        [],
    ]
    assert not {one.id for one in held[0]} & {one.id for one in held[1]}


@pytest.mark.parametrize(("name", "size"), [("H200", 2), ("H100 SXM", 4), ("B200", 1)])
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_there_is_choice_of_what_the_recipe_needs(name: str, size: int, seed: int) -> None:
    fitting = [
        offer
        for machine in draw_market(seed)
        for offer in offers_of(machine, now=BIRTH, birth=BIRTH, held=0)
        if machine.gpu.name == name and offer.num_gpus == size and offer.rentable
    ]
    assert fitting
    assert name != "H200" or sum(one.machine.verification == "verified" for one in fitting) >= 3


def test_on_a_calm_market_nobody_else_comes_or_goes() -> None:
    def listed(hours: float, *, calm: bool) -> list[tuple[int, bool]]:
        now = BIRTH + hours * HOUR
        return [
            (offer.id, offer.rentable)
            for machine in draw_market(0)
            for offer in offers_of(machine, now=now, birth=BIRTH, held=0, calm=calm)
        ]

    assert listed(100, calm=True) == listed(0, calm=True) == listed(0, calm=False)
    assert listed(100, calm=False) != listed(0, calm=False)


def test_price_of_storage_is_the_documented_example() -> None:
    assert storage_per_hour(10, 0.149333) == pytest.approx(0.002074, abs=1e-6)


def test_total_is_gpus_and_disk() -> None:
    offer = offers_of(h200(), now=BIRTH, birth=BIRTH, held=0)[1]
    row = offer_row(offer, now=BIRTH, storage_gb=500)
    assert row["num_gpus"] == 2
    assert row["dph_base"] == pytest.approx(2 * offer.machine.gpu_price)
    assert row["dph_total"] == pytest.approx(
        row["dph_base"] + 500 * offer.machine.storage_cost / 720
    )
    assert row["duration"] == pytest.approx(row["end_date"] - BIRTH)
    assert row["disk_space"] == pytest.approx(offer.machine.disk_space / 4)


def test_a_bid_is_cheaper_and_says_so() -> None:
    offer = offers_of(h200(), now=BIRTH, birth=BIRTH, held=0)[0]
    bid = offer_row(offer, now=BIRTH, kind="bid", storage_gb=5)
    demand = offer_row(offer, now=BIRTH, storage_gb=5)
    reserved = offer_row(offer, now=BIRTH, kind="reserved", storage_gb=5)
    assert bid["is_bid"] is True
    assert bid["dph_base"] == bid["min_bid"] < demand["dph_base"]
    assert reserved["discounted_dph_total"] < demand["discounted_dph_total"]


def test_offers_are_fractions_and_change_their_ids_when_partly_rented() -> None:
    machine = h200()
    all_free = offers_of(machine, now=BIRTH, birth=BIRTH, held=0)
    partly = offers_of(machine, now=BIRTH, birth=BIRTH, held=6)
    full = offers_of(machine, now=BIRTH, birth=BIRTH, held=8)
    assert [one.num_gpus for one in all_free] == [1, 2, 4, 8]
    assert [one.num_gpus for one in partly] == [1, 2]
    assert not {one.id for one in all_free} & {one.id for one in partly}
    assert [one.rentable for one in full] == [False]


def test_offers_vanish_in_time_but_not_within_minutes() -> None:
    ids = {
        hours: {
            offer.id
            for machine in draw_market(0)
            for offer in offers_of(machine, now=BIRTH + hours * HOUR, birth=BIRTH, held=0)
        }
        for hours in (0.0, 0.1, 24.0)
    }
    assert len(ids[0.0] & ids[0.1]) > 0.9 * len(ids[0.0])
    assert not ids[0.0] & ids[24.0]


def test_hosts_extend_their_end_date_before_it_comes() -> None:
    machine = h200()
    for days in (0, 100, 1000):
        now = BIRTH + days * DAY
        assert offers_of(machine, now=now, birth=BIRTH, held=0)[0].end_date - now > 2 * DAY
