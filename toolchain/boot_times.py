"""How long vLLM's starts took, stage by stage: `python -m toolchain.boot_times vllm.log ...`.

A log is in the form of supervise.sh. The log of a rehearsal beside it is shown as well. The head
start of the rehearsal is a lower bound of the download's time. Seconds are whole, as in vLLM's
lines.
"""

from __future__ import annotations

import argparse
import datetime as dt
import itertools
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from components.vllm.readiness.log_parser import BootLog, Stage

TO_SERVING = "to serving"
LEAP_YEAR = dt.timedelta(days=366)
BESIDE = "beside the download"
SERVER = "vllm.log"
REHEARSAL = "rehearsal.log"
UNKNOWN = "-"


def main() -> int:
    """Print a table of the logs' stages."""
    parser = argparse.ArgumentParser(prog="python -m toolchain.boot_times", description=__doc__)
    parser.add_argument("logs", nargs="+", type=Path, metavar="LOG")
    try:
        logs = {str(path): read(path) for path in with_rehearsals(parser.parse_args().logs)}
    except OSError as error:
        text = f"cannot read {error.filename}: {error.strerror}"
        print(text, file=sys.stderr)  # noqa: T201  (a command's own output)
        return 1
    print(table(logs))  # noqa: T201  (a command's own output)
    return 0


def with_rehearsals(paths: Iterable[Path]) -> list[Path]:
    """Put the log of a rehearsal, if there is one, before that of its server."""
    found: list[Path] = []
    for path in paths:
        rehearsal = path.with_name(REHEARSAL)
        if path.name == SERVER and rehearsal.is_file():
            found.append(rehearsal)
        found.append(path)
    return list(dict.fromkeys(found))


def read(path: Path) -> BootLog:
    """Read a whole log.

    Raises:
        OSError: it cannot be read.
    """
    log = BootLog()
    log.feed(path.read_text(encoding="utf-8", errors="replace") + "\n")
    return log


def seconds(log: BootLog) -> dict[Stage, float]:
    """Return the seconds of each stage of the last run, without an unfinished last stage."""
    reached = [(stage, at) for stage, at in sorted(log.reached.items()) if at is not None]
    return {stage: after - at for (stage, at), (_, after) in itertools.pairwise(reached)}


def table(logs: Mapping[str, BootLog]) -> str:
    """Write a Markdown table: a row a stage, a column a log."""
    columns = [_column(log) for log in logs.values()]
    rows = [
        [stage.name.lower() if stage is not Stage.SERVING else TO_SERVING]
        + [column[stage] for column in columns]
        for stage in Stage
    ]
    head = ["stage, s", *(Path(name).stem for name in logs)]
    beside = [_whole(beside_download(name, logs)) for name in logs]
    if any(seconds != UNKNOWN for seconds in beside):
        rows.insert(0, [BESIDE, *beside])
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def beside_download(name: str, logs: Mapping[str, BootLog]) -> float | None:
    """Return how many seconds before its server the rehearsal `name` began; None if it is none."""
    server = logs.get(str(Path(name).with_name(SERVER)))
    if Path(name).name != REHEARSAL or server is None:
        return None
    began, ended = logs[name].started, server.started
    return ((ended - began) % LEAP_YEAR).total_seconds() if began and ended else None


def _column(log: BootLog) -> dict[Stage, str]:
    taken: dict[Stage, float | None] = {**seconds(log)}
    taken[Stage.SERVING] = log.reached.get(Stage.SERVING)
    return {stage: _whole(taken.get(stage)) for stage in Stage}


def _whole(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.0f}"


if __name__ == "__main__":
    sys.exit(main())
