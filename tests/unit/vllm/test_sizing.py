from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from components.vllm.errors import DoesNotFit
from components.vllm.profile import load_profile, profile_names
from components.vllm.sizing import (
    check_fit,
    least_disk_gb,
    memory_per_gpu_gib,
    needed_gpu_memory_gib,
    size,
)
from tests.helpers.places import ROOT

MODELS = ROOT / "models"
FP8 = "mistral-small-4-fp8-2xh200"
NVFP4 = "mistral-small-4-nvfp4-1xh200"
H100 = 79.2
H200 = 139.8


class Row(NamedTuple):
    """A row of the reference's table; memory, weights and room in GiB of one GPU."""

    name: str
    ranks: int
    memory: float
    share: float
    weights: float
    room: float
    tokens: float
    at_128k: float
    at_256k: float


@pytest.mark.parametrize(
    "row",
    [
        Row(FP8, 2, H200, 0.80, 56.6, 49.2, 2.29e6, 17.5, 8.8),
        Row(FP8, 2, H200, 0.90, 56.6, 63.2, 2.95e6, 22.5, 11.2),
        Row(FP8, 4, H100, 0.90, 28.5, 36.8, 1.72e6, 13.1, 6.5),
        Row(FP8, 2, H100, 0.90, 56.6, 8.7, 0.40e6, 3.1, 1.5),
        Row(FP8, 1, H200, 0.90, 112.9, 7.9, 0.37e6, 2.8, 1.4),
        Row(NVFP4, 1, H200, 0.90, 66.2, 54.6, 2.54e6, 19.4, 9.7),
        Row(NVFP4, 2, H100, 0.90, 33.3, 32.0, 1.49e6, 11.4, 5.7),
    ],
)
def test_the_table_of_the_reference(row: Row) -> None:
    profile = load_profile(row.name, MODELS).with_overrides(
        tensor_parallel_size=row.ranks,
        num_gpus=row.ranks,
        gpu_memory_utilization=row.share,
        # The table was computed before anything was measured.
        unsharded_gib=0.3,
        overhead_gib=5.0,
    )
    gpus: dict[str, Any] = {"gpu_memory_gib": row.memory, "num_gpus": row.ranks}
    short = size(profile, max_model_len=131072, **gpus)
    long = size(profile, max_model_len=262144, **gpus)
    # The table is rounded to its last digit, which can be more than a hundredth of a number.
    assert short.weights_gib_per_gpu == pytest.approx(row.weights, rel=0.01)
    assert short.kv_gib_available == pytest.approx(row.room, rel=0.01)
    assert short.tokens == pytest.approx(row.tokens, rel=0.01, abs=5000)
    assert short.sequences == pytest.approx(row.at_128k, rel=0.01, abs=0.05)
    assert long.sequences == pytest.approx(row.at_256k, rel=0.01, abs=0.051)


def test_nvfp4_on_one_h100_is_refused() -> None:
    profile = load_profile(NVFP4, MODELS)
    with pytest.raises(DoesNotFit, match=r"2 such GPUs with tensor_parallel_size 2"):
        check_fit(profile, gpu_memory_gib=H100, num_gpus=1)


@pytest.mark.parametrize("name", profile_names(MODELS))
def test_every_shipped_profile_fits_its_own_hardware_and_disk(name: str) -> None:
    profile = load_profile(name, MODELS)
    memory = memory_per_gpu_gib(profile.gpu_name)
    assert memory is not None
    assert check_fit(profile, gpu_memory_gib=memory, num_gpus=profile.num_gpus) == []
    assert profile.disk_gb >= least_disk_gb(profile.weights_gb, profile.image_gb)


def test_the_refusal_names_profile_weights_memory_limit_and_what_would_fit() -> None:
    profile = load_profile(FP8, MODELS)
    with pytest.raises(DoesNotFit) as raised:
        check_fit(profile, gpu_memory_gib=H100, num_gpus=2, max_model_len=1048576)
    text = str(raised.value)
    for word in (FP8, "56.7 GiB", "79.2 GiB", "90%", "1048576 tokens", "22.5 GiB"):
        assert word in text
    assert "max_model_len 515072" in text
    assert "4 such GPUs with tensor_parallel_size 4" in text


def test_the_context_that_the_refusal_offers_is_accepted() -> None:
    profile = load_profile(FP8, MODELS)
    warnings = check_fit(profile, gpu_memory_gib=H100, num_gpus=2, max_model_len=515072)
    assert len(warnings) == 1
    assert "1.0 sequences of 515072 tokens" in warnings[0]


def test_a_refusal_offers_no_context_where_the_weights_alone_are_too_much() -> None:
    profile = load_profile(FP8, MODELS).with_overrides(tensor_parallel_size=1)
    with pytest.raises(DoesNotFit) as raised:
        check_fit(profile, gpu_memory_gib=H100, num_gpus=1)
    assert "max_model_len" not in str(raised.value)
    assert "2 such GPUs" in str(raised.value)


def test_a_refusal_offers_no_ranks_that_the_heads_do_not_divide_by() -> None:
    profile = load_profile("qwen2.5-0.5b-1x4090", MODELS)
    with pytest.raises(DoesNotFit) as raised:
        check_fit(profile, gpu_memory_gib=4.0, num_gpus=1)
    assert "tensor_parallel_size" not in str(raised.value)
    assert str(raised.value).endswith("what would fit is a profile with smaller weights")


def test_tight_is_warned_of() -> None:
    warnings = check_fit(load_profile(FP8, MODELS), gpu_memory_gib=H100, num_gpus=2)
    assert len(warnings) == 1
    assert "3.9 sequences of 131072 tokens" in warnings[0]


def test_gpus_that_carry_nothing_are_warned_of() -> None:
    warnings = check_fit(load_profile(FP8, MODELS), gpu_memory_gib=H200, num_gpus=4)
    assert warnings == [
        (
            f"profile {FP8} uses 2 of 4 GPUs and 2 would be paid for nothing; "
            "raise tensor_parallel_size or rent fewer"
        )
    ]


def test_fewer_gpus_than_ranks_are_refused() -> None:
    with pytest.raises(DoesNotFit, match="spreads over 2 GPUs and there are 1"):
        size(load_profile(FP8, MODELS), gpu_memory_gib=H200, num_gpus=1)


@pytest.mark.parametrize("name", profile_names(MODELS))
@pytest.mark.parametrize("length", [4096, 32768])
def test_the_least_memory_holds_one_sequence_and_a_little_less_does_not(
    name: str, length: int
) -> None:
    profile = load_profile(name, MODELS)
    need = needed_gpu_memory_gib(profile, profile.num_gpus, length)
    around: dict[str, Any] = {"num_gpus": profile.num_gpus, "max_model_len": length}
    assert size(profile, gpu_memory_gib=need + 0.001, **around).tokens_of_one >= length
    assert size(profile, gpu_memory_gib=need - 0.001, **around).tokens_of_one < length
    assert len(check_fit(profile, gpu_memory_gib=need + 0.001, **around)) == 1
    with pytest.raises(DoesNotFit):
        check_fit(profile, gpu_memory_gib=need - 0.001, **around)


def test_a_kv_cache_that_is_split_holds_more_on_two_gpus_and_a_replicated_one_does_not() -> None:
    split = load_profile("qwen2.5-0.5b-1x4090", MODELS).with_overrides(
        tensor_parallel_size=2, num_gpus=2
    )
    whole = split.with_overrides(kv_replicated=True)
    twice = size(split, gpu_memory_gib=23.5, num_gpus=2)
    once = size(whole, gpu_memory_gib=23.5, num_gpus=2)
    assert twice.kv_gib_available == once.kv_gib_available
    assert twice.tokens == pytest.approx(2 * once.tokens, abs=1)


def test_disk_counts_weights_while_they_arrive_image_what_is_kept_and_margin() -> None:
    assert least_disk_gb(100.0, 30.0, 20.0) == pytest.approx(165.0)


@pytest.mark.parametrize(
    ("name", "memory"),
    [
        ("H200", 139.8),
        ("H100 SXM", 79.2),
        ("H100_SXM", 79.2),
        ("h100  sxm", 79.2),
        ("B200", 178.0),
        ("RTX_4090", 23.5),
        ("A100 SXM4", None),
        ("", None),
    ],
)
def test_memory_by_name(name: str, memory: float | None) -> None:
    assert memory_per_gpu_gib(name) == memory
