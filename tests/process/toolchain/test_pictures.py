"""README's pictures show what a terminal showed, and load nothing when somebody looks at them."""

from __future__ import annotations

import os
import re
import sys
from xml.etree import ElementTree as ET

import pytest

from toolchain.pictures import COLUMNS, GOALS, PICTURES, ROOT, NoPicture, picture, seen, shown_part

BLUE = "\x1b[34mblue\x1b[0m"


def text_of(svg: str) -> str:
    nodes = ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")  # noqa: S314  (our own file)
    return "".join(node.text or "" for node in nodes).replace("\xa0", " ")


def test_a_command_sees_a_terminal_and_its_status_comes_back():
    code = "import os, sys; print(os.get_terminal_size().columns, sys.stdout.isatty()); sys.exit(3)"
    assert seen([sys.executable, "-c", code], os.environ) == (3, f"{COLUMNS} True\n")


@pytest.mark.parametrize("goal", GOALS)
def test_a_picture_begins_where_it_should_and_says_what_is_left_out(goal):
    shown = shown_part(goal, f"set-up\n\n  {GOALS[goal]} {BLUE}\nlast\n").split("\n")
    assert shown[0] == f"$ make {goal}"
    assert "2 lines before this one are left out" in shown[1]
    assert shown[2:] == [f"  {GOALS[goal]} {BLUE}", "last"]


def test_what_does_not_come_to_its_first_line_is_no_picture():
    with pytest.raises(NoPicture, match="prints no line"):
        shown_part("up", "error: no offer\n")


def test_colours_are_drawn_and_letters_are_not_lost():
    svg = picture("preview", f"Diagnostics:\n{BLUE} and <b>&amp;\n")
    assert "blue and <b>&amp;" in text_of(svg)
    assert svg.count("fill: #608ab1") == 1


@pytest.mark.parametrize("goal", GOALS)
def test_the_committed_pictures_load_nothing_and_show_no_folder_of_a_computer(goal):
    svg = (PICTURES / f"{goal}.svg").read_text(encoding="utf-8")
    assert re.findall(r"url\((?!#)|(?:href|src)=|@import|@font-face|<script", svg) == []
    assert re.findall(r"/(?:home|tmp|root|work|Users)/", svg) == []
    assert f"$ make {goal}" in text_of(svg)


def test_the_committed_pictures_show_a_stack_that_came_up():
    assert "+ 12 to create" in text_of((PICTURES / "preview.svg").read_text(encoding="utf-8"))
    up = text_of((PICTURES / "up.svg").read_text(encoding="utf-8"))
    assert "+ 12 created" in up
    assert "stack local is up" in up


def test_readme_shows_each_of_them():
    shown = re.findall(r"!\[[^\]]+\]\((docs/pictures/[^)]+)\)", (ROOT / "README.md").read_text())
    assert shown == [f"docs/pictures/{goal}.svg" for goal in GOALS]
