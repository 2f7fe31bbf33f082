"""What fits into a GPU: weights, overhead, and the KV cache that is left. GiB throughout.

The overhead was measured with Mistral Small 4 (FP8) on 2x H200 and vLLM 0.26.0, with 8192 tokens in
a step: docs/measured. Every model and every GPU gets it.
"""

from __future__ import annotations

from dataclasses import dataclass

from emulator.standins.vllm.errors import StartError, Where
from emulator.standins.vllm.model import ModelShape
from emulator.standins.vllm.pace import LARGEST_GRAPH
from emulator.standins.vllm.settings import LARGEST_DEFAULT_GRAPH, Settings

GIB = 2**30

BLOCK_TOKENS = 16
"""The KV cache is handed out in blocks of so many tokens."""

_CONTEXT_SHARE = 1.94 / 139.80
"""Of a GPU's memory, what CUDA's own context takes before vLLM begins: 137.86 GiB were free."""

_VISION_GIB = 0.76
"""Every rank holds the vision tower whole: two ranks take 0.38 GiB each more than their half."""
_ALONE_GIB = 0.27
"""What an engine's only rank takes beyond its share, where there is a vision tower."""
_DOCS = "See https://docs.vllm.ai/en/latest/configuration/conserving_memory/ for more details."


@dataclass(frozen=True)
class Overhead:
    """What one GPU needs beside weights and KV cache."""

    activations: float
    other: float
    """NCCL's buffers and what else is not PyTorch's."""
    graphs_estimated: float
    """What vLLM expects CUDA graphs to take; they take `graphs`."""
    graphs: float
    sets_graphs_aside: bool = True

    @property
    def set_aside(self) -> float:
        """What is not there for the KV cache."""
        graphs = self.graphs_estimated if self.sets_graphs_aside else 0.0
        return self.activations + self.other + graphs


@dataclass(frozen=True)
class Fit:
    """What one GPU holds: GiB, tokens, and sequences of the longest length."""

    weights_gib: float
    kv_gib: float
    kv_tokens: int
    max_model_len: int
    concurrency: float


def overhead(settings: Settings) -> Overhead:
    """Return what was measured with these options."""
    triton = settings.moe_backend == "triton"
    activations = 2.5 if triton else 2.06
    if settings.enforce_eager:
        return Overhead(activations, 0.07, 0.0, 0.0)
    estimated, taken = (0.91, 1.40) if triton else (0.85, 1.44)
    more_estimated, more_taken = (25.9, 0.80) if settings.world_size > 1 else (50.38, 1.89)
    if settings.data_parallel_size > 1:
        estimated, taken = estimated + 1.78, taken + 1.80
        more_estimated, more_taken = 2.33, 1.80
    # Between the two that were measured, evenly in the tokens of the largest graph.
    larger = max(settings.graph_sizes) - LARGEST_DEFAULT_GRAPH
    share = max(0.0, larger / (LARGEST_GRAPH - LARGEST_DEFAULT_GRAPH))
    return Overhead(
        activations,
        0.13,
        estimated + more_estimated * share,
        taken + more_taken * share,
        settings.sets_graphs_aside,
    )


def weights_gib(size: int, shape: ModelShape, settings: Settings) -> float:
    """Return the GiB of `size` bytes of weights on one GPU: engines share the experts alone."""
    ranks, engines = settings.world_size, settings.data_parallel_size
    experts = min(float(shape.expert_bytes), size)
    of_one_engine = size - experts + experts / engines
    whole = _ALONE_GIB if ranks == 1 else _VISION_GIB * (1 - 1 / ranks)
    return of_one_engine / ranks / GIB + (whole if shape.vision else 0.0)


def check_free(total_gib: float, used_gib: float, utilization: float) -> None:
    """Refuse a GPU on which somebody else leaves less than is asked for.

    Raises:
        StartError: in the worker, as vLLM says it.
    """
    free = _empty_gib(total_gib) - used_gib
    wanted = total_gib * utilization
    if free < wanted:
        raise StartError(
            f"ValueError: Free memory on device cuda:0 ({round(free, 2)}/{round(total_gib, 2)} "
            f"GiB) on startup is less than desired GPU memory utilization ({utilization}, "
            f"{round(wanted, 2)} GiB). "
            "Decrease GPU memory utilization or reduce GPU memory used by other processes.",
            Where.WORKER,
        )


def check_weights(total_gib: float, weights_gib: float, others_gib: float = 0.0) -> None:
    """Refuse weights for which one GPU has no room beside what `others_gib` take of it.

    Raises:
        StartError: CUDA out of memory, in the worker.
    """
    room = _empty_gib(total_gib) - others_gib
    if weights_gib > room:
        raise out_of_memory(total_gib, room, others_gib)


def check_held(total_gib: float, held_gib: float, others_gib: float) -> None:
    """Refuse to take `held_gib` in all where others have taken the room meanwhile.

    Raises:
        StartError: CUDA out of memory, in the worker.
    """
    if held_gib + others_gib > total_gib:
        raise out_of_memory(total_gib, total_gib - others_gib, others_gib)


def check_others(total_gib: float, others_before: float, others_now: float) -> None:
    """Refuse a profile of the memory during which somebody else has given some back.

    vLLM measures its own need by what is free before and after.

    Raises:
        StartError: in the worker, as vLLM says it.
    """
    if others_now < others_before:
        before, now = (_empty_gib(total_gib) - gib for gib in (others_before, others_now))
        raise StartError(
            f"AssertionError: Error in memory profiling. Initial free memory {before:.2f} GiB, "
            f"current free memory {now:.2f} GiB. This happens when other processes sharing the "
            "same container release GPU memory while vLLM is profiling during initialization. To "
            "fix this, ensure consistent GPU memory allocation or isolate vLLM in its own "
            "container.",
            Where.WORKER,
        )


def out_of_memory(total_gib: float, used_gib: float, others_gib: float = 0.0) -> StartError:
    """Return PyTorch's error when a GPU of `total_gib` has no room for 2 GiB more."""
    free = max(0.19, total_gib - used_gib - others_gib)
    return StartError(
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total "
        f"capacity of {total_gib:.2f} GiB of which {free:.2f} GiB is free. Including non-PyTorch "
        f"memory, this process has {used_gib:.2f} GiB memory in use. Of the allocated memory "
        f"{used_gib - 1:.2f} GiB is allocated by PyTorch, and 212.45 MiB is reserved by PyTorch "
        "but unallocated. If reserved but unallocated memory is large try setting "
        "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.",
        Where.WORKER,
    )


def kv_gib_left(
    total_gib: float, weights_gib: float, utilization: float, beside: Overhead
) -> float:
    """Return the GiB that weights and overhead leave of the share that vLLM may use."""
    return total_gib * utilization - weights_gib - beside.set_aside


def held_gib(total_gib: float, utilization: float, beside: Overhead) -> float:
    """Return the GiB that nvidia-smi shows of a server that serves."""
    activations_and_other = beside.activations + beside.other
    in_share = total_gib * utilization - beside.set_aside + activations_and_other
    return in_share + context_gib(total_gib) + beside.graphs


def context_gib(total_gib: float) -> float:
    """Return the GiB that a process takes of a GPU as soon as it uses it."""
    return total_gib - _empty_gib(total_gib)


def fit_kv(
    available_gib: float, *, weights_gib: float, bytes_per_token: int, max_model_len: int
) -> Fit:
    """Lay out the KV cache; `max_model_len` -1 means as long as fits.

    Raises:
        StartError: in the engine: nothing is left, or not one sequence of that length fits.
    """
    if available_gib <= 0:
        raise StartError(
            "ValueError: No available memory for the cache blocks. Available KV cache memory: "
            f"{available_gib:.2f} GiB. Try increasing `gpu_memory_utilization` when initializing "
            f"the engine. {_DOCS}",
            Where.ENGINE,
        )
    tokens = int(available_gib * GIB / bytes_per_token) // BLOCK_TOKENS * BLOCK_TOKENS
    if max_model_len == -1:
        max_model_len = tokens
    needed = max_model_len * bytes_per_token / GIB
    if tokens < max_model_len:
        raise StartError(
            "ValueError: To serve at least one request with the model's max seq len "
            f"({max_model_len}), ({needed:.2f} GiB KV cache is needed, which is larger than the "
            f"available KV cache memory ({available_gib:.2f} GiB). Based on the available memory, "
            f"the estimated maximum model length is {tokens}. Try increasing "
            "`gpu_memory_utilization` (which also controls CPU memory on the CPU backend) or "
            f"decreasing `max_model_len` when initializing the engine. {_DOCS}",
            Where.ENGINE,
        )
    return Fit(weights_gib, available_gib, tokens, max_model_len, tokens / max_model_len)


def _empty_gib(total_gib: float) -> float:
    return total_gib * (1 - _CONTEXT_SHARE)
