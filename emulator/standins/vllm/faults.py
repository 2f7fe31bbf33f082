"""Faults of the host that a server meets, each at its stage, with the real log's words."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from emulator.standins import gpus
from emulator.standins.host import Host
from emulator.standins.vllm import memory
from emulator.standins.vllm.errors import StartError, Where
from emulator.standins.vllm.log import Log
from emulator.standins.vllm.settings import Settings

_STUCK_SECONDS = 60.0
_SMALL_SHARE = 0.4
_FOR_EVER = 3600.0
_FLOOD_MB_PER_SECOND = 20.0
_FLOOD_PIECE = 100_000


class Stage(Enum):
    """Where in a start a fault strikes."""

    NCCL = "nccl"
    """The ranks look for each other."""
    LOAD = "load"
    """The weights have been read."""
    PROFILE = "profile"
    """The KV cache is about to be laid out."""


@dataclass
class Starting:
    """What is known of a start so far: GiB of one GPU, bytes of KV cache a token, tokens."""

    host: Host
    settings: Settings
    log: Log
    others_gib: Callable[[], float]
    """What other processes hold at the moment."""
    others_at_start: float = 0.0
    total_gib: float = 0.0
    weights_gib: float = 0.0
    available_gib: float = 0.0
    bytes_per_token: int = 0
    length: int = 0


def strike(stage: Stage, start: Starting) -> None:
    """Let the faults that are switched on for this host strike at `stage`.

    Raises:
        StartError: what the fault makes of the start.
    """
    for name, (at, act) in _TABLE.items():
        parameters = start.host.fault(name)
        if at is stage and parameters is not None:
            act(start, parameters)
    if start.settings.is_rehearsal:
        _strike_rehearsal(stage, start)


def _strike_rehearsal(stage: Stage, start: Starting) -> None:
    """Let those strike that only a server with dummy weights meets."""
    for name, (usual, act) in _OF_REHEARSALS.items():
        parameters = start.host.fault(name)
        if parameters is not None and parameters.get("at", usual.value) == stage.value:
            act(start, parameters)


def _cuda_dead(start: Starting, parameters: Mapping[str, Any]) -> None:
    del parameters
    code = gpus.cuda_error(start.host, serving=True)
    raise StartError(
        "RuntimeError: Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions "
        "before calling NumCudaDevices() that might have already set an error? Error "
        f"{code}: {_CUDA_ERRORS.get(code, 'unknown error')}",
        Where.WORKER,
    )


def _nccl_hang(start: Starting, parameters: Mapping[str, Any]) -> None:
    del parameters
    if start.settings.gpus_used == 1:
        return
    while True:
        start.host.wait(_STUCK_SECONDS)
        start.log.info(
            start.log.worker,
            "shm_broadcast.py:542",
            "No available shared memory broadcast block found in 60 seconds. This typically "
            "happens when some processes are hanging or doing some time-consuming work (e.g. "
            "compilation, weight/kv cache quantization).",
        )


def _crash(start: Starting, parameters: Mapping[str, Any]) -> None:
    """The host's memory runs out under the loader: the kernel kills a worker, each time.

    Dummy weights are made on the GPU, and nothing is loaded.
    """
    if "after" in parameters or start.settings.is_rehearsal:
        return
    name = "VllmWorker-1" if start.settings.world_size > 1 else "VllmWorker-0"
    start.log.write(
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


def _out_of_memory(start: Starting, parameters: Mapping[str, Any]) -> None:
    del parameters
    raise memory.out_of_memory(start.total_gib, start.total_gib - 1)


def _kv_too_small(start: Starting, parameters: Mapping[str, Any]) -> None:
    length = start.length if start.length > 0 else 1
    needed = length * start.bytes_per_token / memory.GIB
    small = float(parameters.get("gib", needed * _SMALL_SHARE))
    start.available_gib = min(start.available_gib, small)


def _hang(start: Starting, parameters: Mapping[str, Any]) -> None:
    """Nothing is logged any more, and a polite request to end is not heard."""
    del start, parameters
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(_FOR_EVER)


def _flood(start: Starting, parameters: Mapping[str, Any]) -> None:
    """A line that repeats for ever, at a rate in real seconds: a disk fills in real ones."""
    line = f"(Worker pid={os.getpid()}) WARNING [shm_broadcast.py:542] a rank does not answer\n"
    piece = line * (_FLOOD_PIECE // len(line))
    pause = len(piece) / 1e6 / float(parameters.get("mb_s", _FLOOD_MB_PER_SECOND))
    del start
    while True:
        sys.stdout.write(piece)
        sys.stdout.flush()
        time.sleep(pause)


def _leave(start: Starting, parameters: Mapping[str, Any]) -> None:
    """A process of its own session outlives the server; the group of the server is not its own."""
    left = subprocess.Popen(
        ["/usr/bin/tail", "-f", "/dev/null"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    if parameters.get("memory"):
        claim = gpus.Claim(start.host, left.pid, "VLLM::Worker_TP0", heir_of=os.getpid())
        claim.hold(list(range(start.settings.gpus_used)), round(start.weights_gib * 1024))


_CUDA_ERRORS = {
    802: "system not yet initialized",
    803: "system has unsupported display driver / cuda driver combination",
    804: "forward compatibility was attempted on non supported HW",
}

_TABLE: dict[str, tuple[Stage, Callable[[Starting, Mapping[str, Any]], None]]] = {
    "cuda_dead": (Stage.NCCL, _cuda_dead),
    "nccl_hang": (Stage.NCCL, _nccl_hang),
    "crash_loop": (Stage.LOAD, _crash),
    "engine_oom": (Stage.PROFILE, _out_of_memory),
    "kv_too_small": (Stage.PROFILE, _kv_too_small),
}
"""Fault -> where it strikes, and what it does."""

_OF_REHEARSALS: dict[str, tuple[Stage, Callable[[Starting, Mapping[str, Any]], None]]] = {
    "rehearsal_leaves": (Stage.LOAD, _leave),
    "rehearsal_flood": (Stage.LOAD, _flood),
    "rehearsal_hang": (Stage.LOAD, _hang),
}
"""The same for those of a rehearsal; the stage is the usual one, and `at` names another."""
