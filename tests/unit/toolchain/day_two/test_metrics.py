"""vLLM's metrics read strictly, quantiles as Prometheus has them, and what is kept for later."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.vast.api.locked_file import LockedJsonFile
from emulator.standins.vllm.metrics import Metrics, exposition
from tests.helpers.day_two import MODEL, NOW, metrics
from toolchain.day_two.metrics import Histogram, Quantile, Reading, read_metrics, together
from toolchain.day_two.readings import (
    APART,
    BEST_AGE,
    KEPT,
    LEAST_AGE,
    MOST_AGE,
    MOST_MACHINES,
    Readings,
    window,
)

SERVER = "2026-11-28T16:41:21+00:00"


def reading(at: float = NOW, server: str = SERVER, **changes) -> Reading:
    return read_metrics(metrics(**changes), at, server)


def test_all_that_is_wanted_is_read():
    found = reading(running=3, waiting=2)
    assert (found.running, found.waiting, found.kv_cache) == (3, 2, 0.25)
    assert (found.ended, found.read, found.written) == (10, 500, 1000)
    assert found.first_token == Histogram(bounds=(0.5, 1.0, 2.5), counts=(5, 9, 10, 10))


def test_what_the_stand_in_shows_is_read():
    shown = Metrics(running=1, waiting=2, kv_cache_usage=0.5, prompt_tokens=7, generation_tokens=9)
    shown.first_token.observe(0.3)
    found = read_metrics(exposition(shown, MODEL, {"block_size": "16"}), NOW, SERVER)
    assert (found.running, found.waiting, found.kv_cache) == (1, 2, 0.5)
    assert (found.read, found.written) == (7, 9)
    assert found.first_token is not None
    assert found.first_token.quantile(0.5) == Quantile(seconds=0.375)


def test_engines_are_added_up():
    one = metrics(written=10)
    two = one + metrics(written=32).replace('engine="0"', 'engine="1"')
    found = read_metrics(two, NOW, SERVER)
    assert found.written == 42
    assert found.kv_cache == 0.25
    assert found.first_token is not None
    assert found.first_token.counts == (10, 18, 20, 20)


def test_the_cache_of_an_older_release_has_another_name():
    text = metrics().replace("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
    assert read_metrics(text, NOW, SERVER).kv_cache == 0.25


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "vllm:num_requests_running",
        "vllm:num_requests_running{ 1",
        "vllm:num_requests_running NaN",
        "vllm:num_requests_running -1",
        "vllm:num_requests_running 1e300",
        metrics(running=100_001),
        metrics(waiting=10**15),
        metrics().replace("} 0.25", "} 25.0"),
        metrics().replace("} 0.25", "} NaN"),
        metrics().replace('le="0.5"', 'le="x"'),
        metrics().replace('le="0.5"', 'le="-3"'),
        metrics().replace('le="+Inf"', 'le="9"'),
        metrics().replace('le="0.5"} 5.0', 'le="0.5"} 50.0'),
        metrics().replace("vllm:num_requests_running{", f"vllm:num_requests_running{{{'a' * 3000}"),
        metrics() + 'vllm:request_success_total{a="b"} 1\n' * 20_001,
        metrics()
        + "".join(
            f'vllm:time_to_first_token_seconds_bucket{{le="{n}"}} 1\n' for n in range(3, 200)
        ),
    ],
)
def test_what_no_server_writes_is_refused(text):
    with pytest.raises(ValueError, match=r"\w"):
        read_metrics(text, NOW, SERVER)


@given(st.binary(max_size=400), st.integers(0, 60))
def test_arbitrary_bytes_are_a_reading_or_a_refusal(noise, at):
    lines = metrics().split("\n")
    lines.insert(min(at, len(lines)), "vllm:num_requests_running" + noise.decode(errors="replace"))
    try:
        found = read_metrics("\n".join(lines), NOW, SERVER)
    except ValueError:
        return
    assert found.running >= 0


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.0, Quantile(seconds=0.0)),
        (0.25, Quantile(seconds=0.25)),
        (0.5, Quantile(seconds=0.5)),
        (0.9, Quantile(seconds=1.0)),
        (0.95, Quantile(seconds=1.75)),
        (1.0, Quantile(seconds=2.5)),
    ],
)
def test_a_quantile_is_interpolated_within_its_bucket(share, expected):
    found = Histogram(bounds=(0.5, 1.0, 2.5), counts=(5, 9, 10, 10)).quantile(share)
    assert found is not None
    assert found.seconds == pytest.approx(expected.seconds)
    assert not found.is_more


def test_a_quantile_above_the_last_bound_is_said_to_be_more():
    found = Histogram(bounds=(0.5,), counts=(1, 2)).quantile(0.99)
    assert found == Quantile(seconds=0.5, is_more=True)


def test_of_nothing_there_is_no_quantile():
    assert Histogram(bounds=(0.5,), counts=(0, 0)).quantile(0.5) is None


@given(
    st.lists(st.integers(0, 1000), min_size=1, max_size=30),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_a_higher_share_has_no_lower_quantile(added, one, other):
    counts, total = [], 0
    for count in added:
        total += count
        counts.append(float(total))
    found = Histogram(bounds=tuple(range(1, len(added))), counts=tuple(counts))
    low, high = found.quantile(min(one, other)), found.quantile(max(one, other))
    assert (low is None) == (high is None) == (total == 0)
    if low and high:
        assert low.seconds <= high.seconds


def test_histograms_of_several_machines_are_added_and_other_bounds_are_not():
    one = Histogram(bounds=(0.5,), counts=(1, 2))
    assert together([one, None, one]) == Histogram(bounds=(0.5,), counts=(2, 4))
    assert together([one, Histogram(bounds=(0.7,), counts=(1, 2))]) is None
    assert together([None]) is None


def test_the_last_minutes_are_what_was_added_since_a_kept_reading():
    earlier = reading(NOW - 200, written=400, ended=4)
    found = window(reading(), [earlier], age=5000.0)
    assert found is not None
    assert (found.seconds, found.is_since_start) == (200, False)
    assert (found.requests, found.written) == (6, 600)


def test_of_several_readings_the_one_about_five_minutes_old_counts():
    kept = [reading(NOW - age) for age in (800.0, BEST_AGE + 20, 60.0)]
    found = window(reading(), kept, age=5000.0)
    assert found is not None
    assert found.seconds == BEST_AGE + 20


@pytest.mark.parametrize(
    "earlier",
    [
        None,
        reading(NOW - LEAST_AGE + 1),
        reading(NOW - MOST_AGE - 1),
        reading(NOW - 100, server="another start"),
        reading(NOW - 100, written=2000),
        reading(NOW - 100, ended=11),
    ],
    ids=["none", "too young", "too old", "another server", "more tokens", "more requests"],
)
def test_without_a_reading_to_compare_with_it_is_since_the_start(earlier):
    found = window(reading(), [earlier] if earlier else [], age=500.0)
    assert found is not None
    assert (found.seconds, found.is_since_start, found.written) == (500, True, 1000)
    assert window(reading(), [], age=None) is None


def test_readings_are_kept_for_the_next_look(tmp_path):
    store = Readings(LockedJsonFile(tmp_path / "readings.json"))
    store.keep({1: reading(NOW), 2: reading(NOW)})
    store.keep({1: reading(NOW + APART)})
    store.keep({1: reading(NOW + APART + 1)})
    assert [one.at for one in store.known()[1]] == [NOW, NOW + APART]
    assert len(store.known()[2]) == 1


def test_few_readings_of_few_machines_are_kept(tmp_path):
    store = Readings(LockedJsonFile(tmp_path / "readings.json"))
    for n in range(KEPT + 5):
        store.keep({1: reading(NOW + n * APART)})
    assert len(store.known()[1]) == KEPT
    store.keep({n: reading() for n in range(2, MOST_MACHINES + 10)})
    assert len(store.known()) == MOST_MACHINES


@pytest.mark.parametrize("content", ["no json", '{"1": 5}', '{"1": [{"at": "x"}]}', '{"x": []}'])
def test_a_file_of_somebody_else_is_no_reading(tmp_path, content):
    (tmp_path / "readings.json").write_text(content)
    store = Readings(LockedJsonFile(tmp_path / "readings.json"))
    assert not any(store.known().values())
    store.keep({7: reading()})
    assert len(store.known()[7]) == 1


def test_without_a_folder_nothing_is_kept_and_nothing_fails():
    store = Readings(LockedJsonFile(Path("/dev/null/readings.json")))
    store.keep({1: reading()})
    assert store.known() == {}
