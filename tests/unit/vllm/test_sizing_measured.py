"""Sizing beside what vLLM found on GPUs: each measured profile, by the logs of its runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.core import yaml_text
from components.vllm.errors import DoesNotFit, ProfileError
from components.vllm.profile import Profile, load_profile, profile_names
from components.vllm.readiness.log_parser import BootFacts, BootLog
from components.vllm.sizing import GIB, check_fit, memory_per_gpu_gib, needed_gpu_memory_gib, size
from tests.helpers.places import ROOT

MODELS = ROOT / "models"
FOLDER = ROOT / "docs" / "measured" / "2xh200-vllm-0.26.0"
RECIPE = "mistral-small-4-fp8-2xh200"
H200 = 139.8
TWO_ENGINES: dict[str, Any] = {"tensor_parallel_size": 1, "data_parallel_size": 2}


def measured(log: Path) -> BootFacts:
    read = BootLog()
    read.feed(log.read_text(encoding="utf-8"))
    assert read.facts.kv_cache_gib is not None, log
    return read.facts


def runs() -> Iterator[Any]:
    """Each run of a profile with a measurement."""
    for name in profile_names(MODELS):
        profile = load_profile(name, MODELS)
        if profile.measured is None:
            continue
        folder = ROOT / profile.measured.source
        content = yaml_text.read((folder / "measurement.yaml").read_text(encoding="utf-8"))
        for run in content["runs"]:
            if run.get("profile") == name:
                yield pytest.param(profile, folder / run["name"], id=f"{name}-{run['name']}")


def check(profile: Profile, facts: BootFacts, within: float) -> None:
    memory = memory_per_gpu_gib(profile.gpu_name)
    assert memory is not None
    room = size(profile, gpu_memory_gib=memory, num_gpus=profile.num_gpus)
    assert room.weights_gib_per_gpu == pytest.approx(facts.load_gib, rel=within)
    assert room.kv_gib_available == pytest.approx(facts.kv_cache_gib, rel=within)
    assert room.tokens == pytest.approx(facts.kv_cache_tokens, rel=within)
    assert room.sequences == pytest.approx(facts.concurrency, rel=within)


@pytest.mark.parametrize(("profile", "folder"), [*runs()])
def test_the_sizing_of_each_measured_profile(profile: Profile, folder: Path) -> None:
    check(profile, measured(folder / "vllm.log"), within=0.02)


@pytest.mark.parametrize("run", ["recipe-a", "recipe-b", "recipe-b-warm"])
def test_the_recipe_s_kv_cache_is_known_within_one_percent(run: str) -> None:
    facts = measured(FOLDER / run / "vllm.log")
    assert (facts.kv_cache_gib, facts.kv_cache_tokens) == (66.09, 3_080_208)
    check(load_profile(RECIPE, MODELS), facts, within=0.01)


def test_two_engines_of_one_rank_with_the_experts_spread_over_both() -> None:
    facts = measured(FOLDER / "dp2-ep-b" / "vllm.log")
    assert (facts.load_gib, facts.kv_cache_gib) == (58.89, 62.05)
    assert facts.kv_cache_tokens == 5_783_168
    profile = load_profile(RECIPE, MODELS).with_overrides(**TWO_ENGINES)
    check(profile, facts, within=0.01)
    room = size(profile, gpu_memory_gib=H200, num_gpus=2)
    assert room.overhead_gib_per_gpu == pytest.approx(4.88, abs=0.05)
    assert check_fit(profile, gpu_memory_gib=H200, num_gpus=2) == []


def test_the_longest_sequence_has_to_fit_into_one_engine() -> None:
    profile = load_profile(RECIPE, MODELS).with_overrides(**TWO_ENGINES)
    need = needed_gpu_memory_gib(profile, 2, 131072)
    room = size(profile, gpu_memory_gib=need + 0.001, num_gpus=2)
    assert room.sequences == pytest.approx(2, abs=0.01)
    warning = f"{room.sequences:.1f} sequences of 131072 tokens"
    assert warning in check_fit(profile, gpu_memory_gib=need + 0.001, num_gpus=2)[0]
    with pytest.raises(DoesNotFit) as raised:
        check_fit(profile, gpu_memory_gib=need - 0.05, num_gpus=2)
    assert "max_model_len 128000" in str(raised.value)
    assert "4 such GPUs with tensor_parallel_size 2" in str(raised.value)


def test_a_dense_model_is_whole_in_each_engine() -> None:
    dense = load_profile("qwen2.5-0.5b-1x4090", MODELS).with_overrides(
        num_gpus=2, data_parallel_size=2
    )
    room = size(dense, gpu_memory_gib=23.5, num_gpus=2)
    assert room.weights_gib_per_gpu == pytest.approx(0.99e9 / GIB)
    alone = size(
        dense.with_overrides(data_parallel_size=1), gpu_memory_gib=23.5 - 2.4 / 0.9, num_gpus=1
    )
    # Each GPU has 2.4 GiB of overhead more: of NCCL, and of the graphs of several engines.
    assert room.tokens == pytest.approx(2 * alone.tokens, rel=0.001)


def test_gpus_without_an_engine_are_idle_and_too_few_are_refused() -> None:
    profile = load_profile(RECIPE, MODELS).with_overrides(**TWO_ENGINES)
    (warning,) = check_fit(profile, gpu_memory_gib=H200, num_gpus=4)
    assert "uses 2 of 4 GPUs" in warning
    assert "raise tensor_parallel_size or data_parallel_size" in warning
    with pytest.raises(DoesNotFit, match="spreads over 2 GPUs and there are 1"):
        size(profile, gpu_memory_gib=H200, num_gpus=1)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data_parallel_size": 2}, "takes 4 GPUs, and num_gpus is 2"),
        ({"data_parallel_size": 0}, "data_parallel_size is 0"),
        ({"experts_gb": 121.0}, "experts_gb is 121.0, which is more than weights_gb, 120.92"),
    ],
)
def test_impossible_engines_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ProfileError) as refused:
        load_profile(RECIPE, MODELS).with_overrides(**changes)
    assert sentence in str(refused.value)
