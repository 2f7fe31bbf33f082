"""`make cost`: what the ledger charged against what was expected, in 80 columns or as a model."""

from __future__ import annotations

import dataclasses
import datetime as dt
import io
from typing import cast

import pytest
from rich.console import Console

from components.resources.context import Context
from components.vast.charges import Line
from tests.helpers.day_two import strangers
from toolchain import cost
from toolchain.day_two.command import Asked


def line(stack="dev", resource="endpoint-r12-instance", **changes):
    charged = {"gpu": 12345.678, "disk": 123.4, "bwd": 1234.5, "bwu": 999.9, "other": 0.004}
    contracts = changes.pop("contracts", ("instance-82227616",))
    return Line(stack, resource, dt.date(2026, 11, 28), contracts, 24.0, charged, 14703.48)


def printed(lines, stack):
    days = tuple(map(cost._day, lines))
    answer = cost.Cost(
        asked_at="", stack=stack, since="", days=days, charged=1.0, expected=None, words="sums"
    )
    paper = io.StringIO()
    console = Console(file=paper, width=80, color_system=None)
    for part in cost.show(answer):
        console.print(part)
    return paper.getvalue()


@pytest.mark.parametrize("stack", ["dev", ""])
def test_a_line_fits_into_eighty_columns_with_nothing_cut(stack):
    contracts = tuple(f"instance-8222761{n}" for n in range(4))
    text = printed([line(), line(contracts=contracts)], stack)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    flat = "".join(text.split())
    for whole in ("12345.68", "2234.40", "14703.48", "endpoint-r12-", "82227613"):
        assert whole in flat
    assert ("dev/endpoint" in flat) == (stack == "")


def test_what_was_not_expected_is_unknown():
    other = cost._day(line()).model_copy(update={"expected": None})
    assert cost._row(other, "dev")[-1] == "unknown"


def test_nothing_charged_is_one_sentence():
    assert printed([], "dev").strip() == "sums"


@dataclasses.dataclass(frozen=True)
class Here:
    """The command line, with a market of the test's."""

    context: Context


@pytest.mark.parametrize("plot", ["cost.foo", "a-file/cost.svg", "folder.svg"])
def test_a_picture_that_cannot_be_drawn_takes_no_figures_away(tmp_path, plot):
    (tmp_path / "a-file").touch()
    (tmp_path / "folder.svg").mkdir()
    here = cast("Asked", Here(strangers(tmp_path, servers={})))
    answer = cost.cost(here, "old", cost.MOST_DAYS, tmp_path / plot)
    assert (answer.charged, answer.plot, answer.exit_status) == (12.0, "", 0)
    (note,) = answer.notes
    assert note.startswith(f"{tmp_path / plot} cannot be drawn: ")
    assert not any("plot:" in str(part) for part in cost.show(answer))


def test_where_it_is_drawn_is_said(tmp_path):
    here = cast("Asked", Here(strangers(tmp_path, servers={})))
    answer = cost.cost(here, "old", 30, tmp_path / "cost.svg")
    assert (answer.plot, answer.notes) == (str(tmp_path / "cost.svg"), ())
    assert (tmp_path / "cost.svg").read_text().startswith("<?xml")
