"""What fits into a GPU: weights, overhead, and the KV cache that is left. GiB throughout."""

from __future__ import annotations

from dataclasses import dataclass

from emulator.standins.vllm.errors import StartError, Where

GIB = 2**30

OVERHEAD_GIB = 6.0
"""Activations, CUDA graphs, NCCL and the vision tower's profile run (vllm reference, 6)."""

BLOCK_TOKENS = 16
"""The KV cache is handed out in blocks of so many tokens."""

_CONTEXT_GIB = 0.6
_DOCS = "See https://docs.vllm.ai/en/latest/configuration/conserving_memory/ for more details."


@dataclass(frozen=True)
class Fit:
    """What one GPU holds: GiB, tokens, and sequences of the longest length."""

    weights_gib: float
    kv_gib: float
    kv_tokens: int
    max_model_len: int
    concurrency: float


def check_free(total_gib: float, used_gib: float, utilization: float) -> None:
    """Refuse a GPU on which somebody else leaves less than is asked for.

    Raises:
        StartError: in the worker, as vLLM says it.
    """
    free = total_gib - used_gib - _CONTEXT_GIB
    wanted = total_gib * utilization
    if free < wanted:
        raise StartError(
            f"ValueError: Free memory on device cuda:0 ({free:.2f}/{total_gib:.2f} GiB) on startup "
            f"is less than desired GPU memory utilization ({utilization}, {wanted:.2f} GiB). "
            "Decrease GPU memory utilization or reduce GPU memory used by other processes.",
            Where.WORKER,
        )


def check_weights(total_gib: float, weights_gib: float) -> None:
    """Refuse weights that one GPU cannot hold.

    Raises:
        StartError: CUDA out of memory, in the worker.
    """
    if weights_gib > total_gib - _CONTEXT_GIB:
        raise out_of_memory(total_gib, total_gib - _CONTEXT_GIB)


def out_of_memory(total_gib: float, used_gib: float) -> StartError:
    """Return PyTorch's error when a GPU of `total_gib` has no room for 2 GiB more."""
    free = max(0.19, total_gib - used_gib)
    return StartError(
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total "
        f"capacity of {total_gib:.2f} GiB of which {free:.2f} GiB is free. Including non-PyTorch "
        f"memory, this process has {used_gib:.2f} GiB memory in use. Of the allocated memory "
        f"{used_gib - 1:.2f} GiB is allocated by PyTorch, and 212.45 MiB is reserved by PyTorch "
        "but unallocated. If reserved but unallocated memory is large try setting "
        "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.",
        Where.WORKER,
    )


def kv_gib_left(total_gib: float, weights_gib: float, utilization: float) -> float:
    """Return the GiB that weights and overhead leave of the share that vLLM may use."""
    return total_gib * utilization - weights_gib - OVERHEAD_GIB


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
