"""`make dashboard`: write what a Prometheus and a Grafana need to watch a stack.

It exits with 0 if everything is written and checked, 1 if a machine cannot be asked, and 2 if
nothing could be written.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from rich.console import RenderableType
from rich.text import Text

from toolchain.day_two.answer import Answer, Problem, in_utc
from toolchain.day_two.command import Asked, asked, facts, parser, run
from toolchain.day_two.dashboard import exporter, prometheus
from toolchain.day_two.dashboard.files import folder_of, write
from toolchain.day_two.dashboard.grafana import dashboard_json
from toolchain.day_two.dashboard.panels import panels
from toolchain.day_two.dashboard.rules import FIRST_TOKEN_SECONDS, Aims, rules, written
from toolchain.day_two.dashboard.targets import Target, targets, without_key
from toolchain.day_two.fleet import Fleet, read_fleet
from toolchain.options import amount, budget
from toolchain.prometheus import PROMETHEUS

DASHBOARD = "dashboard.json"

CHECK_SECONDS = 60.0

SECONDS = amount(above=0, most=9999)
"""Reads the aim for first tokens."""

Check = Callable[[Path], str]
"""Says what `promtool` has against a configuration; empty for nothing."""


class Dashboard(Answer):
    """The answer of `make dashboard`."""

    format: Literal["vast-vllm/dashboard/1"] = "vast-vllm/dashboard/1"
    folder: str
    targets: tuple[str, ...]
    """Names and addresses of what Prometheus asks, without our exporter."""
    alerts: tuple[str, ...]
    panels: int
    checked: bool
    """Whether `promtool` has looked at the files."""


def main() -> int:
    """Read the command line, and give the exit status."""
    reader = parser("dashboard", "write what Prometheus and Grafana need to watch a stack")
    reader.add_argument("--budget", type=budget, help="the aim for dollars, such as 300/day")
    reader.add_argument("--first-token", type=SECONDS, default=FIRST_TOKEN_SECONDS)
    reader.add_argument(
        "--port", type=exporter.PORTS, default=exporter.PORT, help="of `make exporter`"
    )
    given = reader.parse_args()
    here = asked(given)
    aims = Aims(given.first_token, given.budget)

    def ask() -> Dashboard:
        folder = folder_of(here.stack, on_account=here.on_account)
        return make(
            read_fleet(here),
            here.context.clock.epoch(),
            folder=folder,
            aims=aims,
            exporter_at=f"{exporter.HOST}:{given.port}",
            check=promtool_here(),
        )

    return run(here, ask, lambda answer: show(here, answer))


def make(
    fleet: Fleet,
    now: float,
    *,
    folder: Path,
    aims: Aims,
    exporter_at: str,
    check: Check | None,
) -> Dashboard:
    """Write the files of a stack, and have them checked; `now` in seconds since 1970.

    Raises:
        NoMetricsKey: if no machine can be asked.
        NotWritten: if they cannot be written.
    """
    asked_ones = targets(fleet)
    shown = panels(fleet.stack, has_router=any(one.role == "router" for one in asked_ones))
    alerts = rules(fleet.stack, aims)
    texts = {
        prometheus.CONFIGURATION: prometheus.configuration(fleet.stack, asked_ones, exporter_at),
        prometheus.RULES: written(fleet.stack, alerts),
        DASHBOARD: dashboard_json(fleet.stack, shown),
        **secrets(asked_ones),
    }
    write(folder, texts)
    said = check(folder / prometheus.CONFIGURATION) if check else ""
    return Dashboard(
        asked_at=in_utc(now),
        stack=fleet.stack,
        problems=(
            *(_unasked(fleet, name) for name in without_key(fleet)),
            *([_refused(said)] if said else []),
        ),
        notes=tuple(_notes(aims, is_checked=check is not None)),
        folder=str(folder),
        targets=tuple(f"{one.name} {one.address}" for one in asked_ones),
        alerts=tuple(one.name for one in alerts),
        panels=len(shown),
        checked=check is not None,
    )


def secrets(found: Sequence[Target]) -> dict[str, str]:
    """Give the files with keys and certificates, by name."""
    texts = {}
    for one in found:
        texts[prometheus.key_file(one)] = one.key
        if one.is_tls:
            texts[prometheus.authorities_file(one)] = one.authorities
        if one.identity:
            texts[prometheus.identity_file(one)] = one.identity
    return texts


def promtool_here() -> Check | None:
    """Give the check by `promtool`, if it is there."""
    program = PROMETHEUS.program("promtool")
    return None if program is None else lambda file: refusal(program, file)


def refusal(program: Path, file: Path) -> str:
    """Say in one line what `promtool` has against a configuration; empty for nothing."""
    try:
        done = subprocess.run(  # noqa: S603  (our own arguments)
            [str(program), "check", "config", str(file)],
            check=False,
            capture_output=True,
            text=True,
            timeout=CHECK_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"promtool does not run ({type(error).__name__})"
    said = (done.stderr or done.stdout).strip().splitlines() or ["no word"]
    return "" if done.returncode == 0 else said[-1].strip()[:300]


def show(here: Asked, answer: Dashboard) -> list[RenderableType]:
    """Show an answer to a person."""
    folder = Path(answer.folder)
    start = (
        "prometheus",
        f"--config.file={folder / prometheus.CONFIGURATION}",
        f"--storage.tsdb.path={folder / 'data'}",
    )
    place = " ON=account" if here.on_account else ""
    return [
        Text(answer.folder, style="bold"),
        facts(
            [
                ("asks", ", ".join(answer.targets)),
                ("alerts", ", ".join(answer.alerts)),
                ("panels", f"{answer.panels}, in {DASHBOARD}, to import into Grafana"),
                ("checked", "by promtool" if answer.checked else ""),
                ("start", shlex.join(start)),
                ("money and ends", f"make exporter STACK={answer.stack}{place}"),
            ]
        ),
    ]


def _unasked(fleet: Fleet, name: str) -> Problem:
    return Problem(
        about=name,
        text="it takes no key for its counters yet, and Prometheus does not ask it",
        mend=f"`pulumi up --stack {fleet.stack}` gives it one, then `make dashboard` again",
    )


def _refused(said: str) -> Problem:
    return Problem(
        about="files",
        text=f"promtool refuses them: {said}",
        mend="take a Prometheus of 2.42 or newer",
    )


def _notes(aims: Aims, *, is_checked: bool) -> list[str]:
    notes = []
    if aims.dollars_per_day is None:
        notes.append("no alert watches the spending: add an aim, such as `BUDGET=300/day`")
    if not is_checked:
        notes.append("promtool is not there, so nobody has checked the files: see `make setup`")
    return notes
