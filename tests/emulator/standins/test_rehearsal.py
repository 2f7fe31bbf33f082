"""`vllm serve --load-format dummy`, as a host rehearses its start while the weights come."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from components.vllm.readiness.log_parser import BootLog, Stage
from emulator.standins import gpus, rehearsal
from emulator.standins.download import fetch
from emulator.standins.hub import look_up
from emulator.standins.hub_cache import RepositoryCache, cache_root
from emulator.standins.vllm import memory
from emulator.standins.vllm.compile_cache import CompileCache
from emulator.standins.vllm.errors import StartError
from emulator.standins.vllm.settings import Settings
from tests.emulator.standins.support import (
    MISTRAL,
    QWEN,
    Container,
    free_port,
    host_with,
    serving,
    until,
)
from tests.helpers.fakes import VirtualClock
from tests.helpers.processes import ignores

DUMMY = ("--load-format", "dummy", "--tensor-parallel-size", "2", "--enforce-eager")
EAGER = DUMMY[2:]
CONTEXT_MIB = 1987
"""What CUDA's own context takes: 139.80 GiB less the 137.86 that were free."""


def used(container: Container) -> list[int]:
    """MiB of each GPU, as nvidia-smi shows them."""
    asked = ("--query-gpu=memory.used", "--format=csv,noheader,nounits")
    return [int(line) for line in container.run("nvidia-smi", *asked).stdout.split()]


def half_fetched(container: Container) -> None:
    """The Hub's cache holds the small files alone."""
    got = container.run("hf", "download", MISTRAL, "--include", "*.json", "-q")
    assert got.returncode == 0, got.stderr


def test_it_needs_the_small_files_alone_and_no_hub(tmp_path: Path) -> None:
    container = Container(tmp_path)
    half_fetched(container)
    fetched = container.traffic

    options = ("--load-format", "dummy", "--tensor-parallel-size", "2")
    with serving(container, *options, HF_HUB_OFFLINE="1"):
        log = BootLog()
        log.feed(container.printed())

    assert log.stage is Stage.SERVING
    assert log.facts.load_gib == pytest.approx(56.69)
    assert "Loading safetensors" not in container.printed()
    assert "Loading weights took" not in container.printed()
    assert container.traffic == fetched
    assert used(container) == [gpus.IDLE_MIB] * 2


def test_its_draft_head_is_not_fetched_either(tmp_path: Path) -> None:
    container = Container(tmp_path)
    draft = f'{{"method": "eagle", "model": "{MISTRAL}-eagle", "num_speculative_tokens": 3}}'
    with serving(container, *DUMMY, "--speculative-config", draft):
        pass
    assert list(container.home.rglob("*.safetensors")) == []


@pytest.mark.parametrize("dummy_first", [True, False])
def test_it_leaves_nothing_to_a_start_with_weights_nor_finds_anything(
    tmp_path: Path, *, dummy_first: bool
) -> None:
    host = host_with(tmp_path)
    real = Settings(model="m", served_names=("m",), tensor_parallel_size=2)
    dummy = Settings(model="m", served_names=("m",), tensor_parallel_size=2, load_format="dummy")
    caches = [
        CompileCache(host, settings, {"HOME": str(tmp_path)})
        for settings in ((dummy, real) if dummy_first else (real, dummy))
    ]
    caches[0].fill()
    assert [cache.warm for cache in caches] == [True, False]


def test_its_memory_shows_from_its_first_use_of_a_gpu_to_its_end(tmp_path: Path) -> None:
    container = Container(tmp_path, {"faults": {"nccl_hang": {}}})
    port = str(free_port(container.address))
    words = ("vllm", "serve", MISTRAL, "--port", port, *DUMMY)
    with container.started(*words) as process:
        until(lambda: used(container)[0] > gpus.IDLE_MIB, what="its memory")
        assert used(container) == [pytest.approx(CONTEXT_MIB + gpus.IDLE_MIB, abs=2)] * 2
        assert rehearsal.course(host_with(tmp_path, **container.facts)) == "on the GPUs"
        process.send_signal(signal.SIGKILL)
        process.wait(5)
        assert used(container) == [gpus.IDLE_MIB] * 2
        assert rehearsal.course(host_with(tmp_path, **container.facts)) == "ended"


def test_a_start_beside_it_finds_the_gpus_in_use(tmp_path: Path) -> None:
    container = Container(tmp_path)
    with serving(container, *DUMMY):
        port = str(free_port(container.address))
        second = container.run("vllm", "serve", MISTRAL, "--port", port, *EAGER)
    assert second.returncode == 1
    assert "is less than desired GPU memory utilization" in second.stdout


def test_what_others_take_or_give_back_meanwhile_ends_a_start() -> None:
    memory.check_weights(139.8, 56.69, 12.0)
    memory.check_held(139.8, 128.4, 11.0)
    memory.check_others(139.8, 2.0, 2.0)
    with pytest.raises(StartError, match="CUDA out of memory"):
        memory.check_weights(139.8, 56.69, 90.0)
    with pytest.raises(StartError, match=r"total capacity of 139\.80 GiB of which 0\.19 GiB"):
        memory.check_held(139.8, 128.4, 12.0)
    with pytest.raises(StartError, match=r"Initial free memory 47\.86 GiB, current free memory 13"):
        memory.check_others(139.8, 90.0, 2.0)


@pytest.mark.parametrize("asked", ["127.0.0.1", "localhost", "::1", "0.0.0.0", None])
def test_loopback_is_its_containers_own(asked: str | None, tmp_path: Path) -> None:
    host = host_with(tmp_path)
    assert host.bind_address(asked) == host.address
    assert host.bind_address("192.0.2.1") == "192.0.2.1"


# ------------------------------------------------------------------ what goes wrong with it


@pytest.mark.parametrize(
    ("fault", "params", "status", "said"),
    [
        ("bad_flag", {}, 2, "error: unrecognized arguments: --tensor-parallel-size"),
        ("class_missing", {}, 1, "Model architectures ['PixtralForConditionalGeneration'] are not"),
        ("cuda_dead", {"late": True}, 1, "Unexpected error from cudaGetDeviceCount()"),
        ("engine_oom", {}, 1, "torch.OutOfMemoryError: CUDA out of memory"),
        ("kv_too_small", {}, 1, "is larger than the available KV cache memory"),
    ],
)
def test_it_fails_as_a_start_with_weights_does(
    fault: str, params: dict[str, Any], status: int, said: str, tmp_path: Path
) -> None:
    container = Container(tmp_path, {"faults": {fault: params}})
    words = ("--port", str(free_port(container.address)), *EAGER)
    results = [
        container.run("vllm", "serve", MISTRAL, *words, *format_)
        for format_ in ((), ("--load-format", "dummy"))
    ]
    for result in results:
        assert result.returncode == status
        assert said in result.stdout + result.stderr


def test_the_loaders_death_is_met_where_something_is_loaded(tmp_path: Path) -> None:
    container = Container(tmp_path, {"faults": {"crash_loop": {}}})
    with serving(container, *DUMMY):
        pass
    words = ("--port", str(free_port(container.address)), *EAGER)
    result = container.run("vllm", "serve", MISTRAL, *words)
    assert "died unexpectedly (exit code: -9)" in result.stdout


@pytest.mark.parametrize("at", ["nccl", "load", "profile"])
def test_it_can_hang_without_a_word_and_does_not_hear_sigterm(at: str, tmp_path: Path) -> None:
    container = Container(tmp_path, {"faults": {"rehearsal_hang": {"at": at}}})
    words = ("vllm", "serve", MISTRAL, "--port", str(free_port(container.address)), *DUMMY)
    reached = {"nccl": "backend=nccl", "load": "Starting to load", "profile": "Encoder cache"}
    with container.started(*words) as process:
        until(lambda: ignores(process.pid, signal.SIGTERM), what="its hang")
        assert reached[at] in container.printed()
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)


def test_it_can_flood_its_log(tmp_path: Path) -> None:
    container = Container(tmp_path, {"faults": {"rehearsal_flood": {"mb_s": 50}}})
    words = ("vllm", "serve", MISTRAL, "--port", str(free_port(container.address)), *DUMMY)
    with container.started(*words) as process:
        log = container.directory / "printed.log"
        until(lambda: log.stat().st_size > 2_000_000, what="a flood")
        assert process.poll() is None


@pytest.mark.parametrize("holds", [True, False])
def test_it_can_leave_a_process_of_another_session(tmp_path: Path, *, holds: bool) -> None:
    container = Container(tmp_path, {"faults": {"rehearsal_leaves": {"memory": holds}}})
    with serving(container, *DUMMY) as server:
        (left,) = psutil.Process(server.process.pid).children()
        session = os.getsid(left.pid)
    try:
        assert session == left.pid
        assert left.status() != psutil.STATUS_ZOMBIE
        weights = round(56.69 * 1024) if holds else 0
        assert used(container) == [pytest.approx(weights + gpus.IDLE_MIB, abs=10)] * 2
    finally:
        left.kill()
    until(lambda: used(container) == [gpus.IDLE_MIB] * 2, what="its memory")


def test_its_memory_can_stay_taken_for_a_while_and_belongs_to_nobody(tmp_path: Path) -> None:
    container = Container(tmp_path, {"faults": {"rehearsal_keeps_memory": {"seconds": 3600}}})
    with serving(container, *DUMMY):
        pass
    assert used(container)[0] > 100_000
    apps = container.run("nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader")
    assert apps.stdout == ""
    (seen,) = (container.directory / "gpu").glob("*.lost")
    os.utime(seen, (0, 0))
    assert used(container) == [gpus.IDLE_MIB] * 2


# ------------------------------------------------------------------ the download beside it


@pytest.mark.parametrize(
    ("until_", "course", "mbps"),
    [
        ("rehearsing", "none", 100),
        ("rehearsing", "begun", 100),
        ("rehearsing", "on the GPUs", 1000),
        ("rehearsed", "on the GPUs", 100),
        ("rehearsed", "ended", 1000),
    ],
)
def test_weights_can_crawl_until_a_rehearsal_is_there_or_over(
    until_: str, course: str, mbps: int, tmp_path: Path
) -> None:
    slow = {"download_slow": {"mbps": 100, "until": until_}}
    # At each rate it takes as long in real time, which is what it costs here.
    speed = 1000.0 / mbps
    host = host_with(tmp_path, speed=speed, inet_down_mbps=1000.0, faults=slow)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        if course != "none":
            rehearsal.note(host, process.pid)
        if course == "on the GPUs":
            gpus.Claim(host, process.pid, "x").hold([0], 100)
        if course == "ended":
            process.kill()
            process.wait()
        assert rehearsal.course(host) == course
        clock = VirtualClock()
        repository = look_up(QWEN, "main")
        store = RepositoryCache(cache_root({"HOME": str(host.root)}), repository)
        store.prepare("main")
        (one,) = repository.matching(("*.safetensors",))
        fetch(host, store, [one], clock=clock, report=lambda _: None)
        process.kill()
    assert clock.passed * speed == pytest.approx(one.size * 8 / (mbps * 1e6), rel=0.02)
