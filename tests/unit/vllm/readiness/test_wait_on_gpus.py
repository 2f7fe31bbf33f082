"""The wait for starts as they were measured on 2x H200, line by line in virtual time."""

from __future__ import annotations

import re

import pytest

from components.vllm.profile import load_profile
from components.vllm.readiness.plan import (
    SEVERAL_ENGINES_SECONDS,
    least_start_seconds,
    short_deadline_warning,
)
from tests.helpers.places import ROOT
from tests.helpers.readiness_scene import COMMIT, MODEL, RUNNING, Scene

LOGS = ROOT / "tests/logs"
MODELS = ROOT / "models"
STAMP = re.compile(r"11-28[ T](\d\d):(\d\d):(\d\d)")
CUT_OFF = [
    (
        243,
        "(Worker_DP0_EP0 pid=1) INFO 11-28 04:45:35 [a.py:1] Graph capturing finished in 32 secs",
    ),
    (245, "(EngineCore_DP0 pid=1) INFO 11-28 04:45:37 [a.py:1] init engine (profile) took 91.35 s"),
    (245, "(EngineCore_DP1 pid=1) INFO 11-28 04:45:37 [a.py:1] init engine (profile) took 91.39 s"),
    (249, "(ApiServer_0 pid=1) INFO:     Application startup complete."),
]
"""How two engines go on from graphs to requests, in the time that another run of them took."""


def events(name: str) -> list[tuple[float, str]]:
    """Each line of a log, with its seconds after the start; one without a time has the last."""
    lines: list[tuple[float, str]] = []
    begun = now = 0.0
    for line in (LOGS / f"gpu_2xh200_0.26_{name}.log").read_bytes().decode().splitlines():
        found = STAMP.search(line)
        if found:
            hours, minutes, seconds = map(int, found.groups())
            now = hours * 3600.0 + minutes * 60 + seconds
            begun = begun or now
        lines.append((now - begun, f"{line}\n"))
    return lines


def starting(lines: list[tuple[float, str]], deadline: float) -> Scene:
    """A server whose weights are there, and whose log goes on like that."""
    scene = Scene()
    scene.change(download_bytes=0, deadline=deadline)
    scene.host.statuses = [(0, {**RUNNING, "phase": "serving", "resolved_revision": COMMIT})]
    up = max(at for at, line in lines if "Application startup complete" in line)
    scene.host.logs["vllm.log"] = [line for line in lines if line[0] <= up + 5]
    scene.endpoint.up_at = up
    return scene


@pytest.mark.parametrize(
    "name", ["recipe", "recipe_second_machine", "moe_triton", "gate_tls_eager"]
)
def test_a_start_as_measured_is_ready_when_it_serves(name: str) -> None:
    lines = events(name)
    scene = starting(lines, deadline=2700)
    report = scene.wait()
    assert scene.clock.passed == pytest.approx(scene.endpoint.up_at, abs=3)
    assert set(report.seconds) >= {"load", "compile", "server", "model", "completion"}


def test_two_engines_are_waited_for_with_the_time_that_they_were_given() -> None:
    lines = [*events("dp2_ep_killed"), *((at, f"{line}\n") for at, line in CUT_OFF)]
    scene = starting(lines, deadline=SEVERAL_ENGINES_SECONDS)
    scene.wait()
    assert scene.clock.passed == pytest.approx(249, abs=3)
    assert any("tuning kernels, 42 of 42" in line for line in scene.lines)


def test_a_standstill_behind_the_shared_memory_notice_is_not_blamed_on_the_gpus_links() -> None:
    lines = [line for line in events("dp2_ep_killed") if line[0] <= 176]
    assert "No available shared memory broadcast block" in "".join(line for _, line in lines)
    scene = starting([*lines, (2000, "Application startup complete\n")], deadline=1000)
    failure = scene.fails()
    assert failure.cause == "no_progress"
    assert "NCCL_P2P_DISABLE" not in str(failure)
    assert MODEL in str(failure)


def test_a_deadline_shorter_than_a_start_is_warned_of() -> None:
    recipe = load_profile("mistral-small-4-fp8-2xh200", MODELS)
    engines = load_profile("mistral-small-4-fp8-2xh200-throughput", MODELS)
    alone = load_profile("qwen2.5-0.5b-1x4090", MODELS)
    assert [least_start_seconds(one) for one in (recipe, engines, alone)] == [190.0, 330.0, None]
    assert (
        short_deadline_warning(recipe, 45)
        is short_deadline_warning(recipe, 4)
        is short_deadline_warning(alone, 1)
        is None
    )
    assert "readyMinutes is 3, and" in (short_deadline_warning(recipe, 3) or "")
    assert "5 min 30 s" in (short_deadline_warning(engines, 5) or "")
