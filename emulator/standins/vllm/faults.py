"""Faults of the host that a server meets, each at its stage, with the real log's words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

from emulator.standins.vllm import memory
from emulator.standins.vllm.errors import StartError, Where

if TYPE_CHECKING:
    from emulator.standins.vllm.boot import Boot

_STUCK_SECONDS = 60.0
_SMALL_SHARE = 0.4


class Stage(Enum):
    """Where in a start a fault strikes."""

    NCCL = "the ranks look for each other"
    LOAD = "the weights have been read"
    PROFILE = "the KV cache is about to be laid out"


def strike(stage: Stage, boot: Boot) -> None:
    """Let the faults that are switched on for this host strike at `stage`.

    Raises:
        StartError: what the fault makes of the start.
    """
    for name, (at, act) in _TABLE.items():
        parameters = boot.host.fault(name)
        if at is stage and parameters is not None:
            act(boot, parameters)


def _nccl_hang(boot: Boot, parameters: Mapping[str, Any]) -> None:
    del parameters
    if boot.settings.world_size == 1:
        return
    while True:
        boot.host.wait(_STUCK_SECONDS)
        boot.log.info(
            boot.log.worker,
            "shm_broadcast.py:542",
            "No available shared memory broadcast block found in 60 seconds. This typically "
            "happens when some processes are hanging or doing some time-consuming work (e.g. "
            "compilation, weight/kv cache quantization).",
        )


def _crash(boot: Boot, parameters: Mapping[str, Any]) -> None:
    """The host's memory runs out under the loader: the kernel kills a worker, each time."""
    if "after" in parameters:
        return
    name = "VllmWorker-1" if boot.settings.world_size > 1 else "VllmWorker-0"
    boot.log.write(
        "ERROR",
        "EngineCore",
        "multiproc_executor.py:315",
        f"Worker proc {name} died unexpectedly (exit code: -9), shutting down executor.",
    )
    raise StartError(
        "Exception: WorkerProc initialization failed due to an exception in a background process. "
        "See stack trace for root cause.",
        Where.ENGINE,
    )


def _out_of_memory(boot: Boot, parameters: Mapping[str, Any]) -> None:
    del parameters
    raise memory.out_of_memory(boot.total_gib, boot.total_gib - 1)


def _kv_too_small(boot: Boot, parameters: Mapping[str, Any]) -> None:
    length = boot.length if boot.length > 0 else 1
    needed = length * boot.bytes_per_token / memory.GIB
    small = float(parameters.get("gib", needed * _SMALL_SHARE))
    boot.available_gib = min(boot.available_gib, small)


_TABLE: dict[str, tuple[Stage, Callable[[Boot, Mapping[str, Any]], None]]] = {
    "nccl_hang": (Stage.NCCL, _nccl_hang),
    "crash_loop": (Stage.LOAD, _crash),
    "engine_oom": (Stage.PROFILE, _out_of_memory),
    "kv_too_small": (Stage.PROFILE, _kv_too_small),
}
"""Fault -> where it strikes, and what it does."""
