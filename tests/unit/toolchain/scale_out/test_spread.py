"""What a benchmark on a busy computer may say of an aim."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.scale_out import aims
from toolchain.scale_out.aims import Aim
from toolchain.scale_out.spread import LEAST_ROUNDS, Spread, differences, ratios, spread
from toolchain.scale_out.throughput import Series, Throughput

POSITIVE = st.floats(0.01, 100.0)
ROUNDS = st.lists(st.tuples(POSITIVE, POSITIVE), min_size=LEAST_ROUNDS, max_size=40)


@given(ROUNDS, st.data())
def test_a_busy_moment_that_meets_a_whole_round_changes_no_ratio(rounds, data):
    first, second = zip(*rounds, strict=True)
    slowed = data.draw(st.lists(POSITIVE, min_size=len(rounds), max_size=len(rounds)))
    calm = ratios(first, second)
    busy = ratios(
        [one * share for one, share in zip(first, slowed, strict=True)],
        [one * share for one, share in zip(second, slowed, strict=True)],
    )
    for name in ("median", "low", "high"):
        assert getattr(busy, name) == pytest.approx(getattr(calm, name))


@given(st.lists(POSITIVE, min_size=LEAST_ROUNDS, max_size=60))
def test_an_interval_encloses_its_median_and_leaves_as_many_out_on_each_side(values):
    one = spread(values)
    assert min(values) <= one.low <= one.median <= one.high <= max(values)
    assert sum(value < one.low for value in values) <= len(values) // 2
    mirrored = spread([-value for value in values])
    assert (mirrored.low, mirrored.median, mirrored.high) == (-one.high, -one.median, -one.low)


@pytest.mark.parametrize("rounds", [6, 9, 25])
def test_the_interval_has_the_true_median_nineteen_times_of_twenty(rounds):
    chance = random.Random(86)  # noqa: S311  (noise, not secrets)
    seen = [spread([chance.lognormvariate(0.0, 0.5) for _ in range(rounds)]) for _ in range(4000)]
    assert sum(one.low <= 1.0 <= one.high for one in seen) / len(seen) >= 0.945


@pytest.mark.parametrize(("rounds", "places"), [(6, (1, 6)), (9, (2, 8)), (25, (8, 18))])
def test_more_rounds_leave_more_of_the_outer_values_out(rounds, places):
    one = spread([float(number) for number in range(1, rounds + 1)])
    assert (one.low, one.high) == places


def test_too_few_rounds_say_nothing():
    with pytest.raises(ValueError, match="too few"):
        spread([1.0] * (LEAST_ROUNDS - 1))
    with pytest.raises(ValueError, match="zip"):
        differences([1.0] * 9, [1.0] * 8)


@pytest.mark.parametrize(
    ("low", "high", "most", "least"),
    [
        (0.95, 1.05, "met", "met"),
        (0.85, 1.05, "met", "undecided"),
        (0.95, 1.15, "undecided", "met"),
        (0.50, 0.80, "met", "MISSED"),
        (1.20, 1.30, "MISSED", "met"),
        (0.50, 1.50, "undecided", "undecided"),
    ],
)
def test_an_aim_within_the_interval_is_undecided(low, high, most, least):
    one = Spread((low + high) / 2, low, high)
    assert (one.at_most(1.1), one.at_least(0.9)) == (most, least)


def series(name, *turns):
    return Series(name, tuple(Throughput(*turn) for turn in turns))


def test_targets_are_compared_within_a_round_and_cpu_over_all_of_them():
    calm, busy = (10_000.0, 3.0, 10_000, 0.9), (2_000.0, 15.0, 2_000, 0.2)
    turns = [calm, busy] * 5
    bare = series("bare", *turns)
    own = series("own", *[(rate * 0.97, p50 / 0.97, *rest) for rate, p50, *rest in turns])
    rate, p50 = own.rate_against(bare), own.p50_against(bare)
    assert (rate.low, rate.high) == pytest.approx((0.97, 0.97))
    assert (p50.low, p50.high) == pytest.approx((1 / 0.97, 1 / 0.97))
    assert own.cpu == pytest.approx(1.1 / 12_000 * 1e6)
    assert [aim.verdict for aim in aims.is_within("own", rate, p50)] == ["met", "met"]


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [
        (["met", "met"], 0),
        (["met", "undecided"], 2),
        (["undecided", "MISSED"], 1),
    ],
)
def test_an_undecided_aim_is_no_success(verdicts, status):
    assert aims.status([Aim("x", "1", verdict) for verdict in verdicts]) == status


def test_a_count_misses_its_aim_with_the_first_one():
    assert [aims.is_none("x", count).verdict for count in (0, 1)] == ["met", "MISSED"]


def test_the_table_of_the_page_says_aim_figure_and_outcome():
    added = Spread(0.314, 0.306, 0.321)
    text = aims.markdown([aims.adds_little("conversation", added), aims.is_none("moved", 3)])
    assert text.splitlines()[2:] == [
        "| conversation: at most 0.5 ms more at the median | +0.31 ms (+0.31 to +0.32) | met |",
        "| moved | 3 | missed |",
    ]
