"""The page of several machines: its picture, and the table that a command writes."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from tests.cli import scale_out
from tests.cli.scale_out import Step, table
from toolchain.scale_out import benchmark
from toolchain.scale_out.page import DOCUMENT, marks, written
from toolchain.scale_out.picture import HEIGHT, MACHINES, PLACE, WIDTH, picture

SVG = "{http://www.w3.org/2000/svg}"
WIDEST = 6.6
"""Of a letter of 13 pixels, on the mean, in the fonts that browsers take."""


def test_the_picture_is_what_the_command_draws():
    assert PLACE.read_text(encoding="utf-8") == picture()


def test_all_words_of_the_picture_have_room():
    root = ET.fromstring(picture())  # noqa: S314  (our own text)
    boxes = [
        tuple(float(one.attrib[name]) for name in ("x", "y", "width", "height"))
        for one in root.iter(f"{SVG}rect")
        if "rx" in one.attrib
    ]
    texts = list(root.iter(f"{SVG}text"))
    assert len(boxes) == len(MACHINES) + 3
    for one in texts:
        x, y = float(one.attrib["x"]), float(one.attrib["y"])
        wide = len(one.text or "") * WIDEST
        around = [
            box for box in boxes if box[0] < x < box[0] + box[2] and box[1] < y < sum(box[1::2])
        ]
        left, width = (around[0][0], around[0][2]) if around else (0.0, float(WIDTH))
        assert left <= x - wide / 2, one.text
        assert x + wide / 2 <= left + width, one.text
        assert 0 < y < HEIGHT


def test_the_picture_asks_nobody():
    assert set(re.findall(r"https?://[^\"]*", picture())) == {"http://www.w3.org/2000/svg"}


def test_the_table_has_outcomes_and_no_figure_of_one_run():
    step = Step("a server dies", "`kill -9`", "it is started again", "those in flight there")
    step.seconds, step.figures = 25.3, ["16 failed of 400"]
    assert table([step]).splitlines()[2:] == [
        "| a server dies | `kill -9` | those in flight there | it is started again |"
    ]


def test_the_table_takes_the_place_of_the_previous_one_alone():
    begin, end = marks(scale_out.COMMAND)
    page = f"before\n{begin}\nold\n{end}after\n"
    content = table([Step("it grows", "`pulumi up`", r"done \1", "0")])
    once = written(page, scale_out.COMMAND, content)
    assert once == f"before\n{begin}\n{content}\n{end}after\n"
    assert written(once, scale_out.COMMAND, content) == once


def test_two_commands_write_into_one_page():
    page = "".join("".join(marks(command)) for command in ("make a", "make b"))
    both = written(written(page, "make a", "of a"), "make b", "of b")
    assert both.index("of a") < both.index("make b") < both.index("of b")
    assert written(both, "make a", "of a") == both


@pytest.mark.parametrize(
    "page", ["nothing", marks("make a")[0], "".join(reversed(marks("make a")))]
)
def test_a_page_without_a_place_for_it_is_not_written(page):
    with pytest.raises(ValueError, match="make a"):
        written(page, "make a", "x")


def rows_of(command):
    begin, end = marks(command)
    part = DOCUMENT.read_text(encoding="utf-8").partition(begin)[2].partition(end)[0]
    return part.strip().splitlines()[2:]


def test_the_page_has_each_aim_of_the_router():
    rows = rows_of(benchmark.COMMAND)
    assert len(rows) == 11
    assert {row.split("|")[3].strip() for row in rows} <= {"met", "missed", "undecided"}


def test_the_page_has_a_row_for_each_step():
    rows = rows_of(scale_out.COMMAND)
    assert len(rows) == 13
    planned = [row for row in rows if "`pulumi up`" in row and "kill" not in row]
    assert len(planned) == 7
    assert {row.split("|")[3].strip() for row in planned} <= {"0", "-"}
