"""Draw the panels out of a running Prometheus, with the same queries that Grafana is given.

`python -m toolchain.day_two.dashboard.picture http://127.0.0.1:9090 --stack dev --file panels.svg`
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from components.core.clock import Clock
from components.core.errors import ConfigurationError
from components.resources.context import current
from toolchain.day_two.dashboard.panels import Panel, Query, panels
from toolchain.options import amount

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 3
POINTS = 240
"""Of a line, at most."""

SECONDS = 30.0
"""Longest wait for one answer of Prometheus."""

Line = tuple[str, list[float], list[float]]
"""Name, minutes, values."""


class NoAnswer(ConfigurationError):
    """Prometheus does not answer a query.

    Cost: nothing.
    Remedy: start it with the files of `make dashboard`, and name its address.
    """


def main() -> int:
    """Read the command line, draw, and give the exit status."""
    reader = argparse.ArgumentParser(prog="picture", description="draw the panels of a stack")
    reader.add_argument("url")
    reader.add_argument("--stack", required=True)
    reader.add_argument("--file", type=Path, required=True)
    reader.add_argument("--minutes", type=amount(), default=60.0)
    given = reader.parse_args()
    try:
        draw(given.url, given.stack, given.minutes, given.file, current().clock)
    except ConfigurationError as error:
        print(error, file=sys.stderr)  # noqa: T201  (a command's own output)
        return 2
    return 0


def draw(url: str, stack: str, minutes: float, file: Path, clock: Clock) -> None:
    """Draw the last minutes of every panel that has data for each of its queries.

    Raises:
        NoAnswer: if Prometheus does not answer, or has nothing at all.
    """
    now = clock.epoch()
    found = {
        panel.title: [
            line for query in panel.queries for line in lines(url, query, now - minutes * 60, now)
        ]
        for panel in panels(stack, has_router=True)
    }
    shown = [panel for panel in panels(stack, has_router=True) if found[panel.title]]
    if not shown:
        raise NoAnswer(f"the Prometheus at {url} has no series of the stack {stack}")
    _write(shown, found, file)


def lines(url: str, query: Query, start: float, end: float) -> list[Line]:
    """Ask for a query over a time; moments are seconds since 1970.

    Raises:
        NoAnswer: if there is none.
    """
    words = {
        "query": query.expression,
        "start": str(start),
        "end": str(end),
        "step": str(max(1, math.ceil((end - start) / POINTS))),
    }
    try:
        answer = httpx.get(
            f"{url}/api/v1/query_range", params=words, timeout=SECONDS, trust_env=False
        )
        series = answer.json()["data"]["result"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise NoAnswer(
            f"the Prometheus at {url} does not answer ({type(error).__name__})"
        ) from None
    return [_line(query, one, end) for one in series]


def _line(query: Query, series: Mapping[str, Any], end: float) -> Line:
    points = [(float(at), float(value)) for at, value in series["values"]]
    return (
        named(query.legend, series["metric"]),
        [(at - end) / 60 for at, _ in points],
        [value for _, value in points],
    )


def named(legend: str, labels: Mapping[str, str]) -> str:
    """Name a line as Grafana does: `{{label}}` stands for the label's value."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), legend)


def _write(shown: Sequence[Panel], found: Mapping[str, list[Line]], file: Path) -> None:
    # Its import takes a second, and looks for the fonts of the computer.
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    rows = math.ceil(len(shown) / COLUMNS)
    # The same data is the same file.
    with plt.rc_context({"svg.hashsalt": "vast-vllm", "font.size": 8}):
        figure, axes = plt.subplots(
            rows, COLUMNS, figsize=(4 * COLUMNS, 2.3 * rows), squeeze=False, layout="constrained"
        )
        for panel, place in zip(shown, axes.flat, strict=False):
            _panel(panel, found[panel.title], place)
        for place in list(axes.flat)[len(shown) :]:
            place.set_visible(False)
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, metadata={"Date": None})
        plt.close(figure)


def _panel(panel: Panel, drawn: Sequence[Line], place: Axes) -> None:
    for name, minutes, values in drawn:
        place.plot(minutes, values, label=name, linewidth=1.2)
    unit = "" if panel.unit in {"short", "bool"} else f" ({UNITS[panel.unit]})"
    place.set_title(f"{panel.title}{unit}", fontsize=9, loc="left")
    place.set_ylim(bottom=0)
    place.grid(visible=True, alpha=0.3)
    place.set_xlabel("minutes", fontsize=7)
    place.legend(fontsize=6, loc="best", frameon=False)


UNITS = {"s": "s", "percentunit": "share", "reqps": "1/s", "currencyUSD": "$"}
"""Of Grafana's names, those of this page."""


if __name__ == "__main__":
    sys.exit(main())
