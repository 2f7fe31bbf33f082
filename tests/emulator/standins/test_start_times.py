"""The stand-in's phases beside those of the real logs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.vllm.readiness.log_parser import Stage
from emulator.standins.vllm.settings import Settings
from emulator.standins.vllm.start_times import INSPECTION, StartTimes, start_times
from tests.helpers.places import ROOT
from toolchain import boot_times

LOGS = ROOT / "tests" / "logs"
MEASURED = ROOT / "docs" / "measured" / "2xh200-vllm-0.26.0"
TRITON = {"moe_backend": "triton"}


def played(times: StartTimes) -> dict[Stage, float]:
    """Seconds by the stages of the log; those of the configuration are its first look alone."""
    by_stage = {
        Stage.STARTING: times.imports + times.banner,
        Stage.ENGINE: times.engine,
        Stage.WORKERS: times.workers,
        Stage.NCCL: times.nccl,
        Stage.LOAD: times.build,
        Stage.PROFILE: times.encoder + times.dynamo,
        Stage.COMPILE: times.compile,
        Stage.KV: times.memory,
        Stage.TUNING: times.tuning,
        Stage.GRAPHS: times.graphs,
        Stage.SERVER: times.server,
    }
    return {stage: seconds for stage, seconds in by_stage.items() if seconds}


@pytest.mark.parametrize(
    ("log", "given", "compiled", "within"),
    [
        (LOGS / "gpu_2xh200_0.26_recipe.log", {}, False, 1.0),
        # Other machines took longer to import, and for what waits for their disks and CPUs.
        (LOGS / "gpu_2xh200_0.26_recipe_second_machine.log", {}, False, 8.0),
        (LOGS / "gpu_2xh200_0.26_moe_triton.log", TRITON, False, 3.0),
        (LOGS / "gpu_2xh200_0.26_gate_tls_eager.log", {"enforce_eager": True}, False, 9.0),
        (MEASURED / "latency-a" / "vllm.log", TRITON, False, 10.0),
        (MEASURED / "recipe-b-warm" / "vllm.log", {}, True, 8.0),
    ],
    ids=["recipe", "second machine", "triton", "eager", "latency", "warm"],
)
def test_each_phase_takes_what_was_measured(
    log: Path, given: dict[str, Any], within: float, *, compiled: bool
) -> None:
    if log.parent.name == "latency-a":
        given = {**given, "compilation_config": {"cudagraph_capture_sizes": [512, 8192]}}
    asked = Settings(model="m", served_names=("m",), tensor_parallel_size=2, **given)
    ours = played(start_times(asked, compiled=compiled))
    read = boot_times.read(log)
    real = boot_times.seconds(read)
    for stage, seconds in ours.items():
        assert seconds == pytest.approx(real[stage], abs=within), (
            stage,
            boot_times.table({"": read}),
        )
    assert all(real[stage] <= 2 for stage in real.keys() - ours.keys() - {Stage.CONFIG})


def test_the_engines_beside_each_other_take_what_was_measured() -> None:
    asked = Settings(model="m", served_names=("m",), data_parallel_size=2)
    times = start_times(asked, compiled=False)
    ours = played(times)
    real = boot_times.seconds(boot_times.read(LOGS / "gpu_2xh200_0.26_dp2_ep_killed.log"))
    for stage in real.keys() - {Stage.STARTING, Stage.CONFIG}:
        assert ours[stage] == pytest.approx(real[stage], abs=1.0), stage
    # It was killed while it captured graphs: those seconds are of another run.
    finished = boot_times.seconds(boot_times.read(MEASURED / "dp2-ep-b" / "vllm.log"))
    assert times.graphs == pytest.approx(finished[Stage.GRAPHS], abs=1.0)
    assert 240 <= sum(ours.values()) <= 330


def test_a_whole_start_takes_what_was_measured() -> None:
    recipe = Settings(model="m", served_names=("m",), tensor_parallel_size=2)
    assert sum(played(start_times(recipe, compiled=False)).values()) == pytest.approx(178.8, abs=1)
    first = boot_times.seconds(boot_times.read(LOGS / "gpu_2xh200_0.26_gate_tls_eager.log"))
    assert first[Stage.CONFIG] == INSPECTION


def test_one_gpu_has_no_ranks_to_connect() -> None:
    alone = start_times(Settings(model="m", served_names=("m",)), compiled=False)
    assert (alone.workers, alone.nccl) == (0.0, 0.0)
