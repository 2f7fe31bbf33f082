"""The start of a server: vLLM's phases in order, each with its lines and its time.

Durations are emulated seconds, assumed for a 121 GB model within what is published (vllm reference,
2.8).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from emulator.standins import gpus
from emulator.standins.host import Host
from emulator.standins.vllm import VERSION, checks, memory
from emulator.standins.vllm.faults import Stage, Starting, strike
from emulator.standins.vllm.log import API_SERVER, ENGINE, Log
from emulator.standins.vllm.memory import GIB, Fit
from emulator.standins.vllm.model import ModelShape, read_shape
from emulator.standins.vllm.settings import Settings
from emulator.standins.vllm.weights import Source, Weights, no_recognized_files

CONFIG_SECONDS = 6.0
ENGINE_SECONDS = 9.0
LOAD_SECONDS = 4.0
SHARD_BYTES_PER_SECOND = 1.344e9
"""120.9 GB in 90 s: what an NVMe disk and a host's memory give."""
PAGE_CACHE_BYTES_PER_SECOND = 5e9
"""For weights that an earlier start left in the host's memory; assumed, not measured."""
COMPILE_SECONDS = 45.0
WARM_COMPILE_SECONDS = 5.0
PROFILE_SECONDS = 5.0
GRAPH_SECONDS = 20.0

_QUICKEST_LOAD = 2.0
_GRAPHS = 35
_WORKER_MODULE = "gpu_model_runner.py"
_EAGLE_METHODS = ("eagle", "eagle3", "mtp", "draft_model")


@dataclass(frozen=True)
class Booted:
    """A server that is ready to listen."""

    shape: ModelShape
    fit: Fit
    root: str
    """The folder or repository that was served: /v1/models shows it."""


class Boot:
    """One start, which `run` takes through its phases."""

    def __init__(
        self,
        host: Host,
        settings: Settings,
        *,
        log: Log,
        claim: gpus.Claim,
        environ: Mapping[str, str],
        monotonic: Callable[[], float],
    ) -> None:
        """Start `settings` on `host`; GPU memory is held through `claim`."""
        self._now = Starting(host, settings, log)
        self._host = host
        self._settings = settings
        self._log = log
        self._claim = claim
        self._environ = environ
        self._monotonic = monotonic
        self._cards = gpus.cards(host)

    def run(self) -> Booted:
        """Do everything between the open socket and the first request.

        Raises:
            StartError: vLLM would not start; the log holds nothing of the failure yet.
        """
        source = self._open(self._settings.model, self._settings.revision)
        shape = self._read(source)
        length = checks.check_config(
            self._settings,
            shape,
            len(self._cards),
            self._environ.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN") == "1",
        )
        draft = self._draft()
        self._configured(shape, length)
        self._start_engine()
        self._load(source, shape, draft)
        started = self._monotonic()
        self._compile()
        fit = self._lay_out_kv(shape, draft, length)
        self._capture_graphs()
        took = (self._monotonic() - started) * self._host.speed
        self._log.info(
            ENGINE,
            "core.py:402",
            f"init engine (profile, create kv cache, warmup model) took {took:.2f} s",
        )
        return Booted(shape, fit, self._settings.model)

    # ------------------------------------------------------------------ configuration

    def _open(self, name: str, revision: str) -> Source:
        return Source(
            self._host,
            name,
            token=self._settings.hf_token,
            revision=revision,
            environ=self._environ,
        )

    def _read(self, source: Source) -> ModelShape:
        source.load_small_files()
        shape = read_shape(source.folder, config_format=self._settings.config_format)
        if shape is None:
            raise no_recognized_files(source.name)
        return shape

    def _draft(self) -> tuple[Source, ModelShape] | None:
        config = self._settings.speculative_config
        if not config or "model" not in config or config.get("method") not in _EAGLE_METHODS:
            return None
        source = self._open(str(config["model"]), str(config.get("revision") or "main"))
        return source, self._read(source)

    def _configured(self, shape: ModelShape, length: int) -> None:
        self._host.wait(CONFIG_SECONDS)
        shown = shape.max_positions if length == -1 else length
        log = self._log
        log.info(API_SERVER, "model.py:733", f"Resolved architecture: {shape.architecture}")
        log.info(API_SERVER, "model.py:2152", f"Using max model len {shown}")
        log.info(
            API_SERVER,
            "scheduler.py:239",
            "Chunked prefill is enabled with max_num_batched_tokens="
            f"{self._settings.max_num_batched_tokens}.",
        )
        if self._settings.enforce_eager:
            log.warning(
                API_SERVER,
                "vllm.py:1703",
                "Enforce eager set, disabling torch.compile, CUDAGraphs, and JIT kernel warmup. "
                "This is equivalent to setting -cc.mode=none -cc.cudagraph_mode=none and "
                "--kernel_config.enable_jit_warmup=False",
            )

    # ------------------------------------------------------------------ engine and weights

    def _start_engine(self) -> None:
        settings = self._settings
        self._host.wait(ENGINE_SECONDS)
        self._log.info(
            ENGINE,
            "core.py:133",
            f"Initializing a V1 LLM engine (v{VERSION}) with config: model='{settings.model}', "
            f"speculative_config={settings.speculative_config}, tokenizer='{settings.model}', "
            f"dtype=torch.bfloat16, load_format={settings.load_format}, "
            f"tensor_parallel_size={settings.tensor_parallel_size}, "
            f"pipeline_parallel_size={settings.pipeline_parallel_size}, "
            f"enforce_eager={settings.enforce_eager}, kv_cache_dtype={settings.kv_cache_dtype}, "
            f"served_model_name={settings.served_names[0]}",
        )
        checks.check_driver(gpus.driver(self._host)[1], self._host.image_cuda)
        checks.check_type(settings, gpus.compute_capability(self._host), self._host.gpu_name)
        self._check_memory()
        if settings.world_size > 1:
            self._log.info(self._log.worker, "pynccl.py:111", "vLLM is using nccl==2.29.7")
        strike(Stage.NCCL, self._now)
        self._log.all_workers(
            "parallel_state.py:2350",
            f"rank {{rank}} in world size {settings.world_size} is assigned as DP rank 0, PP rank "
            "0, PCP rank 0, TP rank {rank}, ETP rank {rank}, EP rank 0, EPLB rank N/A",
        )

    def _check_memory(self) -> None:
        used = self._cards[: self._settings.world_size]
        self._now.total_gib = min(gpus.cuda_memory_gib(card) for card in used)
        foreign = max(card.used_mib for card in used) / 1024
        memory.check_free(self._now.total_gib, foreign, self._settings.gpu_memory_utilization)

    def _load(
        self, source: Source, shape: ModelShape, draft: tuple[Source, ModelShape] | None
    ) -> None:
        settings = self._settings
        began = self._monotonic()
        self._host.wait(LOAD_SECONDS)
        self._log.all_workers(
            f"{_WORKER_MODULE}:4812", f"Starting to load model {settings.model}..."
        )
        self._choose_backend(shape)
        downloading = self._monotonic()
        weights = source.load_weights(settings.load_format)
        took = (self._monotonic() - downloading) * self._host.speed
        if weights.fetched:
            self._log.info(
                self._log.worker,
                "weight_utils.py:531",
                f"Time spent downloading weights for {settings.model}: {took:.6f} seconds",
            )
        extra = draft[0].load_weights("auto").size if draft else 0
        self._now.weights_gib = weights.size / settings.world_size / GIB + extra / GIB
        memory.check_weights(self._now.total_gib, self._now.weights_gib)
        self._load_shards(weights)
        strike(Stage.LOAD, self._now)
        self._hold(self._now.weights_gib)
        took = (self._monotonic() - began) * self._host.speed
        self._log.all_workers(
            f"{_WORKER_MODULE}:4879",
            f"Model loading took {self._now.weights_gib:.2f} GiB memory and {took:.6f} seconds",
        )

    def _choose_backend(self, shape: ModelShape) -> None:
        capability = gpus.compute_capability(self._host)
        name, candidates = checks.choose_backend(self._settings, shape, capability)
        text = (
            f"Using {name} attention backend out of potential backends: {candidates}."
            if candidates
            else f"Using AttentionBackendEnum.{name} backend."
        )
        self._log.all_workers("cuda.py:521", text)

    def _load_shards(self, weights: Weights) -> None:
        if weights.files == 0:
            return
        seconds = max(_QUICKEST_LOAD, weights.size / self._read_rate(weights))
        each = seconds / weights.files
        self._shard_bar(0, weights.files, each)
        for number in range(1, weights.files + 1):
            self._host.wait(each)
            self._shard_bar(number, weights.files, each)
        self._log.all_workers(
            "default_loader.py:430", f"Loading weights took {seconds:.2f} seconds"
        )

    def _read_rate(self, weights: Weights) -> float:
        """Read from the disk the first time, from the page cache after it if they fit there."""
        page_cache = self._host.directory / "page_cache"
        held = page_cache.read_text().splitlines() if page_cache.exists() else []
        if self._settings.model in held:
            return PAGE_CACHE_BYTES_PER_SECOND
        if weights.size < self._host.cpu_ram_mb * 1e6:
            page_cache.write_text("\n".join([*held, self._settings.model]))
        return SHARD_BYTES_PER_SECOND

    def _shard_bar(self, number: int, count: int, each: float) -> None:
        share = number * 100 // count
        passed, left = _clock(number * each), _clock((count - number) * each)
        self._log.bar(
            f"Loading safetensors checkpoint shards: {share:>3}% Completed | {number}/{count} "
            f"[{passed}<{left}, {each:5.2f}s/it]",
            last=number == count,
        )

    # ------------------------------------------------------------------ compile, KV, graphs

    def _compile(self) -> None:
        if self._settings.enforce_eager:
            return
        folder = self._compile_cache() / "rank_0_0" / "backbone"
        marker = folder / "vllm_compile_cache.py"
        warm = marker.exists()
        seconds = WARM_COMPILE_SECONDS if warm else COMPILE_SECONDS
        self._log.info(
            self._log.worker,
            "backends.py:1089",
            f"Using cache directory: {folder} for vLLM's torch.compile",
        )
        self._host.wait(seconds / 5)
        self._log.info(
            self._log.worker,
            "backends.py:1148",
            f"Dynamo bytecode transform time: {seconds / 5:.2f} s",
        )
        self._host.wait(seconds * 4 / 5)
        tokens = self._settings.max_num_batched_tokens
        text = (
            f"Directly load the compiled graph(s) for compile range (1, {tokens}) from the cache, "
            f"took {seconds * 4 / 5:.3f} s"
            if warm
            else f"Compiling a graph for compile range (1, {tokens}) takes {seconds * 4 / 5:.2f} s"
        )
        self._log.info(self._log.worker, "backends.py:390", text)
        self._log.info(
            self._log.worker, "monitor.py:35", f"torch.compile took {seconds:.2f} s in total"
        )
        folder.mkdir(parents=True, exist_ok=True)
        marker.write_text("{}\n")

    def _compile_cache(self) -> Path:
        default = Path(self._environ["HOME"]) / ".cache" / "vllm"
        root = Path(self._environ.get("VLLM_CACHE_ROOT") or default)
        settings = self._settings
        factors = [
            VERSION,
            settings.model,
            settings.tensor_parallel_size,
            settings.max_model_len,
            settings.max_num_batched_tokens,
            settings.kv_cache_dtype,
            settings.compilation_config,
            settings.speculative_config,
            self._host.gpu_name,
        ]
        digest = sha256(json.dumps(factors, default=dict).encode()).hexdigest()
        return root / "torch_compile_cache" / digest[:10]

    def _lay_out_kv(
        self, shape: ModelShape, draft: tuple[Source, ModelShape] | None, length: int
    ) -> Fit:
        self._host.wait(PROFILE_SECONDS)
        settings = self._settings
        self._now.length = length
        self._now.bytes_per_token = sum(
            one.kv_bytes_per_token(
                tensor_parallel_size=settings.tensor_parallel_size,
                fp8=settings.kv_cache_dtype.startswith("fp8"),
            )
            for one in [shape, *([draft[1]] if draft else [])]
        )
        self._now.available_gib = memory.kv_gib_left(
            self._now.total_gib, self._now.weights_gib, settings.gpu_memory_utilization
        )
        strike(Stage.PROFILE, self._now)
        self._log.all_workers(
            "gpu_worker.py:441", f"Available KV cache memory: {self._now.available_gib:.2f} GiB"
        )
        fit = memory.fit_kv(
            self._now.available_gib,
            weights_gib=self._now.weights_gib,
            bytes_per_token=self._now.bytes_per_token,
            max_model_len=length,
        )
        self._log.info(
            ENGINE,
            "kv_cache_utils.py:2327",
            f"GPU KV cache size: {fit.kv_tokens:,} tokens, Maximum concurrency for "
            f"{fit.max_model_len:,} tokens per request: {fit.concurrency:.2f}x",
        )
        self._hold(self._now.total_gib * settings.gpu_memory_utilization)
        return fit

    def _capture_graphs(self) -> None:
        if self._settings.enforce_eager:
            return
        for number in range(_GRAPHS + 1):
            share = number * 100 // _GRAPHS
            self._log.bar(
                f"Capturing CUDA graphs (mixed prefill-decode, PIECEWISE): {share:>3}%|"
                f"{'█' * (share // 10):<10}| {number}/{_GRAPHS}",
                last=number == _GRAPHS,
            )
            if number < _GRAPHS:
                self._host.wait(GRAPH_SECONDS / _GRAPHS)
        self._log.info(
            self._log.worker,
            f"{_WORKER_MODULE}:6110",
            f"Graph capturing finished in {GRAPH_SECONDS:.0f} secs, took 0.87 GiB",
        )

    def _hold(self, gib: float) -> None:
        self._claim.hold(list(range(self._settings.world_size)), round(gib * 1024))


def process_name(settings: Settings) -> str:
    """Return how nvidia-smi names the process that holds the GPUs."""
    return "VLLM::Worker_TP0" if settings.tensor_parallel_size > 1 else "VLLM::EngineCore"


def claim_for(host: Host, settings: Settings) -> gpus.Claim:
    """Return this process's claim on GPU memory."""
    return gpus.Claim(host, os.getpid(), process_name(settings))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes:02d}:{rest:02d}"
