"""libyaml gives what PyYAML's own reader gives, and no text ends the process."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from components.core import yaml_text
from components.core.yaml_text import MOST_LEVELS
from tests.helpers.places import ROOT

FILES = [
    *sorted(ROOT.glob("*.yaml")),
    *sorted((ROOT / "models").glob("*.yaml")),
    *sorted((ROOT / "docs").rglob("measurement.yaml")),
]

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_it_reads_what_pyyaml_reads(path):
    text = path.read_text(encoding="utf-8")
    assert yaml_text.read(text) == yaml.safe_load(text)


@given(PLAIN)
def test_what_is_written_is_read(value):
    assert yaml_text.read(yaml.safe_dump(value)) == value


def test_an_error_has_its_place_and_nothing_but_plain_types_are_made():
    with pytest.raises(yaml.MarkedYAMLError) as caught:
        yaml_text.read("a: 1\nb: [")
    assert caught.value.problem_mark is not None
    with pytest.raises(yaml.YAMLError):
        yaml_text.read("!!python/object/apply:os.getcwd []")


def nested(levels: int, begin: str, end: str) -> str:
    return begin * levels + end * levels


@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ("{a: ", "}"), ("- ", ""), ("[{a: ", "}]")])
@pytest.mark.parametrize("levels", [MOST_LEVELS + 1, 5_000, 100_000])
def test_a_text_that_nests_too_deep_is_refused_in_words(begin, end, levels):
    words = "more than 100 lists and mappings within each"
    with pytest.raises(yaml_text.NestsTooDeep, match=words):
        yaml_text.read(nested(levels, begin, end))


def test_as_deep_as_it_may_be_is_read():
    value = yaml_text.read(nested(MOST_LEVELS, "[", "]"))
    levels = 0
    while value:
        levels, value = levels + 1, value[0]
    assert levels == MOST_LEVELS - 1
