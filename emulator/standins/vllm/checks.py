"""What vLLM refuses after its parser: names, lengths, divisions, and what the GPU cannot do."""

from __future__ import annotations

from pathlib import Path

from emulator.standins.vllm.errors import StartError, Where, invalid_config
from emulator.standins.vllm.model import ModelShape
from emulator.standins.vllm.names import (
    ATTENTION_BACKENDS,
    CHAT_TEMPLATES,
    REASONING_PARSERS,
    TOOL_PARSERS,
)
from emulator.standins.vllm.settings import Settings

HOPPER = 9
BLACKWELL = 10
_AMPERE = 8
_HALF = frozenset({"half", "float16", "float", "float32"})


def check_line(settings: Settings) -> None:
    """Refuse options that contradict each other, before the server says anything.

    Raises:
        StartError: a template that is not there, or automatic tool choice without a parser for it.
    """
    _check_template(settings.chat_template)
    if settings.enable_auto_tool_choice and not settings.tool_call_parser:
        raise StartError("TypeError: Error: --enable-auto-tool-choice requires --tool-call-parser")


def check_tool_parser(settings: Settings) -> None:
    """Refuse an unknown tool parser.

    Raises:
        StartError: with the names that exist.
    """
    name = settings.tool_call_parser
    if settings.enable_auto_tool_choice and name not in TOOL_PARSERS:
        raise StartError(
            f"KeyError: 'invalid tool call parser: {name} "
            f"(chose from {{ {','.join(TOOL_PARSERS)} }})'"
        )


def check_config(settings: Settings, shape: ModelShape, gpus: int, environ_allows: bool) -> int:
    """Refuse what vLLM's configuration builder refuses; return the length to serve (-1: auto).

    `environ_allows` is VLLM_ALLOW_LONG_MAX_MODEL_LEN.

    Raises:
        StartError: with the builder's wording.
    """
    length = _length(settings, shape, environ_allows)
    _check_memory_share(settings.gpu_memory_utilization)
    _check_world(settings, gpus)
    _check_names(settings)
    if shape.heads % settings.tensor_parallel_size:
        raise invalid_config(
            "VllmConfig",
            f"Total number of attention heads ({shape.heads}) must be divisible by tensor "
            f"parallel size ({settings.tensor_parallel_size}).",
        )
    return length


def check_class(shape: ModelShape, *, is_missing: bool) -> None:
    """Refuse a model whose class this version does not have; `is_missing` is the fault of that.

    Raises:
        StartError: with the builder's wording, which goes on with hundreds of names.
    """
    if is_missing:
        raise invalid_config(
            "ModelConfig",
            f"Model architectures ['{shape.architecture}'] are not supported for now. Supported "
            "architectures: dict_keys(['AquilaModel', 'AquilaForCausalLM', 'ArcticForCausalLM', "
            "'LlamaForCausalLM', 'MistralForCausalLM', 'Qwen2ForCausalLM'])",
        )


def check_driver(cuda: float, needed: float) -> None:
    """Refuse a driver that is older than the CUDA (`needed`) of the image's PyTorch.

    Raises:
        StartError: in the engine.
    """
    if cuda < needed:
        major, minor = divmod(round(cuda * 10), 10)
        raise StartError(
            "RuntimeError: The NVIDIA driver on your system is too old (found version "
            f"{major * 1000 + minor * 10}). Please update your GPU driver by "
            "downloading and installing a new version from the URL: "
            "http://www.nvidia.com/Download/index.aspx",
            Where.ENGINE,
        )


def check_type(settings: Settings, capability: tuple[int, int], gpu_name: str) -> None:
    """Refuse bfloat16, which models have unless they are told otherwise, on a GPU before Ampere.

    Raises:
        StartError: in the worker.
    """
    if capability[0] >= _AMPERE or settings.dtype in _HALF:
        return
    major, minor = capability
    raise StartError(
        "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. "
        f"Your {gpu_name} GPU has compute capability {major}.{minor}. You can use float16 instead "
        "by explicitly setting the `dtype` flag in CLI, for example: --dtype=half.",
        Where.WORKER,
    )


def check_ranks(settings: Settings, gpus: int) -> None:
    """Refuse more engines than there are GPUs for; one engine alone was refused before.

    Raises:
        StartError: in the worker that has no GPU.
    """
    if settings.gpus_used > gpus:
        raise StartError(
            f"AssertionError: DP adjusted local rank {gpus} is out of bounds. ", Where.WORKER
        )


def choose_backend(
    settings: Settings, shape: ModelShape, capability: tuple[int, int]
) -> tuple[str, list[str]]:
    """Return the attention backend, and the candidates if it was chosen automatically.

    Raises:
        StartError: in the worker: the backend that was asked for cannot run here.
    """
    if settings.attention_backend is None:
        candidates = [
            name
            for name in _candidates(shape, capability)
            if not _reasons(name, settings, shape, capability)
        ]
        if not candidates:
            raise StartError(
                "ValueError: No valid attention backend found for cuda with "
                f"AttentionSelectorConfig(kv_cache_dtype={settings.kv_cache_dtype}, "
                f"use_mla={shape.uses_mla}).",
                Where.WORKER,
            )
        return candidates[0], candidates
    name = settings.attention_backend.upper()
    reasons = _reasons(name, settings, shape, capability)
    if reasons:
        raise StartError(
            f"ValueError: Selected backend AttentionBackendEnum.{name} is not valid for this "
            f"configuration. Reason: {reasons}",
            Where.WORKER,
        )
    return name, []


def _length(settings: Settings, shape: ModelShape, environ_allows: bool) -> int:
    asked = settings.max_model_len
    if asked is None:
        return shape.max_positions
    if asked > shape.max_positions and not environ_allows:
        raise invalid_config(
            "ModelConfig",
            f"User-specified max_model_len ({asked}) is greater than the derived max_model_len "
            f"(max_position_embeddings={shape.max_positions} or model_max_length=None in model's "
            "config.json). To allow overriding this maximum, set the env var "
            "VLLM_ALLOW_LONG_MAX_MODEL_LEN=1. VLLM_ALLOW_LONG_MAX_MODEL_LEN must be used with "
            "extreme caution. If the model uses relative position encoding (RoPE), positions "
            "exceeding derived_max_model_len lead to nan. If the model uses absolute position "
            "encoding, positions exceeding derived_max_model_len will cause a CUDA array "
            "out-of-bounds error.",
        )
    return asked


def _check_memory_share(share: float) -> None:
    if share > 1:
        raise invalid_config(
            "CacheConfig",
            "Input should be less than or equal to 1",
            field="gpu_memory_utilization",
            kind="less_than_equal",
            value=str(share),
        )
    if share <= 0:
        raise invalid_config(
            "CacheConfig",
            "Input should be greater than 0",
            field="gpu_memory_utilization",
            kind="greater_than",
            value=str(share),
        )


def _check_world(settings: Settings, gpus: int) -> None:
    if gpus == 0:
        raise StartError(
            "RuntimeError: Failed to infer device type, please set the environment variable "
            "`VLLM_LOGGING_LEVEL=DEBUG` to turn on verbose logging to help debug the issue."
        )
    if settings.world_size > gpus and settings.distributed_executor_backend != "ray":
        raise invalid_config(
            "ParallelConfig",
            f"World size ({settings.world_size}) is larger than the number of available GPUs "
            f"({gpus}) in this node. If this is intentional and you are using:\n"
            "- ray, set '--distributed-executor-backend ray'.\n"
            "- multiprocessing, set '--nnodes' appropriately.",
        )


def _check_names(settings: Settings) -> None:
    backend = settings.attention_backend
    if backend is not None and backend.upper() not in ATTENTION_BACKENDS:
        raise invalid_config(
            "AttentionConfig",
            f"Unknown attention backend: '{backend.upper()}'. "
            f"Valid options are: {', '.join(ATTENTION_BACKENDS)}",
            field="backend",
        )
    parser = settings.reasoning_parser
    if parser and parser not in REASONING_PARSERS:
        raise StartError(
            f"KeyError: \"Reasoning parser '{parser}' not found. "
            f'Available parsers: {", ".join(REASONING_PARSERS)}"'
        )


def _check_template(template: str | None) -> None:
    """What has no brace and no line end is a path, or the name of one of vLLM's own."""
    if template is None or any(mark in template for mark in "{}\n"):
        return
    if Path(template).exists() or template in CHAT_TEMPLATES:
        return
    own = (
        f"/usr/local/lib/python3.12/dist-packages/vllm/transformers_utils/chat_templates/{template}"
    )
    raise StartError(
        "vllm.exceptions.VLLMValidationError: The supplied chat template string "
        f"({template}) appears path-like, but doesn't exist! Tried: {template} and {own} "
        "(parameter=chat_template)"
    )


def _candidates(shape: ModelShape, capability: tuple[int, int]) -> list[str]:
    if not shape.uses_mla:
        return ["FLASH_ATTN", "FLASHINFER", "TRITON_ATTN", "FLEX_ATTENTION"]
    if capability[0] == BLACKWELL:
        return ["FLASHINFER_MLA", "CUTLASS_MLA", "FLASHMLA", "TRITON_MLA"]
    return ["FLASH_ATTN_MLA", "FLASHMLA", "FLASHINFER_MLA", "TRITON_MLA"]


_MLA_MAJORS = {
    "FLASH_ATTN_MLA": (HOPPER,),
    "FLASHMLA": (HOPPER, BLACKWELL),
    "FLASHINFER_MLA": (BLACKWELL,),
    "CUTLASS_MLA": (BLACKWELL,),
    "TOKENSPEED_MLA": (BLACKWELL,),
    "CPU_MLA": (),
    "AMX_MLA": (),
}
_NO_FP8 = frozenset({"FLASH_ATTN_MLA"})
_WIDE_NOPE = 128


def _reasons(
    name: str, settings: Settings, shape: ModelShape, capability: tuple[int, int]
) -> list[str]:
    reasons = []
    is_mla = name.removesuffix("_SPARSE").endswith("MLA")
    if settings.kv_cache_dtype.startswith("fp8") and name in _NO_FP8:
        reasons.append("kv_cache_dtype not supported")
    if shape.uses_mla and not is_mla:
        reasons.append("MLA not supported")
    if is_mla and not shape.uses_mla:
        reasons.append("non-MLA not supported")
    if name.endswith("_SPARSE"):
        reasons.append("non-sparse not supported")
    majors = _MLA_MAJORS.get(name)
    if majors is not None and capability[0] not in majors:
        reasons.append("compute capability not supported")
    if name == "FLASHINFER_MLA" and shape.qk_nope != _WIDE_NOPE:
        reasons.append("qk_nope_head_dim not supported")
    return reasons
