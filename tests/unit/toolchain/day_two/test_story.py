"""docs/day-two.md shows what the commands have printed."""

from __future__ import annotations

import re

import pytest

from tests.helpers.fakes import VirtualClock
from tests.helpers.places import ROOT
from toolchain.day_two import story
from toolchain.day_two.pages import NoPage
from toolchain.day_two.scenes import COMMANDS, SCENES

NAMES = {
    "doctor",
    "doctor-broken",
    "history",
    "logs",
    "logs-boot",
    "logs-four",
    "logs-hostile",
    "status",
    "status-destroyed",
    "status-down",
    "status-four",
    "status-hostile",
    "status-router-down",
    "status-wrong-key",
}
_BLOCK = re.compile(r"<!-- output: ([a-z-]+) -->\n(.*?)<!-- end of output -->", re.DOTALL)
BLOCKS = _BLOCK.findall(story.DOCUMENT.read_text(encoding="utf-8"))


def test_each_output_is_shown_once():
    assert sorted(name for name, _ in BLOCKS) == sorted(NAMES)


def test_the_story_plays_each_output():
    played = set(re.findall(r'_show\("([a-z-]+)"', (ROOT / story.__file__).read_text()))
    assert sorted([*played, *story.SHOWN]) == sorted(NAMES)
    assert {scene for scene, _ in story.SHOWN.values()} <= {one.name for one in SCENES}
    assert {command for _, command in story.SHOWN.values()} <= set(COMMANDS)


def test_it_goes_on_when_the_endpoint_answers_again():
    clock, ends = VirtualClock(), iter([2, 1, 0])
    story.until_well(lambda: next(ends), clock)
    assert next(ends, None) is None


def test_a_stack_that_does_not_come_back_ends_it():
    with pytest.raises(NoPage, match="`make status` still ends with 1 after 60 s"):
        story.until_well(lambda: 1, VirtualClock())


@pytest.mark.parametrize(("name", "text"), BLOCKS, ids=lambda one: one[:20].strip())
def test_an_output_is_there_in_eighty_columns_and_names_no_folder_of_a_computer(name, text):
    lines = [line.removeprefix("    ") for line in text.splitlines() if line.strip()]
    assert len(lines) > 0, f"{name} is empty; run python -m toolchain.day_two.story"
    assert max(map(len, lines)) <= 80
    assert "days-" not in text, "a folder of the story"
    assert "Traceback" not in text
    assert "\x1b" not in text
