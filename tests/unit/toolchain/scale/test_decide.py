"""When the number of replicas changes: a table of cases; `test_loop_properties` has the rest."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from toolchain.scale.decide import Decision, decide
from toolchain.scale.money import bound_today
from toolchain.scale.situation import (
    DAY,
    HOUR,
    Bill,
    Extra,
    Limits,
    Reading,
    Rules,
    ScalingRefused,
    Situation,
)

NOON = 1_800_057_600.0 + DAY / 2
RULES = Rules()


def steady(
    minutes: int, *, waiting: float = 0.0, running: float = 0.0, serving: int = 2, every: int = 5
) -> tuple[Reading, ...]:
    """The same load until now, in readings some minutes apart."""
    moments = range(-minutes, 1, every)
    return tuple(
        Reading(at=NOON + 60.0 * at, waiting=waiting, running=running, serving=serving)
        for at in moments
    )


def extra(index: int, hours: float = 2.5, price: float = 6.0, *, is_there: bool = True) -> Extra:
    return Extra(index, NOON + hours * HOUR, price, is_there)


def situation(
    readings: tuple[Reading, ...] = (),
    *extras: Extra,
    floor: int = 1,
    ceiling: int = 4,
    budget: float = 1000.0,
    spent: float = 72.0,
    finding: float = 10.0,
    total: float = 0.0,
    **others: Any,
) -> Situation:
    known = Situation(
        now=NOON,
        limits=Limits(floor, ceiling, budget, total),
        bill=Bill(spent, 6.0 * floor, 8.0, finding),
        extras=extras,
        readings=readings,
    )
    return dataclasses.replace(known, **others)


def decided(*arguments, **others) -> Decision:
    return decide(situation(*arguments, **others), RULES)


def test_requests_that_have_waited_for_ten_minutes_rent_one_more():
    decision = decided(steady(10, waiting=5, running=64, serving=1))
    assert (decision.rents, decision.extras) == (1, (1,))
    assert decision.why == "more than 4 requests have waited for 10 minutes (5 now)"


@pytest.mark.parametrize(
    "readings",
    [
        (),
        steady(9, waiting=50, every=3),
        steady(10, waiting=4),
        # A gap shows nothing.
        steady(60, waiting=50, every=30),
        (*steady(10, waiting=50)[:-1], *steady(0, waiting=0)),
        # Nothing that is old enough.
        steady(0, waiting=50),
    ],
)
def test_less_than_that_rents_nothing(readings):
    assert not decided(readings).acts


def test_what_a_replica_answers_beyond_its_sessions_counts_as_waiting():
    assert decided(steady(10, running=69, serving=1)).rents == 1
    assert not decided(steady(10, running=69, serving=2), extra(1)).acts


def test_readings_of_another_number_of_replicas_count_for_nothing():
    busy = steady(60, waiting=50)
    assert decided(busy, changed_at=NOON - 600).rents == 1
    assert not decided(busy, changed_at=NOON - 599).acts
    calm = steady(60)
    assert decided(calm, extra(1), changed_at=NOON - 3600).ends == 1
    assert not decided(calm, extra(1), changed_at=NOON - 3599).acts


def test_one_goes_when_the_others_could_have_carried_the_load_for_an_hour():
    decision = decided(steady(60, running=44, serving=2), extra(1))
    assert (decision.ends, decision.extras) == (1, ())
    assert decision.why == (
        "1 could have carried the load for 60 minutes "
        "(at most 44 requests at once, and 1 answer 64)"
    )
    assert not decided(steady(60, running=45, serving=2), extra(1)).acts
    assert not decided(steady(59, running=1, serving=2, every=1), extra(1)).acts


def test_the_floor_stays():
    assert not decided(steady(60), floor=2).acts


def test_the_ceiling_stays_and_the_sentence_says_so():
    extras = [extra(1), extra(2), extra(3)]
    decision = decided(steady(10, waiting=99, serving=4), *extras)
    assert not decision.acts
    assert decision.why.endswith("but 4 is the ceiling (replicasMax)")


def test_another_takes_the_lowest_index_that_is_free():
    assert decided(steady(10, waiting=99), extra(2)).rents == 1
    assert decided(steady(10, waiting=99, serving=3), extra(1), extra(2), ceiling=5).rents == 3


def test_replicas_that_do_not_serve_are_brought_up_before_another_is_rented():
    decision = decided(steady(10, waiting=99, serving=1), extra(1))
    assert (decision.repairs, decision.rents, decision.extras) == (True, 0, (1,))
    assert decision.why.endswith("and only 1 of 2 replicas serve: the others are brought up")
    paused = decided(steady(10, waiting=99, serving=1), extra(1), failures=1, failed_at=NOON - 9)
    assert not paused.acts
    # One that has served meanwhile is only late.
    seen = (*steady(10, waiting=99, serving=1)[:-1], *steady(0, waiting=99, serving=2))
    assert decided(seen, extra(1)).rents == 2


def test_a_step_must_fit_into_what_the_day_has_left():
    """Half a day of the floor is 72 + 72; one more is 4 h of its cap, and what finding it costs."""
    busy = steady(10, waiting=99)
    needed = 72 + 72 + 4 * 8 + 10
    assert decided(busy, budget=needed).rents == 1
    decision = decided(busy, budget=needed - 0.01)
    assert not decision.acts
    assert decision.why.endswith(
        f"but one more does not fit into the budget of ${needed - 0.01:g} a day"
    )


def test_leases_that_are_due_are_part_of_what_a_step_costs():
    busy = steady(10, waiting=99)
    needed = 72 + 72 + 4 * 8 + 10 + 4 * 6
    assert decided(busy, extra(1, hours=1), budget=needed).rents == 2
    assert decided(busy, extra(1, hours=1), budget=needed).extends == (1,)
    assert not decided(busy, extra(1, hours=1), budget=needed - 0.01).rents


def test_a_floor_that_costs_more_than_the_budget_leaves_nothing_for_more():
    assert not decided(steady(10, waiting=99), budget=143.0).acts
    assert decided(steady(10, waiting=99), extra(1), budget=143.0).ends == 1


def test_tomorrow_has_a_budget_too():
    late = dataclasses.replace(
        situation(steady(10, waiting=99), budget=200.0, spent=100.0), now=NOON + 11.9 * HOUR
    )
    late = dataclasses.replace(
        late,
        readings=tuple(
            one.model_copy(update={"at": one.at + 11.9 * HOUR}) for one in late.readings
        ),
    )
    assert decide(late, RULES).rents == 1
    dear = dataclasses.replace(late.bill, others_per_hour=8.0)
    assert not decide(dataclasses.replace(late, bill=dear), RULES).rents


def test_the_total_of_an_hour_is_a_limit_as_well():
    busy = steady(10, waiting=99)
    assert decided(busy, total=14.0).rents == 1
    decision = decided(busy, total=13.99)
    assert not decision.acts
    assert "maxDollarsPerHourTotal is 13.99" in decision.why


def test_a_lease_with_less_than_two_hours_left_is_extended_while_the_budget_allows_it():
    assert decided(steady(5, running=99), extra(1, 1.99), extra(2, 2.01)).extends == (1,)
    # 4 h and 3.01 h of two leases, at $6.
    needed = 72 + 72 + 4 * 6 + 3.01 * 6
    decision = decided(steady(5, running=99), extra(1, 1.99), extra(2, 2.01), budget=needed - 0.01)
    assert not decision.acts


def test_a_lease_that_cannot_be_extended_ends_in_good_order():
    decision = decided(steady(5, running=99), extra(1, 0.5), budget=150.0)
    assert decision.ends == 1
    assert decision.why == (
        "its lease ends within 30 minutes, and another one does not fit into the budget of "
        "$150 a day"
    ) or decision.why.startswith("what runs costs more")


def test_one_that_ended_itself_is_rented_again_where_the_others_cannot_carry_the_load():
    gone = extra(1, hours=-1, is_there=False)
    decision = decided(steady(5, running=60, serving=1), gone)
    assert (decision.rents, decision.extras) == (1, (1,))
    assert decision.why == "replica 1 has no machine any more, and the others cannot carry the load"
    decision = decided(steady(5, running=44, serving=1), gone)
    assert (decision.rents, decision.ends, decision.extras) == (0, 1, ())


def test_one_of_several_is_rented_again_and_the_others_wait_for_their_turn():
    gone = [extra(index, hours=1, is_there=False) for index in (1, 2)]
    decision = decided(steady(5, running=200, serving=2), *gone, extra(3))
    assert (decision.rents, decision.extras) == (1, (1, 3))


def test_a_failed_step_is_tried_again_later_and_later():
    busy = steady(60, waiting=99)
    for failures, minutes in ((1, 30), (2, 60), (3, 120), (4, 240), (9, 240)):
        waits = decided(busy, failures=failures, failed_at=NOON - 60 * minutes + 1)
        assert not waits.acts
        assert waits.why.endswith("but the last step failed, and the next try is in 0 minutes")
        assert decided(busy, failures=failures, failed_at=NOON - 60 * minutes).rents == 1
    # It keeps nothing from ending.
    calm = steady(60)
    assert decided(calm, extra(1), failures=9, failed_at=NOON).ends == 1


def test_a_lease_is_counted_until_its_end_and_an_hour_longer_but_not_beyond_midnight():
    near = situation((), extra(1, hours=1), extra(2, hours=99))
    assert bound_today(near, near.extras, RULES) == 72 + 72 + 6 * 2 + 6 * 12


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(1, 0, 100.0), "replicasMax is 0"),
        (Limits(2, 2, 100.0), "nothing to decide"),
        (Limits(1, 2, 0.0), "no budget"),
        (Limits(1, 2, float("nan")), "no budget"),
        (Limits(1, 2, float("inf")), "no budget"),
    ],
)
def test_the_loop_does_not_run_without_ceiling_and_budget(limits, words):
    with pytest.raises(ScalingRefused, match=words):
        limits.check()
    Limits(1, 2, 0.01).check()
