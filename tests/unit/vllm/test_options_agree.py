"""What preview lets through, vLLM's parser takes: shown with the stand-in's, of the same table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from components.vllm.errors import OptionRefused
from components.vllm.options.option_table import check_options, load_table, option_name
from emulator.standins.vllm import VERSION
from emulator.standins.vllm.options import parse

TABLE = load_table(VERSION)
NAMES = sorted(set(TABLE.options) - {"help", "config", "model"})
WORDS = st.sampled_from(
    [
        *("image=4", "many", "1", "1.5", "16k", "1.5K", "auto", "None", "[1]", "{}", "a/b.jinja"),
        *('{"image": 4}', '"a"', "true", "-1", "bfloat16", "1e3"),
    ]
)
VALUES = WORDS | st.integers() | st.floats(0, 10) | st.booleans() | st.lists(WORDS, max_size=2)
MAPPINGS = st.dictionaries(st.sampled_from(["image", "method"]), st.integers(0, 9), max_size=2)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("options") / "serve.yaml"


@given(name=st.sampled_from(NAMES), value=VALUES | MAPPINGS)
def test_what_preview_lets_through_the_parser_takes(place: Path, name: str, value: Any) -> None:
    try:
        check_options({name: value}, TABLE)
    except OptionRefused:
        return
    place.write_text(yaml.safe_dump({"model": "org/model", option_name(name): value}))
    parse(["serve", "--config", str(place)])
