"""Reads vLLM's log while it is written: stage, progress, and the cause if it ends.

Lines look like `(Worker_TP0 pid=9) INFO 11-23 09:03:24 [base_loader.py:82] text`, in colours or
not; progress bars come with carriage returns; the HTTP server's own lines begin with `INFO:`
(reference: vLLM 2.8). One log holds several lives of the server; the last one counts.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
import re
from collections.abc import Callable

from components.display import LONGEST_LINE, clipped, shown
from components.vllm.diagnosis import SERVER, Diagnosis, Rank, diagnose, diagnose_prefetch

__all__ = ["BootLog", "Diagnosis", "Stage", "diagnose_prefetch"]

KEPT_LINES = 400
"""Lines that `tail` can go back; a traceback of vLLM has about a hundred."""

_PREFIX = re.compile(
    r"^(?:\([^)]{0,100}pid=\d{1,12}\) )?(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) "
    r"(?P<stamp>\d\d-\d\d \d\d:\d\d:\d\d) \[[^\]]{0,200}\] ?"
)
_WORKER = re.compile(r"^\([^)]{0,100}pid=\d{1,12}\) ")
_NEW_LIFE = re.compile(r"^== supervise\.sh: server start")
_STOPPING = re.compile(
    r"\[shutdown\] (?:API server: shutdown triggered|EngineCore: trigger received signal)"
)
_EXCEPTION = re.compile(r"^(?:[A-Za-z_][\w]*\.)*[A-Za-z_]\w*(?:Error|Exception|Exit|Interrupt): \S")
_BAR = re.compile(r"^(?P<what>[A-Z][^:|]{0,100}(?: \([^)]{0,80}\))?): {1,20}\d{1,3}%")
_ENGINE_FAILS = re.compile(r"EngineCore (?:failed to start|encountered a fatal error)")
_HARMLESS = ("DEBUG", "INFO", "WARNING")
"""Levels at which vLLM reports what it got over; the disk's warning comes without a level."""

_ANOTHER_HOST = "another host may do"
_NO_P2P = "set NCCL_P2P_DISABLE=1 in the profile's env, or take another host"


class Stage(enum.IntEnum):
    """How far the server is; the order is the order of time."""

    STARTING = 0
    """Python imports; no line of vLLM's own yet, or the banner alone."""
    CONFIG = 1
    """The model's configuration is read."""
    ENGINE = 2
    """The engine's processes start and find each other."""
    LOAD = 3
    """The model is built; a download without a prefetch happens here, silently."""
    SHARDS = 4
    """Weights go from disk to the GPUs."""
    COMPILE = 5
    KV = 6
    """Memory is measured and the KV cache is laid out."""
    GRAPHS = 7
    """CUDA graphs are captured."""
    SERVING = 8
    """The HTTP server listens. Whether it answers is for a question to find out."""


@dataclasses.dataclass
class _Life:
    """What one start of the server has told."""

    stage: Stage = Stage.STARTING
    progress: str = "starting vLLM"
    fatal: Diagnosis | None = None
    new_fatal: Diagnosis | None = None
    stopping: bool = False
    begun: bool = False
    announced: bool = False
    error_exception: str = ""
    last_exception: str = ""
    last_text: str = ""
    first_stamp: dt.datetime | None = None
    reached: dict[Stage, float | None] = dataclasses.field(default_factory=dict)
    vllm_version: str | None = None
    max_model_len: int | None = None
    load_seconds: float | None = None
    load_gib: float | None = None
    kv_cache_gib: float | None = None
    kv_cache_tokens: int | None = None
    concurrency: float | None = None
    init_seconds: float | None = None


class BootLog:
    """What vLLM's log says so far. Feed it the log in pieces, cut anywhere."""

    def __init__(self) -> None:
        self._partial = ""
        self._lines: collections.deque[str] = collections.deque(maxlen=KEPT_LINES)
        self._life = _Life()
        self._earlier: Diagnosis | None = None
        self._lives = 0

    def feed(self, text: str) -> None:
        """Take the next piece of the log."""
        lines = re.split(r"[\r\n]+", self._partial + text)
        self._partial = clipped(lines.pop(), LONGEST_LINE)
        for line in lines:
            self._read(line)

    def let_pass(self) -> None:
        """Take what was read of this life until now for no end: a server may get over an error."""
        self._life.new_fatal = None

    @property
    def stage(self) -> Stage:
        """The furthest stage of this life."""
        return self._life.stage

    @property
    def progress(self) -> str:
        """What the server is doing, for people: `loading shards 5 of 9 (56%)`."""
        return self._life.progress

    @property
    def fatal(self) -> Diagnosis | None:
        """Why this life ends, as near to the cause as the log gets; None while all is well."""
        return self._told(self._life.fatal)

    @property
    def new_fatal(self) -> Diagnosis | None:
        """The same by what was read since `let_pass`; `fatal` if that was not called."""
        return self._told(self._life.new_fatal)

    @property
    def earlier_fatal(self) -> Diagnosis | None:
        """Why the life before this one ended, if its log said so."""
        return self._earlier

    @property
    def stopping(self) -> bool:
        """Whether the server was told to stop: what its log says from then on is no failure."""
        return self._life.stopping

    @property
    def begun(self) -> bool:
        """Whether the start of this life is in the log: one that has grown long is begun anew."""
        return self._life.begun

    @property
    def lives(self) -> int:
        """How often the server was started in this log; 0 before its first line."""
        return self._lives

    @property
    def reached(self) -> dict[Stage, float | None]:
        """Stages reached: seconds after the first line with a time, None where a line had none."""
        return dict(self._life.reached)

    @property
    def vllm_version(self) -> str | None:
        """The version in the banner."""
        return self._life.vllm_version

    @property
    def max_model_len(self) -> int | None:
        """Tokens of context that vLLM uses."""
        return self._life.max_model_len

    @property
    def load_seconds(self) -> float | None:
        """Seconds that the model took to load, of the slowest rank."""
        return self._life.load_seconds

    @property
    def load_gib(self) -> float | None:
        """GiB of a GPU that the model takes, of the fullest rank."""
        return self._life.load_gib

    @property
    def kv_cache_gib(self) -> float | None:
        """GiB of a GPU that are left for the KV cache, of the fullest rank."""
        return self._life.kv_cache_gib

    @property
    def kv_cache_tokens(self) -> int | None:
        """Tokens that the KV cache holds."""
        return self._life.kv_cache_tokens

    @property
    def concurrency(self) -> float | None:
        """Sequences of full length that the KV cache holds, by vLLM's own count."""
        return self._life.concurrency

    @property
    def init_seconds(self) -> float | None:
        """Seconds for profiling, compiling, KV cache and graphs."""
        return self._life.init_seconds

    def tail(self, count: int) -> list[str]:
        """Return the last `count` lines, without colours, with progress bars folded into one."""
        lines = [*self._lines]
        unfinished = _plain(self._partial)
        if unfinished:
            lines.append(unfinished)
        return lines[-count:] if count > 0 else []

    def ended(self, exit_code: int | None = None) -> Diagnosis:
        """Say why the server ended, now that it has: the cause found, or the last exception."""
        self.feed("\n")
        if self.fatal:
            return self.fatal
        code = "" if exit_code is None else f" with exit code {exit_code}"
        end = Diagnosis(
            pattern="server_ended",
            sentence=f"the server ended{code} while {self.progress}",
            fault="platform",
            remedy="the log's last lines are all there is",
            rank=Rank.END,
        )
        return self._with_exception(end)

    def stalled(self) -> Diagnosis:
        """Say what it most likely means that nothing has happened for long in this stage."""
        life = self._life
        if life.stage is Stage.ENGINE:
            return _stall("nccl_hang", "the GPUs do not find each other through NCCL", _NO_P2P)
        if "shared memory broadcast block" in life.last_text:
            return _stall("worker_stuck", f"a rank is stuck while {life.progress}", _NO_P2P)
        return _stall("no_progress", f"the log stands still while {life.progress}", _ANOTHER_HOST)

    def _read(self, raw: str) -> None:
        line = _plain(raw)
        if not line:
            return
        self._keep(line)
        if _NEW_LIFE.match(line):
            self._begin_life()
            self._life.begun = True
            return
        prefix = _PREFIX.match(line)
        level = prefix["level"] if prefix else ""
        text = line[prefix.end() :] if prefix else _WORKER.sub("", line)
        if text.startswith("non-default args:"):
            if self._life.announced:
                self._begin_life()
            self._life.announced = True
        self._lives = max(self._lives, 1)
        self._life.last_text = text
        stamp = _time(prefix["stamp"]) if prefix else None
        if stamp and self._life.first_stamp is None:
            self._life.first_stamp = stamp
        if _STOPPING.search(text):
            self._life.stopping = True
        self._follow(text, stamp)
        self._suspect(text, level)

    def _keep(self, line: str) -> None:
        bar = _BAR.match(line)
        if bar and self._lines:
            before = _BAR.match(self._lines[-1])
            if before and before["what"] == bar["what"]:
                self._lines.pop()
        self._lines.append(line)

    def _begin_life(self) -> None:
        self._earlier = self.fatal or self._earlier
        self._life = _Life()
        self._lives += 1

    def _follow(self, text: str, stamp: dt.datetime | None) -> None:
        for expression, apply in _EVENTS:
            found = expression.search(text)
            if found:
                before = self._life.stage
                apply(self._life, found)
                if self._life.stage > before or not self._life.reached:
                    self._life.reached[self._life.stage] = _passed(self._life.first_stamp, stamp)
                return

    def _suspect(self, text: str, level: str) -> None:
        life = self._life
        if life.stopping or level in _HARMLESS:
            return
        found = diagnose(text, SERVER, serving=life.stage is Stage.SERVING)
        if found:
            life.fatal = _nearer(life.fatal, found)
            life.new_fatal = _nearer(life.new_fatal, found)
        if _ENGINE_FAILS.search(text):
            life.error_exception = ""
        if found is None and _EXCEPTION.match(text):
            life.last_exception = text
            life.error_exception = life.error_exception or (text if level else "")

    def _told(self, fatal: Diagnosis | None) -> Diagnosis | None:
        if fatal is not None and fatal.rank is Rank.END:
            return self._with_exception(fatal)
        return fatal

    def _with_exception(self, end: Diagnosis) -> Diagnosis:
        life = self._life
        # While it serves, the last exception may be a request's own, from long ago.
        serving = life.stage is Stage.SERVING
        exception = life.error_exception or ("" if serving else life.last_exception)
        if not exception:
            return end
        return dataclasses.replace(end, sentence=f"{end.sentence} ({exception[:300].rstrip()})")


def _nearer(known: Diagnosis | None, found: Diagnosis) -> Diagnosis:
    """Choose what is nearer to the cause; of two that are as near, the earlier one."""
    return found if known is None or found.rank < known.rank else known


def _plain(line: str) -> str:
    # What is shown can be longer than what came, by the blanks in a runner's commands.
    return clipped(shown(clipped(line, LONGEST_LINE)), LONGEST_LINE).rstrip()


def _time(stamp: str) -> dt.datetime | None:
    """Read `11-23 09:03:24`, or None if that is no moment.

    The log has no year, so it is a leap year, in which all days exist.
    """
    try:
        return dt.datetime.strptime(f"2000-{stamp} +0000", "%Y-%m-%d %H:%M:%S %z")
    except ValueError:
        return None


def _passed(first: dt.datetime | None, now: dt.datetime | None) -> float | None:
    if first is None or now is None:
        return None
    return (now - first).total_seconds() % (366 * 86400)


def _stall(pattern: str, sentence: str, remedy: str) -> Diagnosis:
    return Diagnosis(pattern=pattern, sentence=sentence, fault="host", remedy=remedy)


def _advance(life: _Life, stage: Stage, progress: str) -> None:
    life.stage = max(life.stage, stage)
    if life.stage is stage:
        life.progress = progress


def _on_banner(life: _Life, found: re.Match[str]) -> None:
    life.vllm_version = found["version"]
    _advance(life, Stage.STARTING, f"starting vLLM {found['version']}")


def _on_architecture(life: _Life, found: re.Match[str]) -> None:
    _advance(life, Stage.CONFIG, f"reading the configuration ({found['architecture']})")


def _on_length(life: _Life, found: re.Match[str]) -> None:
    life.max_model_len = int(found["tokens"])
    _advance(life, Stage.CONFIG, f"configured for {found['tokens']} tokens of context")


def _on_engine(life: _Life, _found: re.Match[str]) -> None:
    _advance(life, Stage.ENGINE, "starting the engine")


def _on_nccl(life: _Life, _found: re.Match[str]) -> None:
    _advance(life, Stage.ENGINE, "connecting the workers")


def _on_load(life: _Life, _found: re.Match[str]) -> None:
    _advance(life, Stage.LOAD, "building the model")


def _on_downloaded(life: _Life, found: re.Match[str]) -> None:
    _advance(life, Stage.LOAD, f"weights downloaded in {float(found['seconds']):.0f} s")


def _on_shard(life: _Life, found: re.Match[str]) -> None:
    done, of, percent = found["done"], found["of"], found["percent"]
    _advance(life, Stage.SHARDS, f"loading shards {done} of {of} ({percent}%)")


def _on_shards_done(life: _Life, found: re.Match[str]) -> None:
    _advance(life, Stage.SHARDS, f"weights read in {float(found['seconds']):.0f} s")


def _on_loaded(life: _Life, found: re.Match[str]) -> None:
    life.load_seconds = max(life.load_seconds or 0.0, float(found["seconds"]))
    life.load_gib = max(life.load_gib or 0.0, float(found["gib"]))
    _advance(
        life,
        Stage.SHARDS,
        f"model loaded, {life.load_gib:.1f} GiB a GPU in {life.load_seconds:.0f} s",
    )


def _on_compile(life: _Life, _found: re.Match[str]) -> None:
    _advance(life, Stage.COMPILE, "compiling")


def _on_compiled(life: _Life, found: re.Match[str]) -> None:
    _advance(life, Stage.COMPILE, f"compiled in {float(found['seconds']):.0f} s")


def _on_kv_memory(life: _Life, found: re.Match[str]) -> None:
    gib = float(found["gib"])
    life.kv_cache_gib = gib if life.kv_cache_gib is None else min(life.kv_cache_gib, gib)
    _advance(life, Stage.KV, f"laying out the KV cache, {life.kv_cache_gib:.1f} GiB a GPU")


def _on_kv_tokens(life: _Life, found: re.Match[str]) -> None:
    life.kv_cache_tokens = int(found["tokens"].replace(",", ""))
    _advance(life, Stage.KV, f"KV cache for {found['tokens']} tokens")
    if found["times"]:
        life.concurrency = float(found["times"])


def _on_concurrency(life: _Life, found: re.Match[str]) -> None:
    life.concurrency = float(found["times"])
    _advance(life, Stage.KV, life.progress)


def _on_graph(life: _Life, found: re.Match[str]) -> None:
    _advance(life, Stage.GRAPHS, f"capturing CUDA graphs ({found['percent']}%)")


def _on_graphs(life: _Life, found: re.Match[str]) -> None:
    _advance(life, Stage.GRAPHS, f"CUDA graphs captured in {found['seconds']} s")


def _on_init(life: _Life, found: re.Match[str]) -> None:
    life.init_seconds = float(found["seconds"])
    life.progress = "starting the API server"


def _on_http(life: _Life, _found: re.Match[str]) -> None:
    life.progress = "starting the API server"


def _on_serving(life: _Life, _found: re.Match[str]) -> None:
    _advance(life, Stage.SERVING, "serving")


_NUMBER = r"\d{1,9}(?:\.\d{1,9})?"
_SECONDS = rf"(?P<seconds>{_NUMBER})"

_EVENTS: tuple[tuple[re.Pattern[str], Callable[[_Life, re.Match[str]], None]], ...] = tuple(
    (re.compile(expression, re.ASCII), apply)
    for expression, apply in (
        (r"vLLM server version (?P<version>\d[^\s,]{0,40})", _on_banner),
        (r"▀▄▀ █ +version (?P<version>\d\S{0,40})", _on_banner),
        (r"Resolved architectures?: (?P<architecture>\S{1,100})", _on_architecture),
        (r"Using max model len (?P<tokens>\d{1,12})", _on_length),
        (r"Initializing a V\d LLM engine", _on_engine),
        (r"vLLM is using nccl==|rank \d{1,6} in world size \d{1,6} is assigned", _on_nccl),
        (r"Starting to load model ", _on_load),
        (rf"Time spent downloading weights for .{{0,200}}: {_SECONDS} seconds", _on_downloaded),
        (
            (
                r"[Ll]oading \S{0,40}(?: \S{1,40}){0,5} ?shards: {1,20}(?P<percent>\d{1,3})%"
                r"(?: Completed)? ?\|[^|]{0,200}?\|? ?(?P<done>\d{1,6})/(?P<of>\d{1,6})"
            ),
            _on_shard,
        ),
        (rf"Loading weights took {_SECONDS} seconds", _on_shards_done),
        (
            rf"Model loading took (?P<gib>{_NUMBER}) GiB(?: memory)? and {_SECONDS} seconds",
            _on_loaded,
        ),
        (r"Dynamo bytecode transform|Compiling a graph for|Directly load the co", _on_compile),
        (rf"torch\.compile (?:took|takes) {_SECONDS} s", _on_compiled),
        (rf"Available KV cache memory: (?P<gib>{_NUMBER}) GiB", _on_kv_memory),
        (
            (
                r"KV cache size: (?P<tokens>\d[\d,]{0,19}) tokens"
                r"(?:, Maximum concurrency for [\d,]{1,20} tokens per request: "
                rf"(?P<times>{_NUMBER})x)?"
            ),
            _on_kv_tokens,
        ),
        (rf"Maximum concurrency for .{{0,100}}: (?P<times>{_NUMBER})x", _on_concurrency),
        (r"Capturing CUDA graphs?.{0,100}?: {1,20}(?P<percent>\d{1,3})%", _on_graph),
        (rf"Graph capturing finished in {_SECONDS} secs", _on_graphs),
        (rf"init engine \(.{{0,200}}\) took {_SECONDS} s", _on_init),
        (r"Starting vLLM (?:API )?server", _on_http),
        (r"Application startup complete|Uvicorn running on", _on_serving),
    )
)
"""What a line tells, in the order of time; the first that matches is applied."""
