"""The documents of compare, boots and reports show what their commands have printed."""

from __future__ import annotations

import re

import pytest

from tests.helpers.places import ROOT
from toolchain.day_two.pages import DOCUMENTS, filled

NAMES = {"compare", "up", "boots", "field-report", "same", "changed"}
_BLOCK = re.compile(r"<!-- output: ([a-z-]+) -->\n(.*?)<!-- end of output -->", re.DOTALL)


def blocks():
    return [
        (document, *found)
        for document in DOCUMENTS
        for found in _BLOCK.findall((ROOT / "docs" / document).read_text(encoding="utf-8"))
    ]


def test_each_output_is_shown_once():
    assert sorted(name for _, name, _ in blocks()) == sorted(NAMES)


@pytest.mark.parametrize(
    ("document", "name", "text"), blocks(), ids=[name for _, name, _ in blocks()]
)
def test_an_output_is_there_in_eighty_columns_and_names_no_folder_of_a_computer(
    document, name, text
):
    lines = [line.removeprefix("    ") for line in text.splitlines() if line.strip()]
    assert len(lines) > 0, f"{document}: {name} is empty; run python -m toolchain.day_two.pages"
    # A model's answer, and a sentence beside the answer of a command, are as long as they are.
    long = [line for line in lines if len(line) > 80]
    assert all(line.startswith(("model: ", "written to ")) for line in long)
    assert "pages-" not in text, "a folder of the story"
    assert "Traceback" not in text


def test_a_block_is_replaced_as_a_whole_and_the_rest_stays():
    text = "a\n<!-- output: up -->\nold\n<!-- end of output -->\nb\n"
    once = filled(text, {"up": "one\n\ntwo\n"})
    assert once == "a\n<!-- output: up -->\n\n    one\n\n    two\n\n<!-- end of output -->\nb\n"
    assert filled(once, {"up": "one\n\ntwo"}) == once
