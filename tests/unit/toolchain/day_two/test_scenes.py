"""docs/day-two-scenes.md: each command in each scene, as it was printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from toolchain.day_two import story
from toolchain.day_two.scenes import (
    COLUMNS,
    COMMANDS,
    SCENES,
    Printed,
    folded,
    page,
    shortened,
)

_BLOCK = re.compile(r"<!-- output: ([a-z0-9-]+) -->\n(.*?)<!-- end of output -->", re.DOTALL)
PAGE = story.EVERY_SCENE.read_text(encoding="utf-8")
BLOCKS = _BLOCK.findall(PAGE)


@pytest.mark.parametrize("scene", SCENES, ids=lambda one: one.name)
def test_each_command_was_asked_in_each_scene(scene):
    part = PAGE.split(f"\n## {scene.title}\n")[1].split("\n## ")[0]
    assert scene.about in part
    asked = re.findall(r"^`make ([a-z-]+)[^`]*` ends with ([012])[:,]", part, re.MULTILINE)
    assert {command for command, _ in asked} == set(COMMANDS)


def test_every_scene_is_played():
    text = Path(story.__file__).read_text(encoding="utf-8")
    assert set(re.findall(r'_scene\(\s*"([a-z-]+)"', text)) == {one.name for one in SCENES}


@pytest.mark.parametrize(("name", "text"), BLOCKS, ids=[name for name, _ in BLOCKS])
def test_an_output_is_plain_and_names_no_folder_of_a_computer(name, text):
    lines = [line.removeprefix("    ") for line in text.splitlines() if line.strip()]
    assert lines, f"{name} is empty"
    assert max(map(len, lines)) <= COLUMNS
    assert "days-" not in text, "a folder of the story"
    assert "Traceback" not in text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)


def played(text="x"):
    return {one.name: [Printed(command, 0, text) for command in COMMANDS] for one in SCENES}


def test_an_output_that_stands_there_once_is_not_repeated():
    made = page(played())
    assert made.count("<!-- output: ") == len(COMMANDS)
    assert made.count("prints the same as [there](#one-machine)") == len(COMMANDS) * (
        len(SCENES) - 1
    )


def test_another_status_is_another_output():
    scenes = played()
    scenes["down"][0] = Printed("status", 1, "x")
    assert "`make status` ends with 1:\n" in page(scenes)


def test_the_middle_of_a_report_is_left_out_but_once():
    scenes = {
        one.name: [Printed("field-report", 0, "\n".join(f"{one.name} {n}" for n in range(50)))]
        for one in SCENES
    }
    made = page(scenes)
    assert "    one 25\n" in made
    assert "    down 25\n" not in made
    assert made.count("[22 lines between these are left out]") == len(SCENES) - 1


def test_long_lines_are_folded_or_cut():
    sentence = "word " * 40
    assert max(map(len, folded(sentence).splitlines())) <= COLUMNS
    assert folded(sentence).split() == sentence.split()
    assert folded("x" * 200).replace("\n", "") == "x" * 200
    cut = shortened("\n".join("y" * 200 for _ in range(20))).splitlines()
    assert cut[0] == "[12 lines before these are left out]"
    assert len(cut) == 9
    assert max(map(len, cut)) <= COLUMNS
