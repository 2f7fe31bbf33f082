"""What the engine does once the weights are loaded: profile, compile, KV cache, kernels, graphs.

Its lines and their order are those of vLLM 0.26.0 on 2x H200; start_times.py has the seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from emulator.standins.vllm import memory
from emulator.standins.vllm.compile_cache import CompileCache
from emulator.standins.vllm.faults import Stage, Starting, strike
from emulator.standins.vllm.memory import Fit
from emulator.standins.vllm.model import ModelShape
from emulator.standins.vllm.start_times import StartTimes

WORKER_MODULE = "gpu_model_runner.py"

_QUIET_SECONDS = 60.0
"""An engine that waits so long for its ranks logs it, once a minute."""
_TUNED = ("gemm1", "gemm2")
_TUNED_PROFILES = 21
_LARGEST_DECODE = 1024
"""Tokens of the largest graph of decoding alone: the sequences of a step."""


@dataclass
class EngineInit:
    """One engine's way from loaded weights to its first step, or that of several in step."""

    start: Starting
    times: StartTimes
    cache: CompileCache
    shapes: Sequence[ModelShape]
    """The model, and the draft head if there is one."""
    monotonic: Callable[[], float]
    hold: Callable[[float], None]
    """Takes the GiB of each GPU that the server holds from then on."""

    def run(self) -> Fit:
        """Do everything up to the line `init engine`.

        Raises:
            StartError: there is not enough memory, or a fault strikes.
        """
        began = self.monotonic()
        self._profile()
        self._compile()
        fit = self._lay_out_kv()
        self._tune()
        self._capture_graphs()
        self.hold(self._held())
        took = (self.monotonic() - began) * self.start.host.speed
        compiled = self.times.dynamo + self.times.compile
        compilation = f" (compilation: {compiled:.2f} s)" if compiled else ""
        self.start.log.all_engines(
            "core.py:402",
            f"init engine (profile, create kv cache, warmup model) took {took:.2f} s{compilation}",
        )
        return fit

    def _profile(self) -> None:
        settings = self.start.settings
        if self.shapes[0].vision and not settings.language_model_only:
            self.start.log.info(
                self.start.log.worker,
                f"{WORKER_MODULE}:6396",
                "Encoder cache will be initialized with a budget of "
                f"{settings.max_num_batched_tokens} tokens, and profiled with 2 image items of "
                "the maximum feature size.",
            )
        self.start.host.wait(self.times.encoder)

    def _compile(self) -> None:
        if self.start.settings.enforce_eager:
            return
        log, times, warm = self.start.log, self.times, self.cache.warm
        self.start.host.wait(times.dynamo)
        log.info(
            log.worker,
            "backends.py:1089",
            f"Using cache directory: {self.cache.folder} for vLLM's torch.compile",
        )
        log.info(
            log.worker, "backends.py:1148", f"Dynamo bytecode transform time: {times.dynamo:.2f} s"
        )
        self.start.host.wait(times.compile)
        span = f"compile range (1, {self.start.settings.max_num_batched_tokens})"
        log.info(
            log.worker,
            "backends.py:390",
            f"Directly load the compiled graph(s) for {span} from the cache, "
            f"took {times.compile:.3f} s"
            if warm
            else f"Compiling a graph for {span} takes {times.compile:.2f} s",
        )
        total = times.dynamo + times.compile
        log.info(log.worker, "monitor.py:35", f"torch.compile took {total:.2f} s in total")
        self.cache.fill()

    def _lay_out_kv(self) -> Fit:
        now, settings, log = self.start, self.start.settings, self.start.log
        now.host.wait(self.times.memory)
        now.bytes_per_token = sum(
            shape.kv_bytes_per_token(
                tensor_parallel_size=settings.tensor_parallel_size,
                fp8=settings.kv_cache_dtype.startswith("fp8"),
            )
            for shape in self.shapes
        )
        beside = memory.overhead(settings)
        others = now.others_gib()
        memory.check_others(now.total_gib, now.others_at_start, others)
        # What others have taken meanwhile looks like this server's own need.
        now.available_gib = (
            memory.kv_gib_left(
                now.total_gib, now.weights_gib, settings.gpu_memory_utilization, beside
            )
            + now.others_at_start
            - others
        )
        strike(Stage.PROFILE, now)
        self._say_graphs(beside)
        log.all_workers(
            "gpu_worker.py:441", f"Available KV cache memory: {now.available_gib:.2f} GiB"
        )
        fit = memory.fit_kv(
            now.available_gib,
            weights_gib=now.weights_gib,
            bytes_per_token=now.bytes_per_token,
            max_model_len=now.length,
        )
        log.all_engines(
            "kv_cache_utils.py:2327",
            f"GPU KV cache size: {fit.kv_tokens:,} tokens, Maximum concurrency for "
            f"{fit.max_model_len:,} tokens per request: {fit.concurrency:.2f}x",
        )
        memory.check_held(now.total_gib, self._held(), now.others_gib())
        self.hold(self._held())
        return fit

    def _say_graphs(self, beside: memory.Overhead) -> None:
        """Say that a rank took long, as vLLM does in a normal start, and what graphs may take."""
        log, times = self.start.log, self.times
        if times.encoder + times.dynamo + times.compile + times.memory > _QUIET_SECONDS:
            log.all_engines(
                "shm_broadcast.py:542",
                "No available shared memory broadcast block found in 60 seconds. This typically "
                "happens when some processes are hanging or doing some time-consuming work (e.g. "
                "compilation, weight/kv cache quantization).",
            )
        if self.start.settings.enforce_eager:
            return
        sets = ", ".join(
            f"{name}={len(sizes)} (largest={max(sizes)})" for name, _, sizes in self._graph_sets()
        )
        log.all_workers(f"{WORKER_MODULE}:6612", f"Profiling CUDA graph memory: {sets}")
        log.all_workers(
            f"{WORKER_MODULE}:6737",
            f"Estimated CUDA graph memory: {beside.graphs_estimated:.2f} GiB total",
        )

    def _tune(self) -> None:
        self.start.log.autotuner("autotuner.py:651", "Autotuning process starts ...")
        each = self.times.tuning / len(_TUNED) / _TUNED_PROFILES
        for name in _TUNED if self.times.tuning >= 1 else ():
            for number in range(_TUNED_PROFILES + 1):
                self._bar(f"[AutoTuner]: Tuning trtllm::fused_moe::{name}", number, _TUNED_PROFILES)
                if number < _TUNED_PROFILES:
                    self.start.host.wait(each)
        self.start.log.autotuner("autotuner.py:674", "Autotuning process ends")

    def _capture_graphs(self) -> None:
        if self.start.settings.enforce_eager:
            return
        sets = self._graph_sets()
        each = self.times.graphs / sum(len(sizes) for _, _, sizes in sets)
        for name, kind, sizes in sets:
            for number in range(len(sizes) + 1):
                self._bar(f"Capturing CUDA graphs ({kind}, {name})", number, len(sizes))
                if number < len(sizes):
                    self.start.host.wait(each)
        taken = memory.overhead(self.start.settings).graphs
        self.start.log.info(
            self.start.log.worker,
            f"{WORKER_MODULE}:6110",
            f"Graph capturing finished in {self.times.graphs:.0f} secs, took {taken:.2f} GiB",
        )

    def _graph_sets(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """Name, kind and tokens of the two sets of graphs."""
        sizes = self.start.settings.graph_sizes
        decode = tuple(size for size in sizes if size <= _LARGEST_DECODE) or sizes
        return [("PIECEWISE", "mixed prefill-decode", sizes), ("FULL", "decode", decode)]

    def _bar(self, what: str, number: int, count: int) -> None:
        share = number * 100 // count
        self.start.log.bar(
            f"{what}: {share:>3}%|{'█' * (share // 10):<10}| {number}/{count}",
            last=number == count,
        )

    def _held(self) -> float:
        now = self.start
        share = now.settings.gpu_memory_utilization
        return memory.held_gib(now.total_gib, share, memory.overhead(now.settings))
