"""A load test as a picture: four plots over the load, the knee marked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from toolchain.day_two.load.curve import Point
from toolchain.day_two.load.kept import LoadTest

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = {"clients": "clients at the same time", "requests/s": "requests a second"}

INK = "#1f2933"
KNEE = "#d97706"


def save(tests: Sequence[LoadTest], path: Path, title: str) -> None:
    """Draw tests of the same loads over each other as SVG, the newest last; mark its knee.

    Raises:
        OSError: it cannot be written.
    """
    import matplotlib as mpl  # noqa: PLC0415  (a third of a second, for a picture alone)
    from matplotlib.figure import Figure  # noqa: PLC0415  (the same)

    axis = tests[-1].conditions.axis
    with mpl.rc_context({"svg.hashsalt": "load", "font.size": 9}):
        figure = Figure(figsize=(9, 6.5), layout="constrained")
        (first, token), (tokens, dollars) = figure.subplots(2, 2, sharex=True)
        for number, test in enumerate(tests):
            name = f"test of {test.conditions.at[:16].replace('T', ' ')}" if tests[1:] else ""
            color = f"C{number}"
            _times(first, test, lambda point: point.first_token, color, name)
            _times(token, test, lambda point: point.token, color, name)
            loads = [point.load for point in test.points]
            tokens.errorbar(
                loads,
                [point.tokens_per_second for point in test.points],
                [point.tokens_noise for point in test.points],
                color=color,
                marker="o",
                markersize=3,
                capsize=3,
                label=name,
            )
            rate = test.conditions.dollars_per_hour
            costs = [point.dollars_per_million(rate) for point in test.points]
            dollars.plot(loads, costs, color=color, marker="o", markersize=3, label=name)
        first.set_ylabel("ms to the first token")
        token.set_ylabel("ms for each further token")
        tokens.set_ylabel("tokens written a second")
        dollars.set_ylabel("$ for a million tokens written")
        found = tests[-1].knee
        for axes in (first, token, tokens, dollars):
            _finish(axes, found)
        for axes in (tokens, dollars):
            axes.set_xlabel(NAMES[axis])
        first.legend(fontsize=7)
        if axis == "clients":
            loads = [point.load for point in tests[-1].points]
            tokens.set_xscale("log", base=2)
            tokens.set_xticks(loads, [f"{load:g}" for load in loads])
            tokens.minorticks_off()
        figure.suptitle(title, color=INK)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None})
    # Matplotlib leaves blanks at the ends of lines.
    text = path.read_text(encoding="utf-8")
    path.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n", encoding="utf-8")


def _times(
    axes: Axes, test: LoadTest, of: Callable[[Point], object], color: str, name: str
) -> None:
    """Draw a time's median, with its 99th percentile dashed above it."""
    loads = [point.load for point in test.points]
    times = [of(point) for point in test.points]
    for share, style in (("p50", "-"), ("p99", "--")):
        values = [getattr(one, share) for one in times]
        label = f"{name} {share}".strip()
        axes.plot(loads, values, style, color=color, marker="o", markersize=3, label=label)


def _finish(axes: Axes, found: Point | None) -> None:
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, color="#e5e7eb", linewidth=0.6)
    if found is not None:
        axes.axvline(found.load, color=KNEE, linestyle=":", label="_knee")
        axes.annotate(
            "knee",
            (found.load, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(3, -10),
            textcoords="offset points",
            color=KNEE,
            fontsize=8,
        )
