"""What the lines of a starting vLLM mean: stages, what they measure, and how far it is. Pure.

The events stand in the order of time. A run has a place among them and never goes back: several
ranks and engines write one log, and the slower ones repeat what the first has written.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Callable, Collection

MOST_ENGINES = 256
"""Engines whose KV cache is counted: more than any host has GPUs."""

MOST_BARS = 16
"""Bars that are counted: a host can write any number of them."""


class Stage(enum.IntEnum):
    """How far the server is; the order is the order of time."""

    STARTING = 0
    """Python imports vLLM, which has said nothing yet."""
    CONFIG = 1
    """The model's configuration is read."""
    ENGINE = 2
    """The engine's process starts."""
    WORKERS = 3
    """The processes of the ranks start."""
    NCCL = 4
    """The ranks find each other."""
    LOAD = 5
    """The model is built; a download without a prefetch happens here, silently."""
    SHARDS = 6
    """Weights go from disk to the GPUs."""
    PROFILE = 7
    """The model runs once, to find what it needs beside its weights."""
    COMPILE = 8
    KV = 9
    """Memory is measured and the KV cache is laid out."""
    TUNING = 10
    """FlashInfer times its kernels."""
    GRAPHS = 11
    """CUDA graphs are captured."""
    SERVER = 12
    """The engine is up, the HTTP server starts."""
    SERVING = 13
    """The HTTP server listens. Whether it answers is for a question to find out."""


@dataclasses.dataclass
class ProgressBars:
    """Progress bars of one kind, drawn one after the other, as one count that never goes back.

    Several ranks draw the same bars; the furthest one counts.
    """

    expected: int = 0
    """Items of all bars together, where that was announced."""
    _bars: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)

    def draw(self, name: str, done: int, of: int) -> None:
        """Take a state of the bar `name`: `done` items of `of`."""
        before = self._bars.get(name)
        if before is None and len(self._bars) >= MOST_BARS:
            return
        known, largest = before or (0, 0)
        self._bars[name] = (max(known, min(done, of)), max(largest, of))

    @property
    def done(self) -> int:
        """Items that are done."""
        return sum(done for done, _ in self._bars.values())

    @property
    def of(self) -> int:
        """Items in all, as far as that is known: it grows with each bar that was not announced."""
        return max(self.expected, sum(of for _, of in self._bars.values()))


@dataclasses.dataclass
class BootFacts:
    """What one run of the server has measured; None for what its log has not reported yet."""

    load_seconds: float | None = None
    """Seconds that the model took to load, of the slowest rank."""
    load_gib: float | None = None
    """GiB of a GPU that the model takes, of the fullest rank."""
    kv_cache_gib: float | None = None
    """GiB of a GPU that are left for the KV cache, of the fullest rank."""
    compile_seconds: float | None = None
    """Seconds that torch.compile took, of the slowest rank."""
    graph_seconds: float | None = None
    """Seconds that the capture of CUDA graphs took, of the slowest rank."""
    graph_gib: float | None = None
    """GiB of a GPU that CUDA graphs take, of the fullest rank."""
    graph_estimate_gib: float | None = None
    """GiB that vLLM had set aside for them."""
    init_seconds: float | None = None
    """Seconds for profiling, compiling, KV cache and graphs, of the slowest engine."""
    tokens_by_engine: dict[str, int] = dataclasses.field(default_factory=dict)
    concurrency_by_engine: dict[str, float] = dataclasses.field(default_factory=dict)

    def take_graphs(self, gib: float, estimate: float) -> None:
        """Note what the CUDA graphs of one rank take, and what was set aside for them."""
        if gib >= (self.graph_gib or 0.0):
            self.graph_gib, self.graph_estimate_gib = gib, estimate

    @property
    def kv_cache_tokens(self) -> int | None:
        """Tokens that the KV caches of all engines hold."""
        return sum(self.tokens_by_engine.values()) if self.tokens_by_engine else None

    @property
    def concurrency(self) -> float | None:
        """Sequences of full length that they hold, by vLLM's own count."""
        return sum(self.concurrency_by_engine.values()) if self.concurrency_by_engine else None


@dataclasses.dataclass
class BootProgress:
    """How far one run of the server is."""

    stage: Stage = Stage.STARTING
    text: str = "starting vLLM"
    """What it is doing, for people: `loading shards 5 of 9 (56%)`."""
    facts: BootFacts = dataclasses.field(default_factory=BootFacts)
    shards: ProgressBars = dataclasses.field(default_factory=ProgressBars)
    tuning: ProgressBars = dataclasses.field(default_factory=ProgressBars)
    graphs: ProgressBars = dataclasses.field(default_factory=ProgressBars)
    place: int = 0
    """Of the furthest event seen, in the order of time."""

    def follow(self, text: str, process: str) -> bool:
        """Apply what a line of `process` tells; whether it is a step of the start."""
        pool = _GRAPH_POOL.search(text)
        if pool:
            self.facts.take_graphs(float(pool["gib"]), float(pool["estimate"]))
            return False
        for place, (stage, expression, apply) in enumerate(_EVENTS):
            found = expression.search(text)
            if found:
                self._advance(place, stage, apply(self, found, process))
                return True
        return False

    def _advance(self, place: int, stage: Stage, text: str) -> None:
        if place < self.place:
            return
        self.place = place
        self.stage = max(self.stage, stage)
        self.text = text or self.text


Apply = Callable[[BootProgress, re.Match[str], str], str]
"""Takes what a line tells of a process, and returns the text for people; empty for the previous."""


def _says(text: str) -> Apply:
    return lambda _run, found, _process: text.format_map(found.groupdict())


def _says_seconds(text: str) -> Apply:
    return lambda _run, found, _process: text.format(seconds=float(found["seconds"]))


def _on_shard(run: BootProgress, found: re.Match[str], _process: str) -> str:
    # A draft model's shards come after the model's own, under the same words.
    run.shards.draw(f"{found['what']} of {found['of']}", int(found["done"]), int(found["of"]))
    done, of = run.shards.done, run.shards.of
    return f"loading shards {done} of {of} ({round(100 * done / max(of, 1))}%)"


def _on_loaded(run: BootProgress, found: re.Match[str], _process: str) -> str:
    facts = run.facts
    facts.load_seconds = max(facts.load_seconds or 0.0, float(found["seconds"]))
    facts.load_gib = max(facts.load_gib or 0.0, float(found["gib"]))
    return f"model loaded, {facts.load_gib:.1f} GiB a GPU in {facts.load_seconds:.0f} s"


def _on_compiled(run: BootProgress, found: re.Match[str], _process: str) -> str:
    run.facts.compile_seconds = max(run.facts.compile_seconds or 0.0, float(found["seconds"]))
    return f"compiled in {float(found['seconds']):.0f} s, measuring memory"


def _on_graph_memory(run: BootProgress, found: re.Match[str], _process: str) -> str:
    run.graphs.expected = sum(int(count) for count in found.groups() if count)
    return "measuring what CUDA graphs take"


def _on_kv_memory(run: BootProgress, found: re.Match[str], _process: str) -> str:
    facts, gib = run.facts, float(found["gib"])
    facts.kv_cache_gib = gib if facts.kv_cache_gib is None else min(facts.kv_cache_gib, gib)
    return f"laying out the KV cache, {facts.kv_cache_gib:.1f} GiB a GPU"


def _on_kv_tokens(run: BootProgress, found: re.Match[str], process: str) -> str:
    tokens = run.facts.tokens_by_engine
    if _is_counted(process, tokens):
        tokens[process] = int(found["tokens"].replace(",", ""))
    if found["times"]:
        _on_concurrency(run, found, process)
    engines = len(tokens)
    where = f" in {engines} engines" if engines > 1 else ""
    return f"KV cache for {run.facts.kv_cache_tokens:,} tokens{where}"


def _on_concurrency(run: BootProgress, found: re.Match[str], process: str) -> str:
    concurrency = run.facts.concurrency_by_engine
    if _is_counted(process, concurrency):
        concurrency[process] = float(found["times"])
    return ""


def _on_tuning(run: BootProgress, found: re.Match[str], _process: str) -> str:
    run.tuning.draw(found["what"], int(found["done"]), int(found["of"]))
    return f"tuning kernels, {run.tuning.done} of {run.tuning.of}"


def _on_graph(run: BootProgress, found: re.Match[str], _process: str) -> str:
    run.graphs.draw(found["what"], int(found["done"]), int(found["of"]))
    return f"capturing CUDA graphs, {run.graphs.done} of {run.graphs.of}"


def _on_captured(run: BootProgress, found: re.Match[str], _process: str) -> str:
    run.facts.graph_seconds = max(run.facts.graph_seconds or 0.0, float(found["seconds"]))
    return f"CUDA graphs captured in {float(found['seconds']):.0f} s"


def _on_init(run: BootProgress, found: re.Match[str], _process: str) -> str:
    run.facts.init_seconds = max(run.facts.init_seconds or 0.0, float(found["seconds"]))
    return "starting the API server"


def _is_counted(engine: str, known: Collection[str]) -> bool:
    """Whether an engine's numbers count: of more than a host can have, the first ones do."""
    return engine in known or len(known) < MOST_ENGINES


_NUMBER = r"\d{1,9}(?:\.\d{1,9})?"
_SECONDS = rf"(?P<seconds>{_NUMBER})"
_COUNT = r"(?P<done>\d{1,6})/(?P<of>\d{1,6})"
_BAR = rf": {{1,20}}\d{{1,3}}%(?: Completed)? ?\|[^|]{{0,200}}?\|? ?{_COUNT}"

_GRAPH_POOL = re.compile(
    rf"CUDA graph pool memory: (?P<gib>{_NUMBER}) GiB \(actual\), "
    rf"(?P<estimate>{_NUMBER}) GiB \(estimated\)",
    re.ASCII,
)
"""A fact and no step of the start: the ranks log it while slower ones still capture."""

_EVENTS: tuple[tuple[Stage, re.Pattern[str], Apply], ...] = tuple(
    (stage, re.compile(expression, re.ASCII), apply)
    for stage, expression, apply in (
        (
            Stage.CONFIG,
            r"vLLM server version (?P<version>\d[^\s,]{0,40})",
            _says("starting vLLM {version}"),
        ),
        (
            Stage.CONFIG,
            r"▀▄▀ █ +version (?P<version>\d\S{0,40})",
            _says("starting vLLM {version}"),
        ),
        (
            Stage.CONFIG,
            r"Resolved architectures?: (?P<architecture>\S{1,100})",
            _says("reading the configuration ({architecture})"),
        ),
        (
            Stage.ENGINE,
            r"Using max model len (?P<tokens>\d{1,12})",
            _says("configured for {tokens} tokens of context"),
        ),
        (Stage.WORKERS, r"Initializing a V\d LLM engine", _says("starting the engine")),
        (
            Stage.NCCL,
            (
                r"world_size=\d{1,6} rank=\d|vLLM is using nccl=="
                r"|rank \d{1,6} in world size \d{1,6} is assigned"
            ),
            _says("connecting the workers"),
        ),
        (Stage.LOAD, r"Starting to load model ", _says("building the model")),
        (
            Stage.LOAD,
            rf"Time spent downloading weights for .{{0,200}}: {_SECONDS} seconds",
            _says_seconds("weights downloaded in {seconds:.0f} s"),
        ),
        (
            Stage.SHARDS,
            rf"[Ll]oading (?P<what>\S{{0,40}}(?: \S{{1,40}}){{0,5}} ?shards){_BAR}",
            _on_shard,
        ),
        (
            Stage.SHARDS,
            rf"Loading weights took {_SECONDS} seconds",
            _says_seconds("weights read in {seconds:.0f} s"),
        ),
        (
            Stage.PROFILE,
            rf"Model loading took (?P<gib>{_NUMBER}) GiB(?: memory)? and {_SECONDS} seconds",
            _on_loaded,
        ),
        (Stage.PROFILE, r"Encoder cache will be initialized", _says("running the model once")),
        (
            Stage.COMPILE,
            (
                r"Using cache directory: .{1,500} for vLLM's torch\.compile"
                r"|Dynamo bytecode transform|Compiling a graph for|Directly load (?:the|AOT) co"
            ),
            _says("compiling"),
        ),
        (
            Stage.KV,
            rf"torch\.compile (?:took|takes) {_SECONDS} s",
            _on_compiled,
        ),
        (
            Stage.KV,
            (
                r"Profiling CUDA graph memory: [A-Z]{1,20}=(\d{1,6})"
                r"(?: \(largest=\d{1,9}\), [A-Z]{1,20}=(\d{1,6}))?"
            ),
            _on_graph_memory,
        ),
        (Stage.KV, rf"Available KV cache memory: (?P<gib>{_NUMBER}) GiB", _on_kv_memory),
        (
            Stage.KV,
            (
                r"KV cache size: (?P<tokens>\d[\d,]{0,19}) tokens"
                r"(?:, Maximum concurrency for [\d,]{1,20} tokens per request: "
                rf"(?P<times>{_NUMBER})x)?"
            ),
            _on_kv_tokens,
        ),
        (Stage.KV, rf"Maximum concurrency for .{{0,100}}: (?P<times>{_NUMBER})x", _on_concurrency),
        (Stage.TUNING, r"\[Autotuner\]: Autotuning process starts", _says("tuning kernels")),
        (Stage.TUNING, rf"\[AutoTuner\]: (?P<what>Tuning \S{{1,100}}?){_BAR}", _on_tuning),
        (Stage.TUNING, r"\[Autotuner\]: Autotuning process ends", _says("kernels are tuned")),
        (Stage.GRAPHS, rf"(?P<what>Capturing CUDA graphs?.{{0,100}}?){_BAR}", _on_graph),
        (
            Stage.SERVER,
            rf"Graph capturing finished in {_SECONDS} secs",
            _on_captured,
        ),
        (Stage.SERVER, rf"init engine \(.{{0,200}}\) took {_SECONDS} s", _on_init),
        (Stage.SERVER, r"Starting vLLM (?:API )?server", _says("starting the API server")),
        (
            Stage.SERVING,
            r"Application startup complete|Uvicorn running on",
            _says("serving"),
        ),
    )
)
"""What a line tells, in the order of time; the first that matches is applied."""
