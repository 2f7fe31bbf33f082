"""A measurement's results from `vllm bench serve` and vLLM's log, and the figures made of them.

A folder of docs/measured holds `measurement.yaml`: the measured server, its machine and the
conditions. Each run has a folder with the benchmark's JSON by load (`c64_i1024_o256.json`) and
vLLM's log. Its `alone.json` has the milliseconds of one request alone, by its prompt's length.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from components.core import yaml_text
from components.vllm.measured import Load, Measured
from components.vllm.readiness.log_parser import BootLog

ROOT = Path(__file__).resolve().parent.parent
MEASUREMENT = "measurement.yaml"
LOG = "vllm.log"
ALONE = "alone.json"

PERCENTILES = ("ttft", "tpot", "e2el")
"""Times that the page shows, by the benchmark's names; all are milliseconds."""

KEPT = frozenset(
    {"date", "backend", "num_prompts", "request_rate", "max_concurrency", "duration", "completed"}
    | {"failed", "total_input_tokens", "total_output_tokens", "output_throughput"}
    | {"total_token_throughput", "request_throughput", "max_output_tokens_per_s"}
    | {
        f"{kind}_{name}_ms"
        for kind in ("mean", "median", "std", "p50", "p99")
        for name in (*PERCENTILES, "itl")
    }
)
"""Keys of the benchmark's result that `--add` keeps: figures, and no path of the machine."""

_BENCH = re.compile(r"c(?P<clients>\d+)_i(?P<tokens_in>\d+)_o(?P<tokens_out>\d+)\.json$")
_BAR = re.compile(r"\d+%\|")


class Run(BaseModel):
    """One start of the server, and the benchmarks against it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """The name of its folder."""
    machine: str
    """Runs on the same machine can be compared."""
    title: str
    """What it is in the tables."""
    profile: str | None = None
    """The profile that these options make; None if there is none."""
    against: str | None = None
    """The run on the same machine that its ratios are taken over; None for no ratios."""
    options: str
    """What differs from the recipe, as options of vLLM."""
    health_seconds: float | None = None
    """Seconds from the process's start to `/health`; None where other work ran beside it."""
    note: str = ""
    parts: tuple[str, ...] = ()
    """Runs that were measured at the same time, whose loads are added up: folders, seen from this
    measurement's. Empty for a run with results of its own."""


class Rehearsal(BaseModel):
    """A start that was ended, so that another one could begin with what it left in the caches."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    ended_after: float
    """Seconds from its process's start."""
    used_mib: int
    """In use on the fullest GPU when it was ended."""
    back_seconds: float
    """Until no more memory was in use than before it."""
    start: str | None = None
    """The run that began with its caches; None if there was none."""


class Measurement(BaseModel):
    """The content of `measurement.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    date: str
    vllm: str
    gpu_name: str
    num_gpus: int
    weights: str
    conditions: tuple[str, ...]
    """In few words each, for a profile's `measured:`."""
    setting: tuple[str, ...]
    """The conditions in full, one sentence or more each."""
    runs: tuple[Run, ...] = Field(min_length=1)
    rehearsals: tuple[Rehearsal, ...] = ()
    """All on one machine; what they saved is counted from the first one."""
    collectives: str = ""
    """A file of this folder, shown as it is; empty for none."""
    findings: tuple[str, ...]
    not_measured: tuple[str, ...]


class Row(BaseModel):
    """One load of one run. Times in milliseconds, the median and the 99th percentile."""

    model_config = ConfigDict(frozen=True)

    clients: int
    tokens_in: int
    tokens_out: int
    requests: int
    failed: int
    tokens_per_second: float
    ttft: tuple[float, float]
    tpot: tuple[float, float]
    e2el: tuple[float, float]

    @property
    def shape(self) -> tuple[int, int, int]:
        """The load: prompts of the same length first, then by clients."""
        return (self.tokens_in, self.tokens_out, self.clients)


class Start(BaseModel):
    """The figures of a start in vLLM's log. GiB and seconds; None for a missing figure."""

    model_config = ConfigDict(frozen=True)

    weights: float | None = None
    compile: float | None = None
    graphs: float | None = None
    graphs_gib: float | None = None
    estimated_gib: float | None = None
    kv_gib: float | None = None
    kv_tokens: int | None = None
    engine: float | None = None


def load(folder: Path) -> Measurement:
    """Read a folder's `measurement.yaml`."""
    content = yaml_text.read((folder / MEASUREMENT).read_text(encoding="utf-8"))
    return Measurement.model_validate(content)


def add(folder: Path, path: Path) -> None:
    """Copy one file of the benchmark into a run's folder, reduced to what is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".log":
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            (folder / LOG).write_text(without_bars(file.read()), encoding="utf-8")
        return
    content = json.loads(path.read_text(encoding="utf-8"))
    if "milliseconds_by_prompt_length" in content:
        times = {
            length: [round(value, 1) for value in values]
            for length, values in content["milliseconds_by_prompt_length"].items()
        }
        target, kept = ALONE, {"milliseconds_by_prompt_length": times}
    else:
        found = _BENCH.search(path.name)
        if not found:
            raise SystemExit(f"{path.name} is no result of the benchmark: c…_i…_o….json")
        target, kept = found[0], {name: content[name] for name in sorted(KEPT & content.keys())}
    (folder / target).write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def without_bars(log: str) -> str:
    """Drop a progress bar's states but the last one of each line."""
    lines = []
    for line in log.split("\n"):
        states = line.rstrip("\r").split("\r")
        kept = [state for state in states if not _BAR.search(state)]
        bars = [state for state in states if _BAR.search(state)]
        lines.append("\n".join([*kept, *bars[-1:]]))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))


def rows(folder: Path) -> dict[tuple[int, int, int], Row]:
    """Read the benchmark's results of one run, by load."""
    found = {}
    for path in sorted(folder.glob("c*_i*_o*.json")):
        matched = _BENCH.search(path.name)
        if matched:
            row = _row({key: int(value) for key, value in matched.groupdict().items()}, path)
            found[row.shape] = row
    return dict(sorted(found.items()))


def rows_of(folder: Path, run: Run) -> dict[tuple[int, int, int], Row]:
    """Read a run's results by load; those of its parts are added up where it has parts."""
    if not run.parts:
        return rows(folder / run.name)
    parts = [rows(folder / part) for part in run.parts]
    if any(part.keys() != parts[0].keys() for part in parts):
        raise SystemExit(f"{run.name}'s parts were not measured at the same loads")
    summed = [_sum([part[shape] for part in parts]) for shape in parts[0]]
    return dict(sorted((row.shape, row) for row in summed))


def start(log: str) -> Start:
    """Read a start's figures from vLLM's log: of the slowest rank, and of one engine's cache."""
    reader = BootLog()
    reader.feed(f"{log}\n")
    facts = reader.facts
    return Start(
        weights=facts.load_gib,
        compile=facts.compile_seconds,
        graphs=facts.graph_seconds,
        graphs_gib=facts.graph_gib,
        estimated_gib=facts.graph_estimate_gib,
        kv_gib=facts.kv_cache_gib,
        kv_tokens=min(facts.tokens_by_engine.values(), default=None),
        engine=facts.init_seconds,
    )


def block(folder: Path, measurement: Measurement, name: str) -> Measured:
    """Make a profile's `measured:` from one run."""
    run = run_named(measurement, name)
    baseline = run_named(measurement, run.against) if run.against else None
    compared = rows_of(folder, baseline) if baseline else {}
    return Measured(
        vllm=measurement.vllm,
        gpu_name=measurement.gpu_name,
        num_gpus=measurement.num_gpus,
        date=measurement.date,
        weights="real" if measurement.weights == "real" else "dummy",
        conditions=measurement.conditions,
        compared_with=baseline.profile if baseline else None,
        source=named(folder),
        loads=tuple(
            Load(
                clients=row.clients,
                tokens_in=row.tokens_in,
                tokens_out=row.tokens_out,
                tokens_per_second=figure(row.tokens_per_second),
                first_token_ms=figure(row.ttft[0]),
                token_ms=round(row.tpot[0], 2),
                request_ms=figure(row.e2el[0]),
                ratio=ratio(row, compared.get(shape)),
            )
            for shape, row in rows_of(folder, run).items()
        ),
    )


def block_text(measured: Measured) -> str:
    """Write a `measured:` as it stands in a profile's file: one load a line."""
    content = measured.model_dump(mode="json", exclude_none=True)
    loads = content.pop("loads")
    if not measured.conditions:
        del content["conditions"]
    head = yaml.safe_dump({"measured": content}, sort_keys=False, width=100)
    lines = [
        "    - {" + ", ".join(f"{name}: {value:g}" for name, value in load.items()) + "}"
        for load in loads
    ]
    return head + "\n".join(["  loads:", *lines]) + "\n"


def named(folder: Path) -> str:
    """The folder as the repository names it."""
    return folder.relative_to(ROOT).as_posix() if folder.is_relative_to(ROOT) else folder.name


def ratio(row: Row, compared: Row | None) -> float | None:
    """Tokens a second over those of the same load in another run; None without one."""
    return round(row.tokens_per_second / compared.tokens_per_second, 2) if compared else None


def figure(value: float) -> float:
    """Round to a measurement's precision: a whole number, or one decimal below ten."""
    return float(round(value)) if value >= 10 else round(value, 1)  # noqa: PLR2004


def _row(load: Mapping[str, int], path: Path) -> Row:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    times = {name: (content[f"p50_{name}_ms"], content[f"p99_{name}_ms"]) for name in PERCENTILES}
    facts = {
        "requests": content["num_prompts"],
        "failed": content["failed"],
        "tokens_per_second": content["output_throughput"],
    }
    return Row.model_validate({**load, **facts, **times})


def _sum(at_once: Sequence[Row]) -> Row:
    """Add up the results of several servers at the same time. Times are those of the slowest."""

    def slowest(name: str) -> tuple[float, float]:
        medians, highs = zip(*(getattr(row, name) for row in at_once), strict=True)
        return max(medians), max(highs)

    return Row(
        clients=sum(row.clients for row in at_once),
        tokens_in=at_once[0].tokens_in,
        tokens_out=at_once[0].tokens_out,
        requests=sum(row.requests for row in at_once),
        failed=sum(row.failed for row in at_once),
        tokens_per_second=sum(row.tokens_per_second for row in at_once),
        ttft=slowest("ttft"),
        tpot=slowest("tpot"),
        e2el=slowest("e2el"),
    )


def run_named(measurement: Measurement, name: str) -> Run:
    """Find a run by its name, which has to be there."""
    return next(run for run in measurement.runs if run.name == name)
