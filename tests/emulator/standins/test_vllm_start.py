"""How `vllm serve` starts: its phases, its lines, and everything that may go wrong."""

from __future__ import annotations

import errno
import json
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from components.vllm.profile import load_profile
from components.vllm.readiness.log_parser import BootLog, Stage
from tests.emulator.standins.support import (
    MISTRAL,
    QWEN,
    Container,
    free_port,
    serving,
    until,
)
from tests.helpers.places import ROOT

RECIPE = (
    "--tensor-parallel-size", "2", "--max-model-len", "131072",
    "--gpu-memory-utilization", "0.9", "--attention-backend", "FLASH_ATTN_MLA",
    "--tool-call-parser", "mistral", "--enable-auto-tool-choice",
    "--reasoning-parser", "mistral", "--api-key", "key-that-must-not-be-seen",
)  # fmt: skip
NONE: dict[str, Any] = {}
MODELS = ROOT / "models"


def test_the_recipe_starts_through_all_phases(tmp_path: Path) -> None:
    container = Container(tmp_path, alone=True)

    with serving(container, *RECIPE) as server, server.client() as client:
        used = container.run("nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader")
        health = client.get("/health")

    log = container.printed()
    phases = [
        "version 0.33.0",
        "non-default args: {",
        "Resolved architecture: PixtralForConditionalGeneration",
        "Using max model len 131072",
        "Initializing a V1 LLM engine (v0.33.0) with config:",
        "vLLM is using nccl==",
        "rank 1 in world size 2 is assigned",
        f"Starting to load model {MISTRAL}...",
        "Using AttentionBackendEnum.FLASH_ATTN_MLA backend.",
        "Time spent downloading weights for",
        "Loading weights took",
        "Model loading took 56.69 GiB memory",
        "Encoder cache will be initialized with a budget of 8192 tokens",
        "Dynamo bytecode transform time",
        "torch.compile took 38.60 s in total",
        "Profiling CUDA graph memory: PIECEWISE=51 (largest=512), FULL=51 (largest=512)",
        "Available KV cache memory: 66.",
        "Maximum concurrency for 131,072 tokens per request: 23.5",
        "[Autotuner]: Autotuning process starts",
        "[AutoTuner]: Tuning trtllm::fused_moe::gemm2:",
        "[Autotuner]: Autotuning process ends",
        "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):",
        "Capturing CUDA graphs (decode, FULL):",
        "Graph capturing finished in 27 secs, took 1.44 GiB",
        "init engine (profile, create kv cache, warmup model) took",
        "Starting vLLM server on http://0.0.0.0:",
        "Route: /v1/chat/completions, Methods: POST",
    ]
    places = [log.find(phase) for phase in phases]
    assert -1 not in places, phases[places.index(-1)]
    assert places == sorted(places)
    assert "shards: 100% Completed | 25/25" in log
    assert (health.status_code, health.content) == (200, b"")
    assert used.stdout.split() == ["131435", "MiB"] * 2
    assert "'api_key': '***'" in log
    assert "key-that-must-not-be-seen" not in log
    assert container.traffic > 120_923_000_000


def test_the_stacks_own_reader_understands_the_log(tmp_path: Path) -> None:
    container = Container(tmp_path)
    with serving(container, *RECIPE, VLLM_DISABLE_LOG_LOGO="1"):
        log = BootLog()
        log.feed(container.printed())

    assert log.stage is Stage.SERVING
    assert log.fatal is None
    assert log.facts.kv_cache_tokens == pytest.approx(3_080_208, rel=0.005)
    assert log.facts.load_gib == pytest.approx(56.69)
    assert log.facts.kv_cache_gib == pytest.approx(66.09, rel=0.005)
    assert list(log.reached) == list(Stage)[1:]


def test_two_engines_log_as_they_were_measured(tmp_path: Path) -> None:
    container = Container(tmp_path)
    engines = ("--tensor-parallel-size", "1", "--data-parallel-size", "2")
    with serving(container, *RECIPE[2:], *engines, "--enable-expert-parallel"):
        printed = container.printed()

    log = BootLog()
    log.feed(printed)
    assert log.stage is Stage.SERVING
    assert log.runs == 1
    assert log.facts.load_gib == pytest.approx(58.89, rel=0.005)
    assert log.facts.kv_cache_gib == pytest.approx(62.05, rel=0.005)
    assert log.facts.kv_cache_tokens == pytest.approx(2 * 2_891_584, rel=0.005)
    assert sorted(log.facts.tokens_by_engine) == ["EngineCore_DP0", "EngineCore_DP1"]
    for line in (
        "Started 2 API server processes",
        "(Worker_DP0_EP0 pid=",
        "(Worker_DP1_EP1 pid=",
        "(ApiServer_0 pid=",
        "EP rank 1, EPLB rank N/A",
        "No available shared memory broadcast block found in 60 seconds",
    ):
        assert line in printed


def test_the_throughput_profile_logs_and_ends_as_it_was_measured(tmp_path: Path) -> None:
    container = Container(tmp_path)
    flags = load_profile("mistral-small-4-fp8-2xh200-throughput", MODELS).flags
    options: tuple[str, ...] = ("--tensor-parallel-size", "1", "--data-parallel-size", "2")
    options += ("--api-server-count", "1", "--enable-expert-parallel", "--load-format", "dummy")
    options += ("--compilation-config", json.dumps(flags["compilation-config"]))
    own = {"VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS": "0"}
    with serving(container, *RECIPE[2:], *options, **own):
        printed = container.printed()

    log = BootLog()
    log.feed(printed)
    assert log.stage is Stage.SERVING
    assert log.facts.kv_cache_gib == pytest.approx(64.68, rel=0.005)
    assert log.facts.kv_cache_tokens == pytest.approx(2 * 3_014_192, rel=0.005)
    assert "Started DP Coordinator process" in printed
    assert "API server processes" not in printed
    assert "(APIServer pid=" in printed


def test_the_latency_profile_s_graphs_take_the_room_that_was_measured(tmp_path: Path) -> None:
    container = Container(tmp_path)
    flags = load_profile("mistral-small-4-fp8-2xh200-latency", MODELS).flags
    graphs = json.dumps(flags["compilation-config"])
    options = ("--moe-backend", "triton", "--compilation-config", graphs)
    with serving(container, *RECIPE, *options, "--load-format", "dummy"):
        log = BootLog()
        log.feed(container.printed())

    assert log.facts.kv_cache_gib == pytest.approx(39.63, rel=0.005)
    assert log.facts.kv_cache_tokens == pytest.approx(1_847_008, rel=0.005)
    assert "PIECEWISE=77 (largest=8192), FULL=57 (largest=1024)" in container.printed()


def test_a_second_start_fetches_and_compiles_nothing(tmp_path: Path) -> None:
    container = Container(tmp_path)
    cache = {"VLLM_CACHE_ROOT": str(container.home / "compiled")}
    with serving(container, *RECIPE, **cache):
        first = container.traffic

    with serving(container, *RECIPE, **cache):
        log = container.printed()

    assert container.traffic == first
    # From the host's memory: it has more than the weights take.
    assert "Loading weights took 24.18 seconds" in log
    assert "Directly load the compiled graph(s)" in log
    assert "torch.compile took 5.20 s in total" in log
    assert "Time spent downloading" not in log


def test_weights_that_do_not_fit_the_hosts_memory_are_read_from_its_disk_again(
    tmp_path: Path,
) -> None:
    container = Container(tmp_path, {"cpu_ram_mb": 100_000})
    with serving(container, *RECIPE):
        pass

    with serving(container, *RECIPE):
        log = container.printed()

    assert "Loading weights took 89.97 seconds" in log


def test_an_eager_server_compiles_nothing_and_a_dummy_one_fetches_no_weights(
    tmp_path: Path,
) -> None:
    container = Container(tmp_path)

    with serving(container, *RECIPE, "--enforce-eager", "--load-format", "dummy"):
        log = container.printed()

    assert "torch.compile" not in log.replace("disabling torch.compile", "")
    assert "Capturing CUDA graphs" not in log
    assert "Model loading took 56.69 GiB" in log
    assert "No available shared memory broadcast block" not in log
    assert container.traffic < 1_000_000


def test_the_draft_head_is_fetched_and_takes_its_cache(tmp_path: Path) -> None:
    container = Container(tmp_path)
    draft = f'{{"method": "eagle", "model": "{MISTRAL}-eagle", "num_speculative_tokens": 3}}'

    with serving(container, *RECIPE, "--speculative-config", draft):
        log = container.printed()

    # Two layers more: 24,320 bytes a token instead of 23,040.
    assert "Maximum concurrency for 131,072 tokens per request: 22." in log
    assert len(list(container.home.rglob("models--*-eagle/snapshots/*/*.safetensors"))) == 1


def test_a_folder_is_served_as_it_is(tmp_path: Path) -> None:
    container = Container(tmp_path, {"num_gpus": 1})
    folder = container.home / "model"
    fetched = container.run("hf", "download", QWEN, "--local-dir", str(folder), "-q")
    assert fetched.returncode == 0
    before = container.traffic

    with serving(container, model=str(folder)) as server, server.client() as client:
        model = client.get("/v1/models").json()["data"][0]

    assert (model["id"], model["root"]) == (str(folder), str(folder))
    assert container.traffic == before


def test_the_version_needs_no_start(tmp_path: Path) -> None:
    result = Container(tmp_path).run("vllm", "--version")

    assert (result.returncode, result.stdout) == (0, "0.33.0\n")


def test_the_port_is_bound_early_and_refuses_until_the_server_listens(tmp_path: Path) -> None:
    container = Container(tmp_path, {"faults": {"nccl_hang": {}}})
    port = free_port(container.address)

    with container.started("vllm", "serve", MISTRAL, "--port", str(port), *RECIPE) as process:
        until(lambda: "No available shared memory broadcast block" in container.printed(),
              what="the hang")  # fmt: skip
        assert process.poll() is None
        with socket.socket() as client:
            refused = client.connect_ex((container.address, port))
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == -signal.SIGTERM

    assert refused == errno.ECONNREFUSED
    assert "rank 1 in world size 2" not in container.printed()


@pytest.mark.parametrize(
    ("options", "facts", "status", "said"),
    [
        (["--swap-space", "4"], NONE, 2, "error: unrecognized arguments: --swap-space 4"),
        (
            ["--enable-auto-tool-choice"],
            NONE,
            1,
            "TypeError: Error: --enable-auto-tool-choice requires --tool-call-parser",
        ),
        (
            ["--enable-auto-tool-choice", "--tool-call-parser", "x"],
            NONE,
            1,
            "invalid tool call parser: x (chose from",
        ),
        (["--reasoning-parser", "x"], NONE, 1, "Reasoning parser 'x' not found."),
        (["--attention-backend", "x"], NONE, 1, "Unknown attention backend: 'X'."),
        (
            ["--max-model-len", "2M"],
            NONE,
            1,
            "User-specified max_model_len (2097152) is greater than the derived max_model_len",
        ),
        (["-tp", "3"], {"num_gpus": 4}, 1, "must be divisible by tensor parallel size"),
        (["-tp", "1", "-dp", "4"], NONE, 1, "AssertionError: DP adjusted local rank 2 is out of"),
        (["-tp", "4"], NONE, 1, "World size (4) is larger than the number of available GPUs (2)"),
        (
            ["-tp", "2"],
            {"faults": {"gpu_missing": {"count": 1}}},
            1,
            "World size (2) is larger than the number of available GPUs (1)",
        ),
        (["--gpu-memory-utilization", "90"], NONE, 1, "Input should be less than or equal to 1"),
        (
            ["-tp", "2", "--attention-backend", "FLASH_ATTN_MLA"],
            {"gpu_name": "B200", "gpu_ram_mib": 183359},
            1,
            "Selected backend AttentionBackendEnum.FLASH_ATTN_MLA is not valid",
        ),
        (
            ["-tp", "2", "--max-model-len", "1M"],
            {"gpu_name": "H100 SXM", "gpu_ram_mib": 81559},
            1,
            "is larger than the available KV cache memory",
        ),
        ([], {"gpu_name": "L40S", "gpu_ram_mib": 46068}, 1, "CUDA out of memory"),
        (["-tp", "2"], {"gpu_name": "L40S", "gpu_ram_mib": 64000}, 1, "No available memory for"),
        (["-tp", "2"], {"faults": {"driver_old": {}}}, 1, "(found version 12040)"),
        (
            ["-tp", "2"],
            {"faults": {"cuda_dead": {"late": True}}},
            1,
            "NumCudaDevices() that might have already set an error? Error 802: system not yet",
        ),
        (
            ["-tp", "2"],
            {"faults": {"gpu_wrong": {}}},
            1,
            "Free memory on device cuda:0 (97.86/139.8 GiB) on startup is less than desired",
        ),
        (["-tp", "2"], {"disk_gb": 80.0}, 1, "No space left on device"),
        (["-tp", "2"], {"faults": {"engine_oom": {}}}, 1, "torch.OutOfMemoryError: CUDA out of"),
        (
            ["-tp", "2", "--max-model-len", "131072"],
            {"faults": {"kv_too_small": {}}},
            1,
            "available KV cache memory (1.12 GiB). Based on the available memory, the estimated",
        ),
        (["-tp", "2"], {"faults": {"crash_loop": {}}}, 1, "died unexpectedly (exit code: -9)"),
        (
            ["--max-num-seqs", "8"],
            {"faults": {"bad_flag": {}}},
            2,
            "vllm: error: unrecognized arguments: --enforce-eager",
        ),
        (
            [],
            {"faults": {"bad_flag": {"flag": "--reasoning-effort-map"}}},
            2,
            "vllm: error: unrecognized arguments: --reasoning-effort-map",
        ),
        ([], {"faults": {"gated_model": {}}}, 1, "Cannot access gated repo for url"),
        (
            ["--chat-template", "examples/own.jinja"],
            NONE,
            1,
            "The supplied chat template string (examples/own.jinja) appears path-like, but doesn't",
        ),
        (["--limit-mm-per-prompt", "image=4"], NONE, 2, "Value image=4 cannot be converted to"),
        (["--middleware", "no_such.Module"], NONE, 1, "ModuleNotFoundError: No module named"),
        (["--middleware", "os.path"], NONE, 1, "Invalid middleware os.path."),
    ],
)  # fmt: skip
def test_a_start_fails_as_the_real_one(
    options: list[str], facts: dict[str, Any], status: int, said: str, tmp_path: Path
) -> None:
    container = Container(tmp_path, facts)
    loads = "disk_gb" in facts or "crash_loop" in facts.get("faults", {})
    quick = ["--enforce-eager", *([] if loads else ["--load-format", "dummy"])]
    model = QWEN if "--middleware" in options else MISTRAL
    words = ["serve", model, "--port", str(free_port(container.address)), *quick, *options]

    result = container.run("vllm", *words)

    assert result.returncode == status, result.stdout + result.stderr
    assert said in result.stdout + result.stderr
    assert "Application startup complete" not in result.stderr


def test_a_failure_in_a_worker_has_the_generic_tail(tmp_path: Path) -> None:
    container = Container(tmp_path, {"faults": {"engine_oom": {}}})

    result = container.run("vllm", "serve", QWEN, "-tp", "2", "--port", "0")

    assert "(Worker_TP0 pid=" in result.stdout
    assert "WorkerProc failed to start." in result.stdout
    assert "EngineCore failed to start." in result.stdout
    assert "WorkerProc initialization failed due to an exception" in result.stdout
    assert result.stderr.splitlines()[-1] == (
        "RuntimeError: Engine core initialization failed. See root cause above. "
        "Failed core proc(s): {}"
    )


@pytest.mark.parametrize(
    ("model", "environment", "said"),
    [
        ("no/such", {}, "Repository Not Found for url"),
        (
            "no/such",
            {},
            "ValueError: Invalid repository ID or local directory specified: 'no/such'",
        ),
        ("meta-llama/Llama-3.2-1B-Instruct", {}, "You are trying to access a gated repo."),
        (QWEN, {"HF_HUB_OFFLINE": "1"}, "LocalEntryNotFoundError"),
    ],
)
def test_a_model_that_cannot_be_had(
    model: str, environment: dict[str, str], said: str, tmp_path: Path
) -> None:
    result = Container(tmp_path).run("vllm", "serve", model, "--port", "0", **environment)

    assert result.returncode == 1
    assert said in result.stderr


def test_a_port_that_somebody_listens_on_is_refused(tmp_path: Path) -> None:
    container = Container(tmp_path)
    with serving(container, "--enforce-eager", model=QWEN) as server:
        port = server.url.rpartition(":")[2]
        second = container.run("vllm", "serve", QWEN, "--port", port)

    assert second.returncode == 1
    assert "OSError: [Errno 98] Address already in use" in second.stderr


def test_a_second_server_finds_the_gpu_in_use(tmp_path: Path) -> None:
    container = Container(tmp_path)
    with serving(container, "--enforce-eager", model=QWEN):
        second = container.run("vllm", "serve", QWEN, "--port", "0")

    assert second.returncode == 1
    assert "is less than desired GPU memory utilization" in second.stdout
