from __future__ import annotations

import pytest

from components.vllm.readiness.log_parser import BootLog, Stage
from tests.helpers.places import ROOT

LOGS = ROOT / "tests/logs"
HEALTHY = ["startup_cpu_0.32.log", "drain_cpu_0.32.log", "middleware_tls_cpu_0.32.log"]

API = "(APIServer pid=11) INFO 11-23 09:00:00 [x.py:1] "
ENGINE = "(EngineCore pid=12) INFO 11-23 09:00:10 [x.py:1] "
RANK0 = "(Worker_TP0 pid=13) INFO 11-23 09:00:20 [x.py:1] "
RANK1 = "(Worker_TP1 pid=14) INFO 11-23 09:00:21 [x.py:1] "
FAILED = "(EngineCore pid=12) ERROR 11-23 09:03:00 [core.py:1584] "
MARKER = "== supervise.sh: server start 2026-11-23T09:00:00Z\n"

GPU_BOOT: list[tuple[str, Stage, str]] = [
    (MARKER, Stage.STARTING, "starting vLLM"),
    (
        API + "vLLM server version 0.33.0, serving model mistralai/M",
        Stage.CONFIG,
        "starting vLLM 0.33.0",
    ),
    (API + "non-default args: {'port': 8000}", Stage.CONFIG, "starting vLLM 0.33.0"),
    (
        API + "Resolved architecture: PixtralForConditionalGeneration",
        Stage.CONFIG,
        "reading the configuration (PixtralForConditionalGeneration)",
    ),
    (API + "Using max model len 131072", Stage.ENGINE, "configured for 131072 tokens of context"),
    (
        ENGINE + "Initializing a V1 LLM engine (v0.33.0) with config: model='m'",
        Stage.WORKERS,
        "starting the engine",
    ),
    (RANK0 + "vLLM is using nccl==2.28.9", Stage.NCCL, "connecting the workers"),
    (RANK1 + "Starting to load model mistralai/M...", Stage.LOAD, "building the model"),
    (
        RANK0 + "Time spent downloading weights for mistralai/M: 193.420000 seconds",
        Stage.LOAD,
        "weights downloaded in 193 s",
    ),
    (
        RANK0 + "Using FLASH_ATTN_MLA attention backend out of potential backends: [X]",
        Stage.LOAD,
        "weights downloaded in 193 s",
    ),
    (
        (
            "(Worker_TP0 pid=13) \rLoading safetensors checkpoint shards:   0% Completed | 0/9 "
            "[00:00<?, ?it/s]\n"
        ),
        Stage.SHARDS,
        "loading shards 0 of 9 (0%)",
    ),
    (
        (
            "\x1b[1;36m(Worker_TP0 pid=13)\x1b[0;0m \rLoading safetensors checkpoint shards:  56% "
            "Completed | 5/9 [00:41<00:33,  8.3s/it]\n"
        ),
        Stage.SHARDS,
        "loading shards 5 of 9 (56%)",
    ),
    (RANK0 + "Loading weights took 93.41 seconds", Stage.SHARDS, "weights read in 93 s"),
    (
        RANK0 + "Model loading took 56.61 GiB memory and 95.210000 seconds",
        Stage.PROFILE,
        "model loaded, 56.6 GiB a GPU in 95 s",
    ),
    (
        RANK1 + "Model loading took 56.5 GiB memory and 97.910000 seconds",
        Stage.PROFILE,
        "model loaded, 56.6 GiB a GPU in 98 s",
    ),
    (
        RANK0 + "Encoder cache will be initialized with a budget of 8192 tokens, and profiled",
        Stage.PROFILE,
        "running the model once",
    ),
    (RANK0 + "Dynamo bytecode transform time: 9.12 s", Stage.COMPILE, "compiling"),
    (RANK1 + "Loading weights took 99.41 seconds", Stage.COMPILE, "compiling"),
    (
        RANK0 + "Compiling a graph for compile range (1, 16384) takes 31.20 s",
        Stage.COMPILE,
        "compiling",
    ),
    (
        RANK0 + "torch.compile took 44.31 s in total",
        Stage.KV,
        "compiled in 44 s, measuring memory",
    ),
    (
        RANK0 + "Profiling CUDA graph memory: PIECEWISE=67 (largest=512), FULL=35 (largest=256)",
        Stage.KV,
        "measuring what CUDA graphs take",
    ),
    (
        RANK0 + "Available KV cache memory: 63.21 GiB",
        Stage.KV,
        "laying out the KV cache, 63.2 GiB a GPU",
    ),
    (
        RANK1 + "Available KV cache memory: 62.9 GiB",
        Stage.KV,
        "laying out the KV cache, 62.9 GiB a GPU",
    ),
    (
        ENGINE + "GPU KV cache size: 2,945,903 tokens, Maximum concurrency for 131,072 tokens per "
        "request: 22.48x",
        Stage.KV,
        "KV cache for 2,945,903 tokens",
    ),
    (
        (
            "(Worker_TP0 pid=13) 2026-11-23 09:00:40,947 - INFO - autotuner.py:651 - "
            "flashinfer.jit: [Autotuner]: Autotuning process starts ..."
        ),
        Stage.TUNING,
        "tuning kernels",
    ),
    (
        "\r[AutoTuner]: Tuning trtllm::fused_moe::gemm1:   5%|5   | 1/21 [00:07<02:26,  7.33s]\r",
        Stage.TUNING,
        "tuning kernels, 1 of 21",
    ),
    (
        "\r[AutoTuner]: Tuning trtllm::fused_moe::gemm2:   5%|5   | 1/21 [00:07<02:26,  7.33s]\r",
        Stage.TUNING,
        "tuning kernels, 2 of 42",
    ),
    (
        (
            "(Worker_TP0 pid=13) 2026-11-23 09:01:04,519 - INFO - autotuner.py:674 - "
            "flashinfer.jit: [Autotuner]: Autotuning process ends"
        ),
        Stage.TUNING,
        "kernels are tuned",
    ),
    (
        "\rCapturing CUDA graphs (mixed prefill-decode, PIECEWISE):  52%|#####2    | 35/67\r",
        Stage.GRAPHS,
        "capturing CUDA graphs, 35 of 102",
    ),
    (
        "\rCapturing CUDA graphs (decode, FULL):   3%|#         | 1/35\r",
        Stage.GRAPHS,
        "capturing CUDA graphs, 36 of 102",
    ),
    (
        RANK0 + "Graph capturing finished in 21 secs, took 1.42 GiB",
        Stage.SERVER,
        "CUDA graphs captured in 21 s",
    ),
    (
        ENGINE + "init engine (profile, create kv cache, warmup model) took 112.30 s "
        "(compilation: 44.31 s)",
        Stage.SERVER,
        "starting the API server",
    ),
    (
        API + "Starting vLLM server on https://0.0.0.0:8000",
        Stage.SERVER,
        "starting the API server",
    ),
    ("INFO:     Application startup complete.", Stage.SERVING, "serving"),
]


def read(name: str) -> str:
    return (LOGS / name).read_text(encoding="utf-8")


def fed(*lines: str) -> BootLog:
    log = BootLog()
    for line in lines:
        log.feed(line if line.endswith(("\n", "\r")) else line + "\n")
    return log


def facts(log: BootLog) -> tuple[object, ...]:
    return (log.stage, log.progress, log.fatal, log.reached, log.facts, log.tail(1000))


def test_a_boot_on_two_gpus_line_by_line() -> None:
    log = BootLog()
    for line, stage, progress in GPU_BOOT:
        log.feed(line if line.endswith(("\n", "\r")) else line + "\n")
        assert (log.stage, log.progress) == (stage, progress)
        assert log.fatal is None


def test_what_a_boot_measures() -> None:
    log = fed(*(line for line, _, _ in GPU_BOOT))
    facts = log.facts
    assert facts.load_seconds == pytest.approx(97.91)
    assert facts.load_gib == pytest.approx(56.61)
    assert facts.kv_cache_gib == pytest.approx(62.9)
    assert facts.kv_cache_tokens == 2945903
    assert facts.concurrency == pytest.approx(22.48)
    assert facts.init_seconds == pytest.approx(112.3)
    assert list(log.reached) == list(Stage)
    assert log.reached[Stage.WORKERS] == 10.0
    # The bars and the HTTP server's lines have no time of their own.
    assert log.reached[Stage.GRAPHS] == 64.0
    assert log.reached[Stage.SERVING] is not None


def test_the_graphs_of_the_fullest_rank_and_the_slowest_capture_count() -> None:
    pool = "CUDA graph pool memory: {} GiB (actual), {} GiB (estimated), difference: 0.6 GiB (2%)."
    log = fed(
        RANK0 + "torch.compile took 29.83 s in total",
        RANK0 + "torch.compile took 30.1 s in total",
        "Capturing CUDA graphs (decode): 10%|# | 1/10 [00:01<00:09]",
        RANK0 + pool.format("2.89", "50.95"),
        "Capturing CUDA graphs (decode): 20%|# | 2/10 [00:01<00:09]",
    )
    assert (log.stage, log.progress) == (Stage.GRAPHS, "capturing CUDA graphs, 2 of 10")
    log.feed(f"{RANK0}Graph capturing finished in 32 secs, took 2.45 GiB\n")
    log.feed(f"{RANK0}Graph capturing finished in 29 secs, took 2.89 GiB\n")
    log.feed(f"{RANK0}{pool.format('2.45', '50.52')}\n")
    facts = log.facts
    assert (facts.compile_seconds, facts.graph_seconds) == (30.1, 32.0)
    assert (facts.graph_gib, facts.graph_estimate_gib) == (2.89, 50.95)


def test_older_wording_is_understood() -> None:
    log = fed(
        RANK0 + "Model loading took 56.61 GiB and 95.21 seconds",
        RANK0 + "torch.compile takes 44.31 s in total",
        ENGINE + "GPU KV cache size: 2,945,903 tokens",
        ENGINE + "Maximum concurrency for 131,072 tokens per request: 22.48x",
        ENGINE + "init engine (profile, create kv cache, warmup model) took 112.30 seconds",
    )
    assert log.facts.load_gib == pytest.approx(56.61)
    assert log.stage is Stage.SERVER
    assert log.facts.kv_cache_tokens == 2945903
    assert log.facts.concurrency == pytest.approx(22.48)
    assert log.facts.init_seconds == pytest.approx(112.3)


@pytest.mark.parametrize("name", HEALTHY)
def test_a_real_healthy_log_reaches_serving_and_nothing_in_it_is_fatal(name: str) -> None:
    log = BootLog()
    for line in read(name).splitlines(keepends=True):
        log.feed(line)
        assert log.fatal is None, line
    assert log.stage is Stage.SERVING
    assert log.facts.kv_cache_tokens == 466032
    assert log.runs == 1


def test_the_real_kv_too_small_log_gives_the_root_cause_above_the_generic_end() -> None:
    log = fed(read("kv_too_small.log"))
    assert "Engine core initialization failed" in "\n".join(log.tail(10))
    assert log.fatal is not None
    assert log.fatal.pattern == "kv_too_small"
    assert log.fatal.fault == "configuration"
    assert log.fatal.text == (
        "one sequence of 1048576 tokens needs 2.25 GiB of KV cache and 1.0 GiB are free beside the "
        "weights; set max_model_len to at most 466016, or take more or larger GPUs"
    )
    assert log.ended(1) == log.fatal


@pytest.mark.parametrize("name", [*HEALTHY, "kv_too_small.log"])
@pytest.mark.parametrize("size", [1, 7, 4096])
def test_pieces_may_be_cut_anywhere(name: str, size: int) -> None:
    text = read(name)
    whole, pieces = BootLog(), BootLog()
    whole.feed(text)
    for start in range(0, len(text), size):
        pieces.feed(text[start : start + size])
    assert facts(pieces) == facts(whole)


def test_the_root_cause_wins_over_what_follows_it() -> None:
    out_of_memory = (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total "
        "capacity of 79.18 GiB of which 812.62 MiB is free."
    )
    log = fed(
        "(Worker_TP1 pid=14) ERROR 11-23 09:03:00 [x.py:1] RuntimeError: NCCL error: remote "
        "process exited or there was a network error",
        "(Worker_TP0 pid=13) ERROR 11-23 09:03:00 [x.py:1] " + out_of_memory,
        FAILED + "Worker proc VllmWorker-0 died unexpectedly (exit code: 1), shutting down",
        "RuntimeError: Engine core initialization failed. See root cause above.",
    )
    assert log.fatal is not None
    assert log.fatal.pattern == "gpu_out_of_memory"


def test_of_two_root_causes_the_first_is_reported() -> None:
    log = fed(
        "OSError: [Errno 28] No space left on device",
        "torch.OutOfMemoryError: CUDA out of memory.",
    )
    assert log.fatal is not None
    assert log.fatal.pattern == "disk_full"


def test_an_unknown_cause_is_quoted_from_the_engine_s_own_traceback() -> None:
    log = fed(
        "UserWarning: something\nhttpx.ConnectError: usage statistics cannot be sent",
        FAILED + "EngineCore failed to start.",
        FAILED + "Traceback (most recent call last):",
        FAILED + "ValueError: the moon is in the wrong house",
        "RuntimeError: Engine core initialization failed. See root cause above.",
    )
    assert log.fatal is not None
    assert log.fatal.fault == "platform"
    assert log.fatal.sentence == (
        "the engine did not start (ValueError: the moon is in the wrong house)"
    )


def test_a_server_that_ended_without_a_known_cause_still_says_what_it_said_last() -> None:
    log = fed(API + "Using max model len 4096")
    log.feed("Traceback (most recent call last):\nImportError: cannot import name 'x'")
    ended = log.ended(1)
    assert ended.sentence == (
        "the server ended with exit code 1 while configured for 4096 tokens of context "
        "(ImportError: cannot import name 'x')"
    )
    assert log.fatal is None


def test_a_cause_in_an_unfinished_last_line_is_read_at_the_end() -> None:
    log = BootLog()
    log.feed("OSError: [Errno 28] No space left on device")
    assert log.fatal is None
    assert log.ended().pattern == "disk_full"


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING"])
def test_what_vllm_itself_got_over_is_not_fatal(level: str) -> None:
    log = fed(
        f"(Worker_TP0 pid=13) {level} 11-23 09:03:00 [tuner.py:1] skipping a tactic: "
        "torch.OutOfMemoryError: CUDA out of memory."
    )
    assert log.fatal is None


@pytest.mark.parametrize(
    "line",
    [
        "OSError: [Errno 98] Address already in use",
        "huggingface_hub.errors.LocalEntryNotFoundError: x",
        "ValueError: User-specified max_model_len (9) is greater than the derived max_model_len (8",
    ],
)
def test_while_it_serves_a_request_s_own_failure_is_not_fatal(line: str) -> None:
    log = fed("INFO:     Application startup complete.", "ERROR:    Exception in ASGI app", line)
    assert log.fatal is None


def test_an_engine_that_dies_while_serving_is_fatal_with_its_own_exception() -> None:
    log = fed(
        "INFO:     Application startup complete.",
        "(APIServer pid=11) ERROR 11-23 10:00:00 [s.py:1] ValueError: a request, an hour ago",
        FAILED + "EngineCore encountered a fatal error.",
        FAILED + "RuntimeError: cublas went away",
        "(APIServer pid=11) ERROR 11-23 11:00:00 [a.py:1] EngineDeadError: EngineCore encountered",
    )
    assert log.fatal is not None
    assert log.fatal.pattern == "engine_died"
    assert "RuntimeError: cublas went away" in log.fatal.sentence


def test_what_a_server_got_over_is_told_apart_from_what_is_new() -> None:
    log = fed(
        "INFO:     Application startup complete.", "OSError: [Errno 28] No space left on device"
    )
    assert log.new_fatal == log.fatal
    log.ignore_errors_so_far()
    known, new = log.fatal, log.new_fatal
    assert known is not None
    assert known.pattern == "disk_full"
    assert new is None

    log.feed("torch.OutOfMemoryError: CUDA out of memory.\n")
    assert log.fatal == known
    assert log.new_fatal is not None
    assert log.new_fatal.pattern == "gpu_out_of_memory"


def test_after_a_stop_nothing_is_fatal() -> None:
    log = fed(
        "INFO:     Application startup complete.",
        API + "[shutdown] API server: shutdown triggered",
        FAILED + "Worker proc VllmWorker-0 died unexpectedly (exit code: -9), shutting down",
    )
    assert log.fatal is None


def test_a_new_life_begins_at_the_supervisor_s_line_and_forgets_the_old_one() -> None:
    log = fed(read("kv_too_small.log"), MARKER, API + "Using max model len 4096")
    assert log.runs == 2
    assert log.fatal is None
    assert log.earlier_fatal is not None
    assert log.earlier_fatal.pattern == "kv_too_small"
    assert (log.stage, log.progress) == (Stage.ENGINE, "configured for 4096 tokens of context")


def test_a_new_life_is_seen_without_a_supervisor_too() -> None:
    log = fed(read("kv_too_small.log"), read("startup_cpu_0.32.log"))
    assert log.runs == 2
    assert log.stage is Stage.SERVING
    assert log.fatal is None


def test_times_over_a_new_year() -> None:
    log = fed(
        "(APIServer pid=1) INFO 12-31 23:59:50 [x.py:1] Using max model len 4096",
        "(EngineCore pid=1) INFO 01-01 00:00:05 [x.py:1] Initializing a V1 LLM engine (v1)",
    )
    assert log.reached[Stage.WORKERS] == 15.0


@pytest.mark.parametrize(
    ("lines", "pattern", "word"),
    [
        ([RANK0 + "vLLM is using nccl==2.28.9"], "nccl_hang", "NCCL_P2P_DISABLE=1"),
        (
            [
                RANK0 + "Dynamo bytecode transform time: 9.12 s",
                (
                    "(EngineCore pid=12) WARNING 11-23 09:00:10 [x.py:1] No available shared "
                    "memory broadcast block found in 60 seconds. This typically happens"
                ),
            ],
            "no_progress",
            "while compiling",
        ),
        ([RANK0 + "Starting to load model m..."], "no_progress", "while building the model"),
        ([], "no_progress", "starting vLLM"),
    ],
)
def test_what_a_standstill_means(lines: list[str], pattern: str, word: str) -> None:
    log = fed(*lines)
    stall = log.stalled()
    assert (stall.pattern, stall.fault) == (pattern, "host")
    assert word in stall.text
    assert log.fatal is None


def test_the_tail_is_plain_and_folds_progress_bars() -> None:
    log = fed("\x1b[32mfirst\x1b[0m", "", "   ")
    for percent in range(0, 101, 10):
        log.feed(f"\rLoading safetensors checkpoint shards: {percent:3d}% Completed | 1/9")
    log.feed("\r\nlast, without an end")
    assert log.tail(10) == [
        "first",
        "Loading safetensors checkpoint shards: 100% Completed | 1/9",
        "last, without an end",
    ]
    assert log.tail(1) == ["last, without an end"]
    assert log.tail(0) == []


def test_a_line_without_end_does_not_grow_without_end() -> None:
    log = BootLog()
    for _ in range(100):
        log.feed("x" * 10_000)
    assert len(log.tail(1)[0]) <= 65536
