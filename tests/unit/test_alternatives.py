"""Other ways to serve a model: which profiles, what they need, and which one is worth a search."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components import alternatives
from components.plan import MODELS, make_plan
from components.settings import parse
from components.vast.market.ranking import landed
from components.vast.market.requirements import Search
from components.vllm.profile import load_profile, profile_names
from tests.helpers.offers import need, offer

FP8 = "mistralai/Mistral-Small-4-119B-2603"


def asked(name, **settings):
    plan = make_plan(parse({"model": name, **settings}))
    return Search(plan.query, plan.need)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (FP8, f"{FP8}-NVFP4", True),
        (f"{FP8}-NVFP4", FP8, True),
        (FP8, FP8.lower(), True),
        (FP8, f"{FP8}1", False),
        (FP8, "Qwen/Qwen2.5-0.5B-Instruct", False),
        (FP8, FP8.replace("mistralai", "somebody"), False),
    ],
)
def test_a_model_is_the_same_in_another_precision_and_no_other_owners(one, other, same):
    assert alternatives.is_same_model(one, other) is same


def test_every_profile_of_the_model_is_a_way_and_no_other():
    names = [profile.name for profile in alternatives.profiles_of(FP8)]
    assert names == [name for name in profile_names(MODELS) if name.startswith("mistral-small-4")]
    assert alternatives.profiles_of("owner/model") == []


def test_a_file_that_is_no_profile_hides_no_other(tmp_path):
    for name in ("mistral-small-4-fp8-1xh200", "broken"):
        text = (MODELS / "mistral-small-4-fp8-1xh200.yaml").read_text()
        (tmp_path / f"{name}.yaml").write_text(text if name != "broken" else "{")
    found = alternatives.profiles_of(FP8, tmp_path)
    assert [profile.name for profile in found] == ["mistral-small-4-fp8-1xh200"]


@pytest.mark.parametrize("name", profile_names(MODELS))
def test_a_profile_is_searched_for_as_a_stack_of_its_own_would(name):
    """The search of `make compare` must be the search of `up`, or its price is another's."""
    profile = load_profile(name, MODELS)
    of_another = asked("qwen2.5-0.5b-1x4090", maxDollarsPerHour="6.50", datacenterOnly=True)
    found = alternatives.search_for(profile, of_another.need)
    assert found == asked(name, maxDollarsPerHour="6.50", datacenterOnly=True)


@pytest.mark.parametrize(
    ("name", "worth"),
    [
        # The least memory, and of two of them the one that was measured.
        ("mistral-small-4-fp8-2xh200", "mistral-small-4-fp8-1xh200"),
        ("mistral-small-4-fp8-4xh100", "mistral-small-4-fp8-1xh200"),
        ("mistral-small-4-fp8-1xh200", None),
        ("qwen2.5-0.5b-1x4090", None),
    ],
)
def test_one_profile_is_worth_a_search_or_none(name, worth):
    search = asked(name)
    known = alternatives.profiles_of(search.need.repository)
    found = alternatives.likely_cheaper(search, known)
    assert (found and found.name) == worth


def test_nothing_is_worth_a_search_where_the_market_decides_the_gpu():
    search = asked("mistral-small-4-fp8-2xh200", offerQuery="num_gpus=2")
    known = alternatives.profiles_of(search.need.repository)
    assert alternatives.likely_cheaper(search, known) is None


PRICES = st.floats(0.5, 20)


@given(PRICES, PRICES)
def test_a_cheaper_way_is_named_only_where_it_costs_less_with_its_start(now, then):
    profile = load_profile("mistral-small-4-fp8-1xh200", MODELS)
    best = landed(offer(dph_total=now), need())
    other = landed(offer(dph_total=then, num_gpus=1), need(download_gb=151.0))
    said = alternatives.describe_cheaper(profile, other, best)
    saving = best.landed_dollars_per_hour - other.landed_dollars_per_hour
    if math.isclose(saving, 0.01, abs_tol=1e-6):
        return
    assert bool(said) is (saving > 0.01)
    if said:
        assert f"${other.landed_dollars_per_hour:.2f}/h" in said
        assert "131072 tokens of context" in said


def test_room_is_unknown_on_a_gpu_of_unknown_memory():
    profile = load_profile("mistral-small-4-fp8-1xh200", MODELS)
    assert alternatives.room(profile.model_copy(update={"gpu_name": "X9"})) is None
    known = alternatives.room(profile)
    assert known
    assert known.engines == 1
