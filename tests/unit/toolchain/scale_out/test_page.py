"""The page of several machines: its picture, and the table that a command writes."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from tests.cli.scale_out import BEGIN, DOCUMENT, END, Step, table, written
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
    page = f"before\n{BEGIN}\nold\n{END}after\n"
    step = Step("it grows", "`pulumi up`", r"done \1", "0")
    once = written(page, [step])
    assert once == f"before\n{BEGIN}\n{table([step])}\n{END}after\n"
    assert written(once, [step]) == once


def test_a_page_without_a_place_for_it_is_not_written():
    with pytest.raises(AssertionError):
        written("nothing", [])


def test_the_page_has_a_row_for_each_step():
    page = DOCUMENT.read_text(encoding="utf-8")
    rows = page.partition(BEGIN)[2].partition(END)[0].strip().splitlines()[2:]
    assert len(rows) == 13
    planned = [row for row in rows if "`pulumi up`" in row and "kill" not in row]
    assert len(planned) == 7
    assert {row.split("|")[3].strip() for row in planned} <= {"0", "-"}
