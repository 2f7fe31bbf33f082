"""The figures of a load test: plans and prices, reports, the knee, noise, what is kept."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.bounded_http import Answer
from tests.helpers.load_scene import (
    PLAN,
    SHAPE,
    TARGET,
    conditions,
    load_test,
    point,
    recorded,
    report,
    served,
    times,
)
from toolchain.day_two.load.curve import Span, knee, noise
from toolchain.day_two.load.kept import LoadTest, alike, differences, folder_of, keep, kept
from toolchain.day_two.load.plan import (
    BadLoad,
    Cost,
    OverBudget,
    Plan,
    budget_of,
    describe,
    plan_of,
    shape_of,
    within,
)
from toolchain.day_two.load.procedure import words_of
from toolchain.day_two.load.prompts import MOST_PROMPTS, SAMPLE, prompts
from toolchain.day_two.load.repeat import compared, earlier
from toolchain.day_two.load.report import NoReport, point_of
from toolchain.day_two.load.runner import scenario
from toolchain.day_two.load.served import EndpointSilent, Served
from toolchain.day_two.load.without_torch import ENDS_IN, DataLoader, seconds_left, stand_in

LOADS = st.lists(st.integers(1, 512), min_size=3, max_size=8, unique=True).map(sorted)
POSITIVE = st.floats(0.01, 1e4)


@st.composite
def curves(draw):
    loads = draw(LOADS)
    return [point(load, draw(POSITIVE), draw(POSITIVE)) for load in loads]


# --- plan and price


@pytest.mark.parametrize(
    ("clients", "rates", "values"),
    [("", "", (1, 4, 16, 64)), ("4,1,4", "", (1, 4)), ("", "0.5,2", (0.5, 2))],
)
def test_loads_are_ascending_and_each_once(clients, rates, values):
    plan = plan_of(SHAPE, clients, rates, 5, None)
    assert plan.values == values
    assert plan.axis == ("requests/s" if rates else "clients")


@pytest.mark.parametrize(
    ("clients", "rates", "seconds", "length", "said"),
    [
        ("1", "1", 5, None, "name one of them"),
        ("0", "", 5, None, "no loads"),
        ("1.5", "", 5, None, "no clients"),
        ("1,,2", "", 5, None, "no loads"),
        ("", "1e3", 5, None, "no loads"),
        ("9999", "", 5, None, "no loads"),
        (",".join(map(str, range(1, 23))), "", 5, None, "no loads"),
        ("1", "", 0, None, "no time"),
        ("1", "", math.nan, None, "no time"),
        ("1", "", 5, 79, "does not fit into the 79"),
    ],
)
def test_what_is_no_load_is_one_sentence(clients, rates, seconds, length, said):
    with pytest.raises(BadLoad, match=said) as refused:
        plan_of(SHAPE, clients, rates, seconds, length)
    assert "nothing was asked" in str(refused.value)


@given(st.text(), st.text(), st.floats())
def test_any_command_line_is_a_plan_or_a_refusal(clients, rates, seconds):
    try:
        plan = plan_of(SHAPE, clients, rates, seconds, 100)
    except BadLoad:
        return
    assert all(0 < value < math.inf for value in plan.values)
    assert 0 < plan.most_seconds < math.inf


@pytest.mark.parametrize("shape", [(0, 1, 0, ""), (1, 0, 0, ""), (8, 1, 8, ""), (8, 1, -1, "")])
def test_a_request_without_a_token_of_its_own_is_refused(shape):
    with pytest.raises(BadLoad):
        shape_of(*shape)


@given(st.text())
def test_a_picture_is_a_size_or_refused(picture):
    with contextlib.suppress(BadLoad):
        assert shape_of(8, 1, 0, picture).picture == picture


@given(st.text() | st.sampled_from(["nan", "inf", "-1", "1e9", "300/day", "2.50"]))
def test_a_budget_is_a_sum_or_refused(text):
    with contextlib.suppress(BadLoad):
        assert 0 <= budget_of(text) < 1e6


@given(st.floats(0, 1000), st.floats(1, 1e5), st.floats(0, 1000))
def test_nothing_above_the_budget_goes_on(rate, seconds, budget):
    cost = Cost(dollars_per_hour=rate, most_seconds=seconds, budget=budget)
    if cost.most_dollars <= budget:
        assert within(cost) is cost
        return
    with pytest.raises(OverBudget) as refused:
        within(cost)
    needed = str(refused.value).partition("allow BUDGET=")[2].partition(",")[0]
    assert within(cost.model_copy(update={"budget": float(needed)}))


def test_the_price_is_said_before():
    cost = Cost(dollars_per_hour=6.0, most_seconds=PLAN.most_seconds, budget=2)
    said = describe(PLAN, cost, "dev")
    assert "1, 2 and 4 clients, 64 tokens in, 16 out, 5 s each" in said
    assert "3 min 15 s" in said
    assert "$0.33 at $6.00/h" in said


# --- prompts and the scenario


@given(st.integers(1, 3000), st.integers(0, 2000), st.floats(0.2, 8))
def test_a_prompt_has_its_words_and_the_shared_part_is_shared(own, shared, per_word):
    shape = shape_of(own + shared, 4, shared, "")
    lines = [
        json.loads(line) for _, line in zip(range(3), prompts(shape, per_word, 7), strict=False)
    ]
    assert all(line["prompt_tokens_count"] == own + shared for line in lines)
    assert all(len(line["prompt"].split()) == max(1, round(own / per_word)) for line in lines)
    assert len({line.get("prefix") for line in lines}) == 1
    assert bool(lines[0].get("prefix")) == bool(shared)


def test_each_load_has_other_prompts_and_no_more_than_it_may():
    assert sum(1 for _ in prompts(SHAPE, 1.3, 1)) == MOST_PROMPTS
    assert next(prompts(SHAPE, 1.3, 1)) != next(prompts(SHAPE, 1.3, 2))


@given(st.integers(1, 400), st.integers(0, 200), st.floats(0.5, 12), st.integers(1, 50_000))
def test_prompts_stay_within_their_bytes_whatever_the_tokenizer_is(own, shared, per_word, most):
    lines = list(prompts(shape_of(own + shared, 4, shared, ""), per_word, 1, most))
    assert sum(map(len, lines)) <= most
    assert len(lines) <= MOST_PROMPTS


def tokenizer(count: int) -> Served:
    return served(lambda *_: Answer(200, json.dumps({"count": count}).encode()))


@given(st.integers(1, 2 * SAMPLE) | st.integers(1, 2_000_000))
def test_a_number_of_tokens_is_one_that_a_tokenizer_can_make_or_refused(count):
    per_word, said = 0.0, ""
    try:
        per_word = words_of(tokenizer(count), 7)
    except EndpointSilent as refused:
        said = str(refused)
    # The words of the sample have 2 to 9 letters.
    assert (0.5 <= per_word <= 20) != ("tokens" in said)
    assert not said or not SAMPLE / 2 <= count <= 4 * SAMPLE


@pytest.mark.parametrize("count", [1, SAMPLE // 2 - 1, 1_000_000])
def test_a_host_that_lies_about_its_tokens_gets_no_load(count):
    with pytest.raises(EndpointSilent, match=f"1500 English words are {count} tokens, which no"):
        words_of(tokenizer(count), 7)


def test_words_are_counted_by_the_model_that_is_served():
    assert words_of(served(), 3) == 2.0


def test_the_scenario_trusts_nobody_it_should_not_and_has_no_key(tmp_path):
    picture = Plan(shape=shape_of(64, 16, 8, "64x32"), axis="requests/s", values=(2,), seconds=10)
    for plan, kind in ((PLAN, "concurrent"), (picture, "poisson")):
        made = scenario(plan, 2, TARGET, tmp_path, 5)
        backend = made["spec"]["backend"]
        assert backend["verify"] is True
        assert backend["follow_redirects"] is False
        assert made["spec"]["profile"]["kind"] == kind
        assert made["spec"]["metrics"]["sample_size"] == 0
        assert TARGET.key not in json.dumps(made)
        assert TARGET.key not in repr(TARGET)
    assert [one["kind"] for one in made["spec"]["data"]] == ["json_file", "synthetic_image"]


@given(
    st.binary() | st.sampled_from([b'{"count": -1}', b'{"count": 1e400}', b'{"count": true}']),
    st.integers(100, 599),
)
def test_whatever_an_endpoint_says_of_itself_is_a_fact_or_a_sentence(body, status):
    endpoint = served(lambda *_: Answer(status, body))
    for ask in (endpoint.version, lambda: endpoint.tokens_in("a")):
        with contextlib.suppress(EndpointSilent):
            assert ask()


@given(st.text(max_size=60), st.sampled_from(TARGET.hidden))
def test_a_version_is_none_of_the_stack_s_secrets(before, secret):
    body = json.dumps({"version": before + secret}).encode()
    endpoint = Served(lambda *_: Answer(200, body), "m", TARGET.hidden)
    assert secret[:10] not in endpoint.version()


def test_an_endpoint_that_does_not_answer_is_a_sentence():
    def refuse(*_):
        raise ConnectionError("secret")

    with pytest.raises(EndpointSilent, match="ConnectionError"):
        Served(refuse, "m").version()


def test_what_stands_in_for_torch_gives_items_in_their_order():
    names = stand_in()
    loader = names["torch.utils.data.dataloader"].DataLoader
    assert loader is DataLoader
    items: Any = [1, 2]
    assert list(loader(items, collate_fn=lambda batch: batch[0], num_workers=1)) == [1, 2]
    assert names["torch"].utils.data.get_worker_info() is None
    assert not isinstance(loader, names["torch"].Tensor)


def test_workers_end_with_the_process_that_started_them():
    environment = {ENDS_IN: "35"}
    assert seconds_left(environment, 100.0) == 35.0
    # A worker inherits the environment, and begins later.
    assert seconds_left(environment, 110.0) == 25.0
    assert 0 < seconds_left(environment, 500.0) < 1
    assert seconds_left({}, 100.0) == 0


# --- the report


def test_a_recorded_report_is_read():
    found, version = point_of(recorded(), 2)
    assert version == "0.8.1"
    assert (found.answered, found.failed, found.answer_tokens) == (19, 0, 16.0)
    assert found.tokens_per_second == pytest.approx(820.6, abs=0.1)
    assert found.first_token.p50 == pytest.approx(11.44, abs=0.01)
    assert found.request.p50 == pytest.approx(17.27, abs=0.01)
    assert found.tokens_noise > 0


def test_a_load_that_ended_with_its_last_prompt_is_told_from_one_that_ended_in_time():
    content = json.loads(recorded())
    ended = content["benchmarks"][0]["scheduler_state"]
    assert not point_of(json.dumps(content).encode(), 2)[0].ran_out
    ended["end_processing_constraints"]["requests_exhausted"] = {}
    assert not point_of(json.dumps(content).encode(), 2)[0].ran_out
    del ended["end_processing_constraints"]["max_duration"]
    assert point_of(json.dumps(content).encode(), 2)[0].ran_out


def test_a_load_without_an_answer_says_what_its_requests_met():
    content = json.loads(recorded())
    found = content["benchmarks"][0]
    error = found["requests"]["successful"][:2]
    for one in error:
        one["info"]["error"] = "HTTPStatusError(401)\x1b[2J"
    found["requests"]["errored"] = error
    found["metrics"]["request_totals"]["successful"] = 0
    with pytest.raises(NoReport, match=r"2 failed, the first with HTTPStatusError\(401\)$"):
        point_of(json.dumps(content).encode(), 2)
    found["requests"]["errored"] = []
    with pytest.raises(NoReport, match="raise EACH"):
        point_of(json.dumps(content).encode(), 2)


@given(st.text(max_size=250), st.sampled_from(TARGET.hidden), st.text(max_size=250))
def test_a_host_that_sends_a_secret_back_does_not_get_it_printed(before, secret, after):
    content = json.loads(recorded())
    found = content["benchmarks"][0]
    error = found["requests"]["successful"][:1]
    error[0]["info"]["error"] = f"HTTPStatusError({before}{secret[:3]}\x1b[2J{secret[3:]}{after})"
    found["requests"]["errored"] = error
    found["metrics"]["request_totals"]["successful"] = 0
    with pytest.raises(NoReport) as refused:
        point_of(json.dumps(content).encode(), 2, TARGET.hidden)
    assert secret[:10] not in str(refused.value)


def _leaves(value, way=()):
    if isinstance(value, dict):
        for name, one in value.items():
            yield from _leaves(one, (*way, name))
    elif isinstance(value, list):
        for number, one in enumerate(value[:2]):
            yield from _leaves(one, (*way, number))
    yield way


_CONTENT = json.loads(recorded())
_WAYS = [way for way in _leaves(_CONTENT) if way and way[0] != "config"]
_JUNK = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda one: st.lists(one, max_size=2) | st.dictionaries(st.text(max_size=3), one, max_size=2),
    max_leaves=3,
)


@given(st.sampled_from(_WAYS), _JUNK)
def test_a_malformed_report_is_a_point_or_a_sentence(way, junk):
    content = json.loads(recorded())
    place = content
    for step in way[:-1]:
        place = place[step]
    place[way[-1]] = junk
    said = ""
    try:
        found, _ = point_of(json.dumps(content).encode(), 2)
    except NoReport as refused:
        said = str(refused)
    else:
        assert found.tokens_per_second > 0
        assert LoadTest.model_validate_json(load_test(found).model_dump_json()).points == (found,)
    assert not said or said.isprintable()


@given(st.binary())
def test_any_bytes_are_no_report(content):
    with pytest.raises(NoReport):
        point_of(content, 1)


# --- the knee


@given(curves(), st.floats(0.01, 100), st.floats(0.01, 100))
def test_the_knee_does_not_depend_on_units_or_order(points, faster, slower):
    found = knee(points)
    scaled = [
        point(one.load, one.tokens_per_second * faster, one.request.p50 * slower) for one in points
    ]
    powers = sorted((one.tokens_per_second / one.request.p50 for one in points), reverse=True)
    if powers[1] > powers[0] * (1 - 1e-9):
        return
    again = knee(scaled[::-1])
    assert (found and found.load) == (again and again.load)


@given(curves())
def test_no_load_has_more_power_than_the_knee(points):
    found = knee(points)
    powers = [one.tokens_per_second / one.request.p50 for one in points]
    if found is None:
        assert powers[-1] == max(powers)
    else:
        assert found.tokens_per_second / found.request.p50 == max(powers)


@given(st.integers(2, 64), st.floats(0.1, 10))
def test_the_knee_of_an_ideal_server_is_where_its_queue_begins(slots, seconds):
    """It answers `slots` requests at once without slowing down; more than those wait."""
    loads = sorted({1, 2, slots, 2 * slots, 8 * slots})
    points = [
        point(load, min(load, slots) / seconds * 16, max(1, load / slots) * seconds * 1000)
        for load in loads
    ]
    found = knee(points)
    assert found is not None
    assert found.load == slots


def test_two_points_have_no_knee():
    assert knee([point(1, 100, 100), point(2, 10, 100)]) is None


# --- noise


def test_an_even_stream_has_no_noise_and_one_that_stops_has():
    even = [Span(first=0, last=100, tokens=1000)]
    assert noise(even, 0, 100) == pytest.approx(0, abs=1e-9)
    assert noise([Span(first=0, last=50, tokens=1000)], 0, 100) > 5


@given(
    st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100), st.integers(0, 1000)), max_size=20),
    st.floats(-50, 150),
)
def test_noise_is_a_finite_number(spans, end):
    made = [Span(first=a, last=a + b, tokens=n) for a, b, n in spans]
    assert 0 <= noise(made, 0, end) < math.inf


# --- what is kept


def test_a_test_is_kept_for_this_user_alone_and_read_again(tmp_path):
    folder = folder_of("dev", "Vast.ai", tmp_path)
    test = load_test(point(1), point(2))
    path = keep(test, folder)
    assert path.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    (folder / "2026-11-01.json").write_text("{")
    assert kept(folder) == [test]
    assert folder_of("dev", "the emulator", tmp_path) != folder


def test_the_oldest_tests_go(tmp_path):
    for minute in range(53):
        path = keep(load_test(at=f"2026-11-28T12:{minute:02d}:00+00:00"), tmp_path)
        path.with_suffix(".svg").write_text("")
    assert len(kept(tmp_path)) == 50
    assert len(list(tmp_path.iterdir())) == 100


def test_conditions_that_differ_are_named():
    mine = conditions()
    assert alike(mine, conditions(release="r2", digest="", vllm="0.34", dollars_per_hour=9.0))
    other = conditions(replicas=2, gpus=("2x H200",) * 2, router=True)
    assert differences(mine, other) == ["replicas", "GPUs", "router"]


def test_the_test_before_is_of_the_same_thing():
    first = load_test(at="2026-11-28T11:00:00+00:00")
    other = load_test(at="2026-11-28T11:30:00+00:00", digest="sha256:b")
    now = load_test()
    assert earlier(now, [first, other, now]) == first
    assert earlier(first, [first, other, now]) is None


def test_two_runs_are_apart_within_their_noise_or_beyond_it():
    before = load_test(point(1, 100), point(2, 200), point(4, 300))
    later = load_test(
        point(1, 102), point(2, 230), point(4, 300, first_token=times(300)), point(8, 400)
    )
    apart = compared(later, before)
    assert [one.is_within_noise for one in apart] == [True, False, False]
    assert apart[1].tokens_per_second == pytest.approx(0.15)


def test_dollars_per_million_fall_as_tokens_rise():
    assert point(1, 1000).dollars_per_million(3.6) == pytest.approx(1.0)


def test_a_report_with_other_means_is_another_point():
    found, _ = point_of(report(output_tokens_per_second=5000.0), 2)
    assert found.tokens_per_second == 5000.0
