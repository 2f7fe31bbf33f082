"""Compute whether a model fits, and how many tokens: arithmetic of one GPU's memory.

One GPU of a tensor-parallel group holds its share of the weights, the parts that every rank keeps
whole, activations and CUDA graphs. Several GPUs also hold NCCL's buffers. The rest is KV cache.
vLLM refuses to start unless one sequence of the context length fits into that rest.

With data parallelism there are several such groups, each an engine with a KV cache of its own. The
experts' weights are spread over the GPUs of all engines. Each engine keeps the other weights whole.

It was compared with vLLM 0.26.0 on 2x H200 (docs/measured), for Mistral Small 4 in FP8. The KV
cache was within 1 % of vLLM's own figure, for one engine of two ranks and for two engines of one
rank.
"""

from __future__ import annotations

import dataclasses

from components.vllm.errors import DoesNotFit
from components.vllm.profile import Profile

GIB = 2**30

NCCL_GIB = 1.0
"""GiB of communication buffers on each GPU, from two GPUs on. vLLM counted 0.13 in the measurement,
so the rest is a margin.
"""

ENGINES_GIB = 1.4
"""GiB more on each GPU with two engines or more: vLLM estimates more for their graphs."""

GPUS_OF_A_HOST = 8

FEW_SEQUENCES = 4.0
"""Below this many sequences of full length a warning is due: the overhead is an estimate."""

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
    """The room on the GPUs: GiB of one GPU, tokens and sequences of all engines together."""

    gpu_memory_gib: float
    max_model_len: int
    weights_gib_per_gpu: float
    overhead_gib_per_gpu: float
    kv_gib_available: float
    """0 or more, for each GPU."""
    engines: int
    tokens: int
    """Tokens that the KV caches of all engines hold."""
    sequences: float
    """How many sequences of `max_model_len` that is."""

    @property
    def tokens_of_one(self) -> int:
        """Tokens of one engine: the longest sequence has to fit into these."""
        return self.tokens // self.engines


def memory_per_gpu_gib(gpu_name: str) -> float | None:
    """Memory of a GPU as CUDA reports it, in GiB; None for a name that is not known.

    Spelling is forgiving: `H100_SXM`, `H100 SXM` and `h100 sxm` are the same.
    """
    return _MEMORY_GIB.get(" ".join(gpu_name.replace("_", " ").lower().split()))


def size(
    profile: Profile, *, gpu_memory_gib: float, num_gpus: int, max_model_len: int | None = None
) -> Sizing:
    """Compute what fits on GPUs of `gpu_memory_gib`, `num_gpus` of them.

    The profile's `gpus_used` carry ranks; further GPUs carry nothing.

    Raises:
        DoesNotFit: if there are fewer GPUs than ranks.
    """
    if num_gpus < profile.gpus_used:
        raise DoesNotFit(
            f"profile {profile.name} spreads over {profile.gpus_used} GPUs and there "
            f"are {num_gpus}; rent {profile.gpus_used} or lower {_parallel_sizes(profile)}"
        )
    length = max_model_len or profile.max_model_len
    weights = _weights_gib(profile, profile.tensor_parallel_size)
    overhead = _overhead_gib(profile, profile.tensor_parallel_size)
    room = max(0.0, gpu_memory_gib * profile.gpu_memory_utilization - weights - overhead)
    engines = profile.data_parallel_size
    tokens = engines * int(room * GIB / _kv_bytes(profile, profile.tensor_parallel_size))
    return Sizing(
        gpu_memory_gib=gpu_memory_gib,
        max_model_len=length,
        weights_gib_per_gpu=weights,
        overhead_gib_per_gpu=overhead,
        kv_gib_available=room,
        engines=engines,
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
    if sizing.tokens_of_one < sizing.max_model_len:
        raise DoesNotFit(_misfit(profile, sizing))
    return [*_tight_warnings(profile, sizing), *idle_warnings(profile, num_gpus)]


def idle_warnings(profile: Profile, num_gpus: int) -> list[str]:
    """Say which GPUs would carry nothing, whatever they are."""
    idle = num_gpus - profile.gpus_used
    if idle <= 0:
        return []
    said = (
        f"profile {profile.name} uses {profile.gpus_used} of {num_gpus} GPUs and "
        f"{idle} would be paid for nothing; raise {_parallel_sizes(profile)} or rent fewer"
    )
    return [said]


def needed_gpu_memory_gib(profile: Profile, num_gpus: int, max_model_len: int) -> float:
    """Least GiB of one GPU so that one sequence of `max_model_len` fits on `num_gpus`.

    Raises:
        DoesNotFit: if there are fewer GPUs than ranks.
    """
    sizing = size(profile, gpu_memory_gib=0.0, num_gpus=num_gpus, max_model_len=max_model_len)
    used = sizing.weights_gib_per_gpu + sizing.overhead_gib_per_gpu
    return (used + _sequence_gib(profile, max_model_len)) / profile.gpu_memory_utilization


def least_disk_gb(weights_gb: float, image_gb: float, kept_gb: float = 0.0) -> float:
    """Least GB of disk for the weights, beside `kept_gb` of other weights on the disk."""
    return weights_gb * LEAST_WEIGHTS_FACTOR + kept_gb + image_gb + LEAST_DISK_MARGIN_GB


def _weights_gib(profile: Profile, ranks: int) -> float:
    """GiB of one of `ranks` of each engine; the experts are spread over all engines' ranks."""
    experts = profile.experts_gb / profile.data_parallel_size
    of_one_engine = profile.weights_gb - profile.experts_gb + experts
    return of_one_engine * 1e9 / GIB / ranks + profile.unsharded_gib


def _overhead_gib(profile: Profile, ranks: int) -> float:
    engines = profile.data_parallel_size
    shared = NCCL_GIB if ranks * engines > 1 else 0.0
    return profile.overhead_gib + shared + (ENGINES_GIB if engines > 1 else 0.0)


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
    shorter = sizing.tokens_of_one // 1024 * 1024
    ranks = _ranks_that_fit(profile, sizing)
    ways = []
    if shorter:
        ways.append(f"max_model_len {shorter}")
    if ranks:
        gpus = ranks * profile.data_parallel_size
        ways.append(f"{gpus} such GPUs with tensor_parallel_size {ranks}")
    ways.append("a profile with smaller weights")
    return "what would fit is " + ", ".join(ways[:-1]) + (" or " if ways[:-1] else "") + ways[-1]


def _ranks_that_fit(profile: Profile, sizing: Sizing) -> int | None:
    """Find the fewest ranks with room for one sequence, up to the GPUs of a host."""
    usable = sizing.gpu_memory_gib * profile.gpu_memory_utilization
    for ranks in (2, 4, 8):
        too_many = ranks * profile.data_parallel_size > GPUS_OF_A_HOST
        if ranks <= profile.tensor_parallel_size or profile.attention_heads % ranks or too_many:
            continue
        needed = _weights_gib(profile, ranks) + _overhead_gib(profile, ranks)
        if needed + sizing.max_model_len * _kv_bytes(profile, ranks) / GIB <= usable:
            return ranks
    return None


def _tight_warnings(profile: Profile, sizing: Sizing) -> list[str]:
    if sizing.sequences / sizing.engines >= FEW_SEQUENCES:
        return []
    said = (
        f"profile {profile.name} is tight: {sizing.kv_gib_available:.1f} GiB of KV cache on "
        f"each GPU hold {sizing.sequences:.1f} sequences of {sizing.max_model_len} tokens, and "
        f"the {sizing.overhead_gib_per_gpu:.0f} GiB of overhead are an estimate"
    )
    return [said]


def _parallel_sizes(profile: Profile) -> str:
    several = profile.data_parallel_size > 1
    return "tensor_parallel_size or data_parallel_size" if several else "tensor_parallel_size"
