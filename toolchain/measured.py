"""Write a measurement's tables from what `vllm bench serve` wrote.

    python -m toolchain.measured docs/measured/NAME               # writes NAME/README.md
    python -m toolchain.measured docs/measured/NAME --block RUN   # prints a profile's `measured:`
    python -m toolchain.measured docs/measured/NAME --add RUN FILE...

`--add` copies the benchmark's files and vLLM's log into a run's folder, without paths of the
machine and without the log's progress bars. `toolchain/results.py` reads them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from components.vllm.readiness.log_parser import BootLog, Stage
from toolchain import boot_times
from toolchain.results import (
    ALONE,
    LOG,
    MEASUREMENT,
    Measurement,
    Row,
    Run,
    Start,
    add,
    block,
    block_text,
    figure,
    load,
    named,
    ratio,
    rows_of,
    run_named,
    start,
)

PAGE = "README.md"

_UNKNOWN = "-"


def main() -> int:
    """Write, print or add; return 1 with a sentence where a run is not known."""
    parser = argparse.ArgumentParser(prog="measured", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--block", metavar="RUN")
    action.add_argument("--add", nargs="+", metavar=("RUN", "FILE"))
    given = parser.parse_args()
    folder = given.folder.resolve()
    measurement = load(folder)
    wanted = given.block or (given.add and given.add[0])
    names = [run.name for run in measurement.runs]
    if wanted and wanted not in names:
        known = ", ".join(names)
        print(f"{MEASUREMENT} has no run {wanted}; it has {known}", file=sys.stderr)  # noqa: T201
        return 1
    if given.block:
        print(block_text(block(folder, measurement, given.block)), end="")  # noqa: T201
    elif given.add:
        for path in map(Path, given.add[1:]):
            add(folder / wanted, path)
    else:
        (folder / PAGE).write_text(page(folder, measurement), encoding="utf-8")
    return 0


def page(folder: Path, measurement: Measurement) -> str:
    """Write the page: conditions, tables with ratios, starts, findings, what is missing."""
    made_by = f"`python -m toolchain.measured {named(folder)}`"
    starts = _starts(folder, measurement.runs)
    parts = [
        f"# {measurement.title}",
        f"Written by {made_by} from the benchmark's own results, which lie beside this page.",
        _subject(measurement),
        "## Conditions",
        _list(measurement.setting),
    ]
    for machine in dict.fromkeys(run.machine for run in measurement.runs):
        runs = [run for run in measurement.runs if run.machine == machine]
        parts += [f"## Machine {machine}", _options(runs)]
        parts += [speeds] if (speeds := _speeds(folder, runs)) else []
        parts += [table] if (table := _alone(folder, runs)) else []
    best = _best(folder, measurement.runs)
    parts += ["## The best ratio at each load", _BEST, best] if best else []
    parts += ["## Starts and memory", _STARTS, starts] if starts else []
    if measurement.rehearsals:
        stages = _rehearsal_stages(folder, measurement)
        parts += ["## Rehearsals", _REHEARSALS, stages, _rehearsal_ends(measurement)]
    if measurement.collectives:
        text = (folder / measurement.collectives).read_text(encoding="utf-8").strip()
        parts += ["## Collectives of the two GPUs", f"```\n{text}\n```"]
    if measurement.findings:
        parts += ["## What it says", _list(measurement.findings)]
    if measurement.not_measured:
        parts += ["## Not measured", _list(measurement.not_measured)]
    return "\n\n".join(parts) + "\n"


_BEST = (
    "Tokens/s over those of the recipe on the same machine. What is no profile may lack the key "
    "gate, TLS, or a stop that lets requests end."
)

_STARTS = (
    "From vLLM's logs. `/health` counts from the process's start; it is given where nothing else "
    "ran beside the start. Seconds are the slowest rank's; memory is GiB of the fullest GPU; the "
    "KV cache's tokens are one engine's."
)

_REHEARSALS = (
    "A rehearsal is a start that is ended before the real one, which finds its caches. Seconds by "
    "stage are from vLLM's logs; those before the first line are imports. What was saved is "
    "counted from the first rehearsal: it stands for a start without one."
)


def _subject(measurement: Measurement) -> str:
    gpus = f"{measurement.num_gpus}x {measurement.gpu_name}"
    return f"vLLM {measurement.vllm}, {gpus}, {measurement.weights} weights, {measurement.date}."


def _list(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {sentence.strip()}" for sentence in sentences)


def _options(runs: Sequence[Run]) -> str:
    return _list(
        f"**{run.title}**: {run.options}.{f' {run.note.strip()}' if run.note else ''}"
        for run in runs
    )


def _speeds(folder: Path, runs: Sequence[Run]) -> str:
    by_run = {run.name: rows_of(folder, run) for run in runs}
    lines = []
    for shape in sorted({shape for found in by_run.values() for shape in found}):
        for run in runs:
            row = by_run[run.name].get(shape)
            if row:
                compared = by_run.get(run.against or "", {}).get(shape)
                lines.append(_speed_cells(run, row, compared))
    head = (
        "clients",
        "tokens in / out",
        "run",
        "requests (failed)",
        "tokens/s",
        "ratio",
        "first token p50 / p99 ms",
        "each further token p50 / p99 ms",
        "whole request p50 / p99 ms",
    )
    return _table(head, lines) if lines else ""


def _speed_cells(run: Run, row: Row, compared: Row | None) -> list[str]:
    over = ratio(row, compared)
    return [
        str(row.clients),
        f"{row.tokens_in} / {row.tokens_out}",
        run.title,
        f"{row.requests} ({row.failed})",
        f"{figure(row.tokens_per_second):g}",
        _UNKNOWN if over is None else f"**{over:.2f}**",
        f"{row.ttft[0]:.0f} / {row.ttft[1]:.0f}",
        f"{row.tpot[0]:.2f} / {row.tpot[1]:.2f}",
        f"{row.e2el[0]:.0f} / {row.e2el[1]:.0f}",
    ]


def _best(folder: Path, runs: Sequence[Run]) -> str:
    """The highest ratio of each load: among the profiles' own runs, and among all."""
    by_run = {run.name: rows_of(folder, run) for run in runs}
    found: dict[tuple[int, int, int], list[tuple[float, Run]]] = {}
    for run in runs:
        for shape, row in by_run[run.name].items():
            over = ratio(row, by_run.get(run.against or "", {}).get(shape))
            if over is not None:
                found.setdefault(shape, []).append((over, run))
    lines = []
    for (tokens_in, tokens_out, clients), ratios in sorted(found.items()):
        of_profiles = [(over, run) for over, run in ratios if run.profile]
        cells = [*_highest(of_profiles), *_highest(ratios)]
        lines.append([str(clients), f"{tokens_in} / {tokens_out}", *cells])
    head = ("clients", "tokens in / out", "best profile", "ratio", "best of all runs", "ratio")
    return _table(head, lines) if lines else ""


def _highest(ratios: Sequence[tuple[float, Run]]) -> tuple[str, str]:
    if not ratios:
        return _UNKNOWN, _UNKNOWN
    over, run = max(ratios, key=lambda one: one[0])
    return f"{run.title} ({run.machine})", f"**{over:.2f}**"


def _alone(folder: Path, runs: Sequence[Run]) -> str:
    """One request alone by its prompt's length: what a step of that many tokens costs."""
    by_run = {run: _alone_times(folder / run.name) for run in runs}
    shown = {run: times for run, times in by_run.items() if times}
    if not shown:
        return ""
    lengths = sorted({length for times in shown.values() for length in times})
    lines = [
        [
            run.title,
            *(f"{times[length]:.0f}" if length in times else _UNKNOWN for length in lengths),
        ]
        for run, times in shown.items()
    ]
    head = ["first token of one request alone, median ms, by tokens in", *map(str, lengths)]
    return _table(head, lines)


def _alone_times(folder: Path) -> dict[int, float]:
    path = folder / ALONE
    if not path.is_file():
        return {}
    times = json.loads(path.read_text(encoding="utf-8"))["milliseconds_by_prompt_length"]
    return {int(length): statistics.median(values) for length, values in times.items()}


def _starts(folder: Path, runs: Sequence[Run]) -> str:
    lines = []
    for run in runs:
        path = folder / run.name / LOG
        facts = start(path.read_text(encoding="utf-8")) if path.is_file() else Start()
        if facts != Start():
            lines.append([f"{run.machine}: {run.title}", *_start_cells(run, facts)])
    if not lines:
        return ""
    head = (
        "start",
        "`/health` s",
        "torch.compile s",
        "graphs s",
        "init engine s",
        "weights",
        "graphs, in fact / estimated",
        "KV cache",
        "KV tokens",
    )
    return _table(head, lines)


def _start_cells(run: Run, facts: Start) -> list[str]:
    graphs = _UNKNOWN
    if facts.graphs_gib is not None and facts.estimated_gib is not None:
        graphs = f"{facts.graphs_gib:.2f} / {facts.estimated_gib:.2f}"
    return [
        _number(run.health_seconds, 1),
        _number(facts.compile, 1),
        _number(facts.graphs, 0),
        _number(facts.engine, 1),
        _number(facts.weights, 2),
        graphs,
        _number(facts.kv_gib, 2),
        _UNKNOWN if facts.kv_tokens is None else f"{facts.kv_tokens:,}",
    ]


def _rehearsal_stages(folder: Path, measurement: Measurement) -> str:
    """Seconds of each stage: of a rehearsal, of the start after it, and what that saved."""

    def read(run: str) -> BootLog:
        return boot_times.read(folder / run / LOG)

    first = _stages(read(measurement.rehearsals[0].run))
    head, columns = ["stage, s"], []
    for rehearsal in measurement.rehearsals:
        head.append(run_named(measurement, rehearsal.run).title)
        columns.append(_stages(read(rehearsal.run)))
        if rehearsal.start:
            after = _stages(read(rehearsal.start))
            head += [run_named(measurement, rehearsal.start).title, "saved"]
            columns += [after, {stage: first[stage] - after[stage] for stage in first}]
    lines = [
        [
            boot_times.TO_SERVING if stage is Stage.SERVING else stage.name.lower(),
            *(_number(column.get(stage), 0) for column in columns),
        ]
        for stage in Stage
        if stage in first
    ]
    return _table(head, lines)


def _stages(log: BootLog) -> dict[Stage, float]:
    """Give the seconds that each stage took, and under `SERVING` those of all together."""
    whole = log.reached.get(Stage.SERVING)
    return boot_times.seconds(log) | ({} if whole is None else {Stage.SERVING: whole})


def _rehearsal_ends(measurement: Measurement) -> str:
    cold = run_named(measurement, measurement.rehearsals[0].run).health_seconds
    lines = []
    for one in measurement.rehearsals:
        after = run_named(measurement, one.start).health_seconds if one.start else None
        saved = None if cold is None or after is None else cold - after
        lines.append(
            [
                run_named(measurement, one.run).title,
                _number(one.ended_after, 1),
                f"{one.used_mib:,}",
                _number(one.back_seconds, 1),
                _number(after, 1),
                _number(saved, 0),
            ]
        )
    head = (
        "rehearsal",
        "ended after s",
        "MiB in use then",
        "memory back after s",
        "`/health` of the next start s",
        "saved s",
    )
    return _table(head, lines)


def _number(value: float | None, digits: int) -> str:
    return _UNKNOWN if value is None else f"{value:.{digits}f}"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = ["---"] * len(head)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *lines))


if __name__ == "__main__":
    sys.exit(main())
