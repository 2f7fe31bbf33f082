"""docs/load.md shows what its commands have printed, and pictures that load nothing."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from tests.helpers.load_scene import load_test, point
from tests.helpers.places import ROOT
from toolchain.day_two.load import drawing
from toolchain.day_two.load.pages import DOCUMENT, TESTS

_BLOCK = re.compile(r"<!-- output: ([a-z-]+) -->\n(.*?)<!-- end of output -->", re.DOTALL)
TEXT = DOCUMENT.read_text(encoding="utf-8")
PICTURES = re.findall(r"\(pictures/(load[a-z-]*\.svg)\)", TEXT)


def test_each_test_of_the_story_is_shown_once_in_eighty_columns():
    shown = dict(_BLOCK.findall(TEXT))
    assert list(shown) == [name for name, _ in TESTS]
    for text in shown.values():
        lines = [line.removeprefix("    ") for line in text.splitlines() if line.strip()]
        assert lines
        assert max(map(len, lines)) <= 80
        assert not re.search("loads-[a-z0-9_]+/", text)
    assert "within the noise of both" in " ".join(shown["again"].split())
    assert "< knee" in shown["long"]


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_of_it_is_an_svg_that_fetches_nothing(name):
    text = (ROOT / "docs/pictures" / name).read_text(encoding="utf-8")
    assert ET.fromstring(text).tag.endswith("svg")  # noqa: S314  (our own)
    assert not re.search(r"(href|src|url)\s*[=(]\s*[\"']?https?:", text)


def test_both_pictures_are_shown():
    assert sorted(PICTURES) == ["load-long.svg", "load.svg"]


@pytest.mark.parametrize("axis", ["clients", "requests/s"])
def test_the_same_tests_give_the_same_picture_and_one_point_is_enough(tmp_path, axis):
    knee = load_test(point(1, 100), point(2, 180, 520), point(4, 190, 2000), axis=axis)
    for tests in ([knee, knee], [load_test(point(1), axis=axis)]):
        texts = set()
        for number in range(2):
            path = tmp_path / f"{number}.svg"
            drawing.save(tests, path, "a title")
            texts.add(path.read_text())
        assert len(texts) == 1
