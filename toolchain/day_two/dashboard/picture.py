"""Draw the panels out of a running Prometheus, with the same queries that Grafana is given.

`python -m toolchain.day_two.dashboard.picture http://127.0.0.1:9090 --stack dev --file panels.svg`
"""

from __future__ import annotations

import argparse
import contextlib
import http
import math
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict

from components.core.bounded import Budget
from components.core.bounded_http import exchange, public_trust
from components.core.clock import Clock
from components.core.display import shown
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
"""Of one answer of Prometheus, from the connection to the last byte."""

CONNECT_SECONDS = 5.0

MOST_BYTES = 8_388_608
"""Of one answer: a thousand lines of so many points."""

MOST_MINUTES = 527_040.0
"""A year."""

Line = tuple[str, list[float], list[float]]
"""Name, minutes, values."""


class NoAnswer(ConfigurationError):
    """Prometheus does not answer a query.

    Cost: nothing.
    Remedy: start it with the files of `make dashboard`, and name its address.
    """


class NotDrawn(ConfigurationError):
    """The picture cannot be written.

    Cost: nothing.
    Remedy: name a file that ends in `.svg`, in a folder of your own with room.
    """


class Series(BaseModel):
    """A line as Prometheus answers it."""

    model_config = ConfigDict(frozen=True)

    metric: dict[str, str]
    values: list[tuple[float, float]]
    """Moments in seconds since 1970, and numbers, which Prometheus writes as texts."""


class Matrix(BaseModel):
    """Lines as Prometheus answers them."""

    model_config = ConfigDict(frozen=True)

    result: list[Series]


class QueryAnswer(BaseModel):
    """The answer of `api/v1/query_range`."""

    model_config = ConfigDict(frozen=True)

    data: Matrix


def main() -> int:
    """Read the command line, draw, and give the exit status."""
    reader = argparse.ArgumentParser(prog="picture", description="draw the panels of a stack")
    reader.add_argument("url")
    reader.add_argument("--stack", required=True)
    reader.add_argument("--file", type=Path, required=True)
    reader.add_argument("--minutes", type=amount(most=MOST_MINUTES), default=60.0)
    given = reader.parse_args()
    try:
        draw(given.url, given.stack, given.minutes, given.file, current().clock)
    except ConfigurationError as error:
        print(shown(str(error)), file=sys.stderr)  # noqa: T201  (a command's own output)
        return 2
    return 0


def draw(url: str, stack: str, minutes: float, file: Path, clock: Clock) -> None:
    """Draw the last minutes of every panel that has data for one of its queries.

    Raises:
        NoAnswer: if Prometheus does not answer, or has nothing at all.
        NotDrawn: if the file cannot be written.
    """
    with _drawing(file):
        _refuse_what_cannot_be_written(file)
    now = clock.epoch()
    found = {
        panel.title: [
            line
            for query in panel.queries
            for line in lines(url, query, now - minutes * 60, now, clock)
        ]
        for panel in panels(stack, has_router=True)
    }
    filled = [panel for panel in panels(stack, has_router=True) if found[panel.title]]
    if not filled:
        raise NoAnswer(f"the Prometheus at {url} has no series of the stack {stack}")
    with _drawing(file):
        _write(filled, found, file)


def lines(url: str, query: Query, start: float, end: float, clock: Clock) -> list[Line]:
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
        answer = exchange(
            "GET",
            f"{url.rstrip('/')}/api/v1/query_range?{urlencode(words)}",
            Budget(clock, SECONDS, MOST_BYTES),
            headers={},
            tls=public_trust(),
            connect_timeout=CONNECT_SECONDS,
        )
    except Exception as error:  # noqa: BLE001  (a stranger's bytes may bring libraries to any)
        raise NoAnswer(
            f"the Prometheus at {url} does not answer ({type(error).__name__})"
        ) from None
    if answer.status != http.HTTPStatus.OK:
        raise NoAnswer(f"the Prometheus at {url} answers {answer.status}")
    return read(url, answer.body, query, end)


def read(url: str, body: bytes, query: Query, end: float) -> list[Line]:
    """Read an answer; `end` is the moment of the picture's right edge, in seconds since 1970.

    Raises:
        NoAnswer: if no Prometheus answers so.
    """
    try:
        series = QueryAnswer.model_validate_json(body).data.result
    except ValueError:
        raise NoAnswer(f"what answers at {url} is no Prometheus") from None
    return [_line(query, one, end) for one in series]


def _line(query: Query, series: Series, end: float) -> Line:
    return (
        named(query.legend, series.metric),
        [(at - end) / 60 for at, _ in series.values],
        [value for _, value in series.values],
    )


def named(legend: str, labels: Mapping[str, str]) -> str:
    """Name a line as Grafana does: `{{label}}` stands for the label's value."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), legend)


@contextlib.contextmanager
def _drawing(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise NotDrawn(f"{file} cannot be drawn: {' '.join(str(why or error).split())}") from None


def _refuse_what_cannot_be_written(file: Path) -> None:
    """Fail before Prometheus is asked and anything is drawn, which takes seconds."""
    # Its import takes a third of a second, and looks for the fonts of the computer.
    from matplotlib.backend_bases import FigureCanvasBase  # noqa: PLC0415

    known = FigureCanvasBase.filetypes
    if file.suffix and file.suffix[1:].lower() not in known:
        raise ValueError(f"{file.suffix} is no picture's ending; known are {', '.join(known)}")
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists():
        with file.open("ab"):
            return
    with tempfile.TemporaryFile(dir=file.parent):
        return


def _write(filled: Sequence[Panel], found: Mapping[str, list[Line]], file: Path) -> None:
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    rows = math.ceil(len(filled) / COLUMNS)
    # The same data is the same file.
    with plt.rc_context({"svg.hashsalt": "vast-vllm", "font.size": 8}):
        figure, axes = plt.subplots(
            rows, COLUMNS, figsize=(4 * COLUMNS, 2.3 * rows), squeeze=False, layout="constrained"
        )
        for panel, place in zip(filled, axes.flat, strict=False):
            _panel(panel, found[panel.title], place)
        for place in list(axes.flat)[len(filled) :]:
            place.set_visible(False)
        figure.savefig(file, metadata={"Date": None})
        plt.close(figure)


def _panel(panel: Panel, drawn: Sequence[Line], place: Axes) -> None:
    for name, minutes, values in drawn:
        # Matplotlib takes what stands between two dollars for a formula.
        label = shown(name).replace("$", r"\$")
        place.plot(minutes, values, label=label, linewidth=1.2)
    unit = "" if panel.unit in {"short", "bool"} else f" ({UNITS[panel.unit]})"
    place.set_title(f"{panel.title}{unit}", fontsize=9, loc="left")
    place.set_ylim(bottom=0)
    place.grid(visible=True, alpha=0.3)
    place.set_xlabel("minutes", fontsize=7)
    if place.get_legend_handles_labels()[1]:
        place.legend(fontsize=6, loc="best", frameon=False)


UNITS = {"s": "s", "percentunit": "share", "reqps": "1/s", "currencyUSD": "$"}
"""Of Grafana's names, those of this page."""


if __name__ == "__main__":
    sys.exit(main())
