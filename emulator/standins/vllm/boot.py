"""The start of a server: vLLM's phases in order, each with its lines and its time.

Lines and seconds are those of vLLM 0.26.0 on 2x H200, emulated: start_times.py has what was
measured. This goes as far as the weights, and engine_init.py does the rest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from emulator.standins import gpus
from emulator.standins.host import Host
from emulator.standins.vllm import VERSION, checks, memory
from emulator.standins.vllm.compile_cache import CompileCache
from emulator.standins.vllm.engine_init import WORKER_MODULE, EngineInit
from emulator.standins.vllm.faults import Stage, Starting, strike
from emulator.standins.vllm.log import API_SERVER, ENGINE, Log
from emulator.standins.vllm.memory import GIB, Fit
from emulator.standins.vllm.model import ModelShape, read_shape
from emulator.standins.vllm.settings import Settings
from emulator.standins.vllm.start_times import (
    INSPECTION,
    PAGE_CACHE_BYTES_PER_SECOND,
    SHARD_BYTES_PER_SECOND,
    start_times,
)
from emulator.standins.vllm.weights import Source, Weights, no_recognized_files

_QUICKEST_LOAD = 2.0
_EAGLE_METHODS = ("eagle", "eagle3", "mtp", "draft_model")


@dataclass(frozen=True)
class Booted:
    """A server that is ready to listen."""

    shape: ModelShape
    fit: Fit
    """Of all engines together."""
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
        self._now = Starting(host, settings, log, others_gib=self._others_gib)
        self._host = host
        self._settings = settings
        self._log = log
        self._claim = claim
        self._environ = environ
        self._monotonic = monotonic
        self._cards = gpus.cards(host)
        self._cache = CompileCache(host, settings, environ)
        self._times = start_times(settings, compiled=self._cache.warm)

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
        self._now.length = length
        fit = EngineInit(
            self._now,
            self._times,
            self._cache,
            [shape, *([draft[1]] if draft else [])],
            self._monotonic,
            self._hold,
        ).run()
        self._host.wait(self._times.server)
        engines = self._settings.data_parallel_size
        fit = replace(fit, kv_tokens=fit.kv_tokens * engines, concurrency=fit.concurrency * engines)
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
        checks.check_class(shape, is_missing=self._host.fault("class_missing") is not None)
        if not self._cache.inspected(shape):
            self._host.wait(INSPECTION)
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
        self._log.start_api_servers()
        self._host.wait(self._times.engine)
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
        self._host.wait(self._times.workers)
        checks.check_ranks(settings, len(self._cards))
        self._connect()
        self._check_memory()

    def _connect(self) -> None:
        ranks = self._settings.gpus_used
        total = min(gpus.cuda_memory_gib(card) for card in self._cards[:ranks])
        self._hold(memory.context_gib(total))
        for rank in range(ranks):
            self._log.info(
                self._log.unnamed_worker,
                "parallel_state.py:1906",
                f"world_size={ranks} rank={rank} local_rank={rank} "
                "distributed_init_method=tcp://127.0.0.1:42949 backend=nccl",
            )
        if ranks > 1:
            self._log.info(self._log.unnamed_worker, "pynccl.py:111", "vLLM is using nccl==2.29.7")
        strike(Stage.NCCL, self._now)
        for rank in range(ranks):
            engine, of_engine = divmod(rank, self._settings.world_size)
            self._log.info(
                self._log.unnamed_worker,
                "parallel_state.py:2350",
                f"rank {rank} in world size {ranks} is assigned as DP rank {engine}, PP rank 0, "
                f"PCP rank 0, TP rank {of_engine}, ETP rank {of_engine}, EP rank "
                f"{rank if self._settings.enable_expert_parallel else 0}, EPLB rank N/A",
            )
        self._host.wait(self._times.nccl)

    def _check_memory(self) -> None:
        used = self._cards[: self._settings.gpus_used]
        self._now.total_gib = min(gpus.cuda_memory_gib(card) for card in used)
        self._now.others_at_start = self._others_gib()
        memory.check_free(
            self._now.total_gib, self._now.others_at_start, self._settings.gpu_memory_utilization
        )

    def _others_gib(self) -> float:
        """Return the GiB that other processes hold now, of the GPU on which they hold most."""
        used = gpus.cards(self._host)[: self._settings.gpus_used]
        return max(card.used_by_others(os.getpid()) for card in used) / 1024

    def _load(
        self, source: Source, shape: ModelShape, draft: tuple[Source, ModelShape] | None
    ) -> None:
        settings = self._settings
        began = self._monotonic()
        self._log.all_workers(
            f"{WORKER_MODULE}:4812", f"Starting to load model {settings.model}..."
        )
        self._choose_backend(shape)
        self._host.wait(self._times.build)
        downloading = self._monotonic()
        weights = source.load_weights(settings.load_format)
        took = (self._monotonic() - downloading) * self._host.speed
        if weights.fetched:
            self._log.info(
                self._log.worker,
                "weight_utils.py:531",
                f"Time spent downloading weights for {settings.model}: {took:.6f} seconds",
            )
        of_draft = "dummy" if settings.is_rehearsal else "auto"
        extra = draft[0].load_weights(of_draft).size if draft else 0
        own = memory.weights_gib(weights.size, shape, settings)
        self._now.weights_gib = own + extra / GIB
        memory.check_weights(self._now.total_gib, self._now.weights_gib, self._others_gib())
        self._load_shards(weights)
        strike(Stage.LOAD, self._now)
        self._hold(self._now.weights_gib)
        took = (self._monotonic() - began) * self._host.speed
        self._log.all_workers(
            f"{WORKER_MODULE}:4879",
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

    def _hold(self, gib: float) -> None:
        self._claim.hold(list(range(self._settings.gpus_used)), round(gib * 1024))


def process_name(settings: Settings) -> str:
    """Return how nvidia-smi names the process that holds the GPUs."""
    return "VLLM::Worker_TP0" if settings.tensor_parallel_size > 1 else "VLLM::EngineCore"


def claim_for(host: Host, settings: Settings) -> gpus.Claim:
    """Return this process's claim on GPU memory."""
    is_lost = settings.is_rehearsal and host.fault("rehearsal_keeps_memory") is not None
    return gpus.Claim(host, os.getpid(), process_name(settings), is_lost=is_lost)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes:02d}:{rest:02d}"
