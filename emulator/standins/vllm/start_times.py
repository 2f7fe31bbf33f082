"""How long the phases of a start take, in seconds.

They were measured with Mistral Small 4 (FP8) and dummy weights on 2x H200 and vLLM 0.26.0; the logs
lie in docs/measured/2xh200-vllm-0.26.0 and tests/logs. Every model and every GPU gets these.
Only the time to read the weights follows their size, and is assumed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from emulator.standins.vllm.pace import LARGEST_GRAPH
from emulator.standins.vllm.settings import Settings

SHARD_BYTES_PER_SECOND = 1.344e9
"""120.9 GB in 90 s: what an NVMe disk and a host's memory give. Assumed, not measured."""
PAGE_CACHE_BYTES_PER_SECOND = 5e9
"""For weights that an earlier start left in the host's memory. Assumed, not measured."""

INSPECTION = 26.0
"""Of the first start on a machine: vLLM looks at the model's class, and keeps what it found."""


@dataclass(frozen=True)
class StartTimes:
    """The phases in their order."""

    imports: float = 14.0
    """Until it reads its command line: of the 19 s to the banner, a share that is assumed."""
    banner: float = 5.0
    engine: float = 20.0
    workers: float = 23.0
    nccl: float = 4.0
    build: float = 7.0
    encoder: float = 2.4
    """The profile of the vision encoder, or all of the first run where nothing is compiled."""
    dynamo: float = 15.6
    compile: float = 23.0
    memory: float = 8.0
    tuning: float = 24.0
    graphs: float = 27.0
    server: float = 5.0


RECIPE = StartTimes()
TRITON = replace(RECIPE, memory=21.0, tuning=0.1, graphs=40.0)
"""Its kernels are compiled while memory is measured, and it has nothing to tune."""
LATENCY = replace(TRITON, memory=24.0, graphs=47.0)
"""The latency profile: 77 and 57 graphs, up to 8192 tokens."""
EAGER = replace(RECIPE, encoder=59.0, dynamo=0.0, compile=0.0, memory=0.0, tuning=0.1, graphs=0.0)
ENGINES = replace(
    RECIPE, engine=55.0, build=8.0, compile=31.0, memory=25.0, tuning=22.0, graphs=32.0
)
"""Two engines of one rank, with expert parallelism."""
THROUGHPUT = replace(ENGINES, graphs=40.0)
"""The same with 77 and 57 graphs, up to 8192 tokens."""


def start_times(settings: Settings, *, compiled: bool) -> StartTimes:
    """Return what was measured with these options; `compiled` is a warm compile cache."""
    if settings.enforce_eager:
        times = EAGER
    elif settings.data_parallel_size > 1:
        times = THROUGHPUT if max(settings.graph_sizes) >= LARGEST_GRAPH else ENGINES
    elif settings.moe_backend != "triton":
        times = RECIPE
    else:
        times = LATENCY if max(settings.graph_sizes) >= LARGEST_GRAPH else TRITON
    if settings.gpus_used == 1:
        times = replace(times, workers=0.0, nccl=0.0)
    if compiled and not settings.enforce_eager:
        times = replace(times, encoder=1.0, dynamo=3.2, compile=2.0)
    return times
