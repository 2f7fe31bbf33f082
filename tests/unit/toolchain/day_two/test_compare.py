"""Every profile of a model against one market: prices, measured rates, order, words."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from components.settings import parse
from components.vast.errors import NoOffer, RateLimited
from components.vast.market.ranking import landed
from tests.helpers.offers import offer
from toolchain.day_two.command import Asked
from toolchain.day_two.compare import HEADINGS, compared, notes, ordered, settings_of, show
from toolchain.on_emulator import ROOT
from toolchain.project import Project

PROJECT = Project(ROOT)
HERE = Asked("dev", on_account=True, as_json=False)
PRICES = {("H200", 2): 6.4, ("H200", 1): 3.1, ("H100 SXM", 2): 4.2}


def market(search):
    gpu, number = search.query.replace("_", " ").removeprefix("gpu name=").split(" num gpus=")
    price = PRICES.get((gpu, int(number)))
    if price is None:
        raise NoOffer("no offer on the market matches")
    return landed(offer(gpu_name=gpu, num_gpus=int(number), dph_total=price), search.need)


def comparison(by="price", **settings):
    return compared(parse(settings), PROJECT, market, HERE, by)


def by_name(answer):
    return {way.profile.removeprefix("mistral-small-4-"): way for way in answer.ways}


def test_each_profile_of_the_model_is_a_row_and_the_cheapest_comes_first():
    answer = comparison()
    landed_prices = [way.offer.landed_dollars_per_hour for way in answer.ways if way.offer]
    assert landed_prices == sorted(landed_prices)
    assert answer.ways[0].gpus == "1x H200"
    assert answer.ways[-1].profile == "mistral-small-4-fp8-4xh100"
    assert [way.profile for way in answer.ways if way.is_current] == ["mistral-small-4-fp8-2xh200"]
    assert answer.exit_status == 0


def test_a_price_for_a_million_tokens_is_the_landed_price_at_the_measured_rate():
    way = by_name(comparison())["fp8-2xh200"]
    assert way.measured.tokens_per_second == 6372
    assert way.measured.vllm == "0.26.0"
    dollars = way.offer.landed_dollars_per_hour
    assert way.dollars_per_million_tokens == pytest.approx(dollars / 22.9392)


def test_nothing_is_said_of_a_rate_that_nobody_has_measured():
    answer = comparison()
    way = by_name(answer)["nvfp4-1xh200"]
    assert way.measured is way.dollars_per_million_tokens is None
    (row,) = [row for row in _lines(answer) if row.startswith("nvfp4-1xh200")]
    assert row.split()[-3:-1] == ["-", "-"]


@pytest.mark.parametrize(
    ("by", "value"),
    [
        ("tokens", lambda way: way.dollars_per_million_tokens),
        ("boot", lambda way: way.offer and way.offer.download_minutes),
    ],
)
def test_what_is_asked_for_comes_first_and_what_is_unknown_last(by, value):
    values = [value(way) for way in comparison(by).ways]
    known = [one for one in values if one is not None]
    assert values == sorted(known) + [None] * (len(values) - len(known))
    assert None in values


def test_a_price_above_the_stacks_limit_is_shown_and_marked():
    answer = comparison(maxDollarsPerHour="4.00")
    marked = {way.gpus: way.offer.is_above_cap for way in answer.ways if way.offer}
    assert marked == {"1x H200": False, "2x H200": True, "2x H100 SXM": True}
    assert "6.40!" in "\n".join(_lines(answer))
    assert any("above the stack's own limit" in note for note in answer.notes)


def test_why_there_is_no_offer_is_said_by_name():
    way = by_name(comparison())["fp8-4xh100"]
    assert way.offer is None
    assert way.why_no_offer == "no offer on the market matches"


def test_a_market_without_any_way_is_not_well(monkeypatch):
    monkeypatch.setattr("tests.unit.toolchain.day_two.test_compare.PRICES", {})
    answer = comparison()
    assert answer.exit_status == 1
    assert "no way to serve the model" in answer.problems[0].text


def test_a_market_that_does_not_answer_is_no_market_without_offers():
    def limited(_search):
        raise RateLimited("Vast.ai limits the calls of this key")

    with pytest.raises(RateLimited):
        compared(parse({}), PROJECT, limited, HERE)


def test_a_context_that_a_model_does_not_have_is_a_reason_and_no_end():
    answer = comparison(model="qwen2.5-0.5b-1x4090", maxModelLen=16384)
    assert [way.max_model_len for way in answer.ways] == [16384]
    assert answer.ways[0].why_no_offer == "no offer on the market matches"


def test_every_committed_stack_can_be_compared():
    for stack in ("dev", "staging", "prod", "local"):
        settings = settings_of(PROJECT, stack)
        found = compared(settings, PROJECT, market, HERE)
        assert sum(way.is_current for way in found.ways) == 1


def test_the_table_fits_into_eighty_columns():
    lines = _lines(comparison(maxDollarsPerHour="1.00"))
    assert max(map(len, lines)) <= 80
    assert all(heading in "\n".join(lines) for heading in HEADINGS)
    # No cell was broken or cut to fit.
    assert not any("…" in line for line in lines)
    assert any(line.startswith("fp8-2xh200-throughput 2x H200") for line in lines)


def test_a_program_reads_the_same():
    read = json.loads(comparison().model_dump_json())
    assert read["format"] == "vast-vllm/compare/1"
    assert read["verdict"] == "well"
    assert len(read["ways"]) == 9


def test_the_order_of_equals_is_their_names():
    ways = comparison().ways
    assert ordered(reversed(ways), "price") == ways
    assert notes(ways, parse({}))[0].startswith("* is what the stack runs")


def _lines(answer):
    paper = Console(width=80, color_system=None)
    with paper.capture() as captured:
        for part in show(answer):
            paper.print(part)
    return captured.get().splitlines()
