"""Does it fit, and how much of it: arithmetic of one GPU's memory.

One GPU of a tensor-parallel group holds its share of the weights, what every rank keeps whole,
activations and CUDA graphs, NCCL's buffers if it is not alone, and the rest is KV cache. vLLM
refuses to start unless one sequence of the context length fits into that rest.
"""

from __future__ import annotations

import dataclasses

from components.vllm.errors import DoesNotFit
from components.vllm.profile import Profile

GIB = 2**30

NCCL_GIB = 1.0
"""GiB of communication buffers on each GPU, as soon as there are two."""

FEW_SEQUENCES = 4.0
"""Below this many sequences of full length a warning is due: the overhead is an estimate."""

WEIGHTS_FACTOR = 1.1
"""Disk that the weights take while they arrive, over what they take in the end."""

DISK_MARGIN_GB = 15.0
"""GB for the compile cache, logs, and room to breathe."""

LEAST_WEIGHTS_FACTOR = 1.05
"""GB of disk for a GB of weights: what a download keeps beside a file until it is complete."""

LEAST_DISK_MARGIN_GB = 10.0
"""For compiled kernels, logs and the system."""

_MEMORY_GIB = {
    "h200": 139.8,
    "h200 nvl": 139.8,
    "h100 sxm": 79.2,
    "h100 pcie": 79.1,
    "h100 nvl": 93.1,
    "b200": 178.0,
    "rtx 3090": 23.5,
    "rtx 4090": 23.5,
    "rtx 5090": 31.3,
    "rtx a6000": 47.4,
    "rtx 6000ada": 47.4,
    "l40s": 44.3,
    "l4": 22.0,
}
"""GiB that CUDA reports, by Vast's name in small letters; names with two sizes are left out."""


@dataclasses.dataclass(frozen=True)
class Sizing:
    """What one GPU of the group has room for. GiB, tokens, and sequences of `max_model_len`."""

    gpu_memory_gib: float
    max_model_len: int
    weights_gib_per_gpu: float
    overhead_gib_per_gpu: float
    kv_gib_available: float
    """0 or more, for each GPU."""
    tokens: int
    """Tokens that the KV cache of the group holds."""
    sequences: float
    """How many sequences of full length that is."""


def memory_per_gpu_gib(gpu_name: str) -> float | None:
    """Memory of a GPU as CUDA reports it, in GiB; None for a name that is not known.

    Spelling is forgiving: `H100_SXM`, `H100 SXM` and `h100 sxm` are the same.
    """
    return _MEMORY_GIB.get(" ".join(gpu_name.replace("_", " ").lower().split()))


def size(
    profile: Profile, *, gpu_memory_gib: float, num_gpus: int, max_model_len: int | None = None
) -> Sizing:
    """Compute what fits on GPUs of `gpu_memory_gib`, `num_gpus` of them.

    The ranks are the profile's `tensor_parallel_size`; further GPUs carry nothing.

    Raises:
        DoesNotFit: if there are fewer GPUs than ranks.
    """
    if num_gpus < profile.tensor_parallel_size:
        raise DoesNotFit(
            f"profile {profile.name} spreads over {profile.tensor_parallel_size} GPUs and there "
            f"are {num_gpus}; rent {profile.tensor_parallel_size} or lower tensor_parallel_size"
        )
    length = max_model_len or profile.max_model_len
    weights = _weights_gib(profile, profile.tensor_parallel_size)
    overhead = _overhead_gib(profile, profile.tensor_parallel_size)
    room = max(0.0, gpu_memory_gib * profile.gpu_memory_utilization - weights - overhead)
    tokens = int(room * GIB / _kv_bytes(profile, profile.tensor_parallel_size))
    return Sizing(
        gpu_memory_gib=gpu_memory_gib,
        max_model_len=length,
        weights_gib_per_gpu=weights,
        overhead_gib_per_gpu=overhead,
        kv_gib_available=room,
        tokens=tokens,
        sequences=tokens / length,
    )


def check_fit(
    profile: Profile, *, gpu_memory_gib: float, num_gpus: int, max_model_len: int | None = None
) -> list[str]:
    """Refuse what cannot start; return warnings about what is tight or idle.

    Raises:
        DoesNotFit: if not one sequence fits; the text says what would.
    """
    sizing = size(
        profile, gpu_memory_gib=gpu_memory_gib, num_gpus=num_gpus, max_model_len=max_model_len
    )
    if sizing.sequences < 1:
        raise DoesNotFit(_misfit(profile, sizing))
    return _warnings(profile, sizing, num_gpus)


def needed_gpu_memory_gib(profile: Profile, num_gpus: int, max_model_len: int) -> float:
    """Least GiB of one GPU so that one sequence of `max_model_len` fits on `num_gpus`.

    Raises:
        DoesNotFit: if there are fewer GPUs than ranks.
    """
    sizing = size(profile, gpu_memory_gib=0.0, num_gpus=num_gpus, max_model_len=max_model_len)
    used = sizing.weights_gib_per_gpu + sizing.overhead_gib_per_gpu
    return (used + _sequence_gib(profile, max_model_len)) / profile.gpu_memory_utilization


def needed_disk_gb(
    profile: Profile,
    *,
    weights_factor: float = WEIGHTS_FACTOR,
    margin_gb: float = DISK_MARGIN_GB,
) -> float:
    """GB of disk to rent: weights while they arrive, the image, caches and logs."""
    return profile.weights_gb * weights_factor + profile.image_gb + margin_gb


def least_disk_gb(weights_gb: float, image_gb: float, kept_gb: float = 0.0) -> float:
    """GB of disk below which weights cannot arrive, beside `kept_gb` of others that lie there."""
    return weights_gb * LEAST_WEIGHTS_FACTOR + kept_gb + image_gb + LEAST_DISK_MARGIN_GB


def _weights_gib(profile: Profile, ranks: int) -> float:
    return profile.weights_gb * 1e9 / GIB / ranks + profile.unsharded_gib


def _overhead_gib(profile: Profile, ranks: int) -> float:
    return profile.overhead_gib + (NCCL_GIB if ranks > 1 else 0.0)


def _kv_bytes(profile: Profile, ranks: int) -> float:
    return profile.kv_bytes_per_token / (1 if profile.kv_replicated else ranks)


def _sequence_gib(profile: Profile, length: int) -> float:
    return length * _kv_bytes(profile, profile.tensor_parallel_size) / GIB


def _misfit(profile: Profile, sizing: Sizing) -> str:
    return (
        f"profile {profile.name} does not fit: of {sizing.gpu_memory_gib:.1f} GiB on each GPU, "
        f"{profile.gpu_memory_utilization:.0%} may be used, the weights take "
        f"{sizing.weights_gib_per_gpu:.1f} GiB and the overhead "
        f"{sizing.overhead_gib_per_gpu:.1f} GiB, which leaves {sizing.kv_gib_available:.1f} GiB "
        f"of KV cache, and one sequence of {sizing.max_model_len} tokens needs "
        f"{_sequence_gib(profile, sizing.max_model_len):.1f} GiB; "
        f"{_what_would_fit(profile, sizing)}"
    )


def _what_would_fit(profile: Profile, sizing: Sizing) -> str:
    shorter = sizing.tokens // 1024 * 1024
    ranks = _ranks_that_fit(profile, sizing)
    ways = []
    if shorter:
        ways.append(f"max_model_len {shorter}")
    if ranks:
        ways.append(f"{ranks} such GPUs with tensor_parallel_size {ranks}")
    ways.append("a profile with smaller weights")
    return "what would fit is " + ", ".join(ways[:-1]) + (" or " if ways[:-1] else "") + ways[-1]


def _ranks_that_fit(profile: Profile, sizing: Sizing) -> int | None:
    """Find the fewest ranks with room for one sequence, up to the eight GPUs of a host."""
    usable = sizing.gpu_memory_gib * profile.gpu_memory_utilization
    for ranks in (2, 4, 8):
        if ranks <= profile.tensor_parallel_size or profile.attention_heads % ranks:
            continue
        needed = _weights_gib(profile, ranks) + _overhead_gib(profile, ranks)
        if needed + sizing.max_model_len * _kv_bytes(profile, ranks) / GIB <= usable:
            return ranks
    return None


def _warnings(profile: Profile, sizing: Sizing, num_gpus: int) -> list[str]:
    warnings = []
    if sizing.sequences < FEW_SEQUENCES:
        warnings.append(
            f"profile {profile.name} is tight: {sizing.kv_gib_available:.1f} GiB of KV cache on "
            f"each GPU hold {sizing.sequences:.1f} sequences of {sizing.max_model_len} tokens, and "
            f"the {sizing.overhead_gib_per_gpu:.0f} GiB of overhead are an estimate"
        )
    idle = num_gpus - profile.tensor_parallel_size
    if idle > 0:
        warnings.append(
            f"profile {profile.name} uses {profile.tensor_parallel_size} of {num_gpus} GPUs and "
            f"{idle} would be paid for nothing; raise tensor_parallel_size or rent fewer"
        )
    return warnings
