"""What vLLM refuses after its parser, and how much it finds room for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.vllm.profile import load_profile
from components.vllm.readiness.log_parser import BootLog
from emulator.standins.hub import open_repository
from emulator.standins.vllm import memory
from emulator.standins.vllm.checks import (
    check_config,
    check_driver,
    check_line,
    check_tool_parser,
    check_type,
    choose_backend,
)
from emulator.standins.vllm.errors import StartError, Where
from emulator.standins.vllm.model import ModelShape, read_shape
from emulator.standins.vllm.settings import Settings
from tests.emulator.standins.support import MISTRAL, QWEN, host_with
from tests.helpers.places import ROOT

MODELS = ROOT / "models"
LATENCY = load_profile("mistral-small-4-fp8-2xh200-latency", MODELS).flags["compilation-config"]
HOPPER = (9, 0)
BLACKWELL = (10, 0)
ADA = (8, 9)


def shape_of(name: str, folder: Path, config_format: str = "auto") -> ModelShape:
    repository = open_repository(host_with(folder / "host"), name, token="x")
    for file in repository.files:
        if file.content is not None:
            (folder / file.name).write_bytes(file.content)
    shape = read_shape(folder, config_format=config_format)
    assert shape is not None
    return shape


def settings(**given: Any) -> Settings:
    return Settings(model="m", served_names=("m",), **given)


@pytest.mark.parametrize("config_format", ["auto", "mistral", "hf"])
def test_both_formats_of_mistral_small_4_have_the_published_shape(
    tmp_path: Path, config_format: str
) -> None:
    shape = shape_of(MISTRAL, tmp_path, config_format)

    assert shape.architecture == "PixtralForConditionalGeneration"
    assert (shape.layers, shape.heads, shape.max_positions) == (36, 32, 1_048_576)
    assert shape.kv_bytes_per_token(tensor_parallel_size=2, fp8=False) == 23_040
    assert shape.kv_bytes_per_token(tensor_parallel_size=1, fp8=True) == 11_520
    # 36 layers of 128 experts with three matrices of 4096 x 2048, a byte each.
    assert shape.expert_bytes == pytest.approx(115.964e9, rel=1e-4)
    assert shape.vision
    assert shape.mistral


def test_ordinary_attention_splits_its_cache_over_the_ranks(tmp_path: Path) -> None:
    shape = shape_of(QWEN, tmp_path)

    assert shape.kv_bytes_per_token(tensor_parallel_size=1, fp8=False) == 12_288
    assert shape.expert_bytes == 0
    assert shape.kv_bytes_per_token(tensor_parallel_size=2, fp8=False) == 6_144
    assert not shape.vision


@pytest.mark.parametrize(
    ("given", "gpus", "said"),
    [
        (
            {"max_model_len": 2_097_152},
            2,
            "(2097152) is greater than the derived max_model_len (max_position_embeddings=1048576",
        ),
        (
            {"tensor_parallel_size": 3},
            4,
            "attention heads (32) must be divisible by tensor parallel size (3)",
        ),
        (
            {"tensor_parallel_size": 4},
            2,
            "World size (4) is larger than the number of available GPUs (2) in this node",
        ),
        ({"gpu_memory_utilization": 90.0}, 2, "Input should be less than or equal to 1"),
        ({"gpu_memory_utilization": 0.0}, 2, "Input should be greater than 0"),
        ({"attention_backend": "nope"}, 2, "Unknown attention backend: 'NOPE'. Valid options are:"),
        ({"reasoning_parser": "nope"}, 2, "Reasoning parser 'nope' not found. Available parsers:"),
        ({}, 0, "Failed to infer device type"),
    ],
)
def test_the_configuration_is_refused_in_the_api_server(
    given: dict[str, Any], gpus: int, said: str, tmp_path: Path
) -> None:
    with pytest.raises(StartError) as refused:
        check_config(settings(**given), shape_of(MISTRAL, tmp_path), gpus, environ_allows=False)

    assert said in str(refused.value)
    assert refused.value.where is Where.API_SERVER


@pytest.mark.parametrize(
    ("given", "allowed", "length"),
    [
        ({}, False, 1_048_576),
        ({"max_model_len": 131_072}, False, 131_072),
        ({"max_model_len": -1}, False, -1),
        ({"max_model_len": 2_097_152}, True, 2_097_152),
    ],
)
def test_the_length_to_serve(
    given: dict[str, Any], allowed: bool, length: int, tmp_path: Path
) -> None:
    shape = shape_of(MISTRAL, tmp_path)

    assert check_config(settings(**given), shape, 2, environ_allows=allowed) == length


def test_tool_choice_needs_a_parser_that_exists() -> None:
    with pytest.raises(StartError, match="--enable-auto-tool-choice requires --tool-call-parser"):
        check_line(settings(enable_auto_tool_choice=True))
    wrong = settings(enable_auto_tool_choice=True, tool_call_parser="mystral")
    with pytest.raises(StartError, match=r"invalid tool call parser: mystral \(chose from"):
        check_tool_parser(wrong)
    check_tool_parser(settings(enable_auto_tool_choice=True, tool_call_parser="mistral"))


@pytest.mark.parametrize(
    ("model", "given", "capability", "expected"),
    [
        (MISTRAL, {}, HOPPER, "FLASH_ATTN_MLA"),
        (MISTRAL, {"attention_backend": "flash_attn_mla"}, HOPPER, "FLASH_ATTN_MLA"),
        (MISTRAL, {"kv_cache_dtype": "fp8"}, HOPPER, "FLASHMLA"),
        (MISTRAL, {"kv_cache_dtype": "fp8", "attention_backend": "TRITON_MLA"}, ADA, "TRITON_MLA"),
        (MISTRAL, {}, BLACKWELL, "CUTLASS_MLA"),
        (MISTRAL, {}, ADA, "TRITON_MLA"),
        (QWEN, {}, ADA, "FLASH_ATTN"),
    ],
)
def test_the_backend_that_is_used(
    model: str,
    given: dict[str, Any],
    capability: tuple[int, int],
    expected: str,
    tmp_path: Path,
) -> None:
    chosen, _ = choose_backend(settings(**given), shape_of(model, tmp_path), capability)

    assert chosen == expected


@pytest.mark.parametrize(
    ("model", "given", "capability", "reason"),
    [
        (
            MISTRAL,
            {"attention_backend": "FLASH_ATTN_MLA"},
            BLACKWELL,
            "compute capability not supported",
        ),
        (
            MISTRAL,
            {"attention_backend": "FLASH_ATTN_MLA", "kv_cache_dtype": "fp8"},
            HOPPER,
            "kv_cache_dtype not supported",
        ),
        (MISTRAL, {"attention_backend": "FLASH_ATTN"}, HOPPER, "MLA not supported"),
        (QWEN, {"attention_backend": "TRITON_MLA"}, ADA, "non-MLA not supported"),
    ],
)
def test_a_backend_that_cannot_run_here_is_refused_in_the_worker(
    model: str, given: dict[str, Any], capability: tuple[int, int], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(StartError) as refused:
        choose_backend(settings(**given), shape_of(model, tmp_path), capability)

    name = given["attention_backend"]
    assert f"Selected backend AttentionBackendEnum.{name} is not valid" in str(refused.value)
    assert reason in str(refused.value)
    assert refused.value.where is Where.WORKER


def test_bfloat16_begins_with_ampere() -> None:
    check_type(settings(), (8, 0), "A100 PCIE")
    check_type(settings(dtype="half"), (7, 5), "Tesla T4")
    with pytest.raises(StartError, match=r"Your Tesla T4 GPU has compute capability 7\.5"):
        check_type(settings(), (7, 5), "Tesla T4")


@pytest.mark.parametrize(("cuda", "found"), [(12.8, "12080"), (12.4, "12040")])
def test_an_old_driver_is_named_by_its_cuda(cuda: float, found: str) -> None:
    check_driver(13.0, 13.0)
    check_driver(12.8, 12.8)
    with pytest.raises(StartError, match=rf"too old \(found version {found}\)"):
        check_driver(cuda, 13.0)


@pytest.mark.parametrize(
    ("given", "weights_gib", "kv_gib", "sequences"),
    [
        # Measured on 2x H200: docs/measured and tests/logs.
        ({}, 56.69, 66.09, 23.50),
        ({"moe_backend": "triton"}, 56.69, 65.59, 23.32),
        ({"moe_backend": "triton", "enforce_eager": True}, 56.69, 66.43, 23.62),
        ({"moe_backend": "triton", "compilation_config": LATENCY}, 56.69, 39.63, 14.09),
        ({"tensor_parallel_size": 1, "data_parallel_size": 2}, 58.89, 62.05, 22.06),
    ],
    ids=["recipe", "triton", "eager", "latency", "engines"],
)
def test_a_gpu_has_the_room_that_was_measured(
    given: dict[str, Any], weights_gib: float, kv_gib: float, sequences: float, tmp_path: Path
) -> None:
    asked = settings(**{"tensor_parallel_size": 2, **given})
    shape = shape_of(MISTRAL, tmp_path)
    weights = memory.weights_gib(120_923_000_000, shape, asked)
    assert weights == pytest.approx(weights_gib, rel=0.001)

    left = memory.kv_gib_left(139.8, weights, 0.9, memory.overhead(asked))
    fit = memory.fit_kv(left, weights_gib=weights, bytes_per_token=23_040, max_model_len=131_072)

    assert fit.kv_gib == pytest.approx(kv_gib, rel=0.005)
    assert fit.concurrency == pytest.approx(sequences, rel=0.005)


@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("mistral-small-4-fp8-2xh200", "2xh200-vllm-0.26.0/recipe-e"),
        ("mistral-small-4-fp8-2xh200-latency", "2xh200-vllm-0.26.0/latency-a"),
        ("mistral-small-4-fp8-2xh200-throughput", "2xh200-vllm-0.26.0/throughput-e"),
        ("mistral-small-4-fp8-1xh200", "1xh200-vllm-0.26.0/graphs-d"),
    ],
)
def test_each_measured_profile_has_the_room_that_was_measured(
    name: str, run: str, tmp_path: Path
) -> None:
    profile = load_profile(name, MODELS)
    asked = settings(
        tensor_parallel_size=profile.tensor_parallel_size,
        data_parallel_size=profile.data_parallel_size,
        moe_backend=profile.flags.get("moe-backend"),
        compilation_config=profile.flags.get("compilation-config"),
        sets_graphs_aside="VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS" not in profile.env,
    )
    log = BootLog()
    log.feed((MODELS.parent / "docs/measured" / run / "vllm.log").read_text(encoding="utf-8"))
    weights = memory.weights_gib(120_923_000_000, shape_of(MISTRAL, tmp_path), asked)
    beside = memory.overhead(asked)
    left = memory.kv_gib_left(139.8, weights, profile.gpu_memory_utilization, beside)
    assert weights == pytest.approx(log.facts.load_gib, rel=0.001)
    assert left == pytest.approx(log.facts.kv_cache_gib, rel=0.01)
    assert beside.graphs == pytest.approx(log.facts.graph_gib, abs=0.05)
    assert beside.graphs_estimated == pytest.approx(log.facts.graph_estimate_gib, abs=0.05)


def test_a_server_holds_the_memory_that_nvidia_smi_showed() -> None:
    # In docs/measured: 136,519 MiB of each GPU with two engines, 139,487 of the one alone.
    graphs = {"compilation_config": LATENCY, "sets_graphs_aside": False}
    engines = settings(data_parallel_size=2, **graphs)
    assert memory.held_gib(139.8, 0.9, memory.overhead(engines)) == pytest.approx(133.3, abs=0.7)
    alone = settings(**graphs)
    assert memory.held_gib(139.8, 0.94, memory.overhead(alone)) == pytest.approx(136.2, abs=0.7)


def test_a_context_that_does_not_fit_is_refused_with_the_length_that_would() -> None:
    with pytest.raises(StartError) as refused:
        memory.fit_kv(1.0, weights_gib=1, bytes_per_token=23_040, max_model_len=131_072)

    # As the real log says it (vllm-logs/kv_too_small.log).
    assert (
        "To serve at least one request with the model's max seq len (131072), (2.81 GiB KV cache "
        "is needed, which is larger than the available KV cache memory (1.00 GiB). Based on the "
        "available memory, the estimated maximum model length is 46592." in str(refused.value)
    )
    fit = memory.fit_kv(1.0, weights_gib=1, bytes_per_token=23_040, max_model_len=-1)
    assert fit.max_model_len == 46_592


def test_no_room_at_all() -> None:
    with pytest.raises(StartError, match="No available memory for the cache blocks"):
        memory.fit_kv(-3.0, weights_gib=1, bytes_per_token=23_040, max_model_len=1)
    with pytest.raises(StartError, match="CUDA out of memory"):
        memory.check_weights(79.2, 112.6)
    with pytest.raises(StartError, match="is less than desired GPU memory utilization"):
        memory.check_free(139.8, 40.0, 0.9)
