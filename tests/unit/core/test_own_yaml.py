"""libyaml gives what PyYAML's own reader gives, of every such file in the repository."""

from __future__ import annotations

import pytest
import yaml

from components.core import own_yaml
from tests.helpers.places import ROOT

FILES = [
    *sorted(ROOT.glob("*.yaml")),
    *sorted((ROOT / "models").glob("*.yaml")),
    *sorted((ROOT / "docs").rglob("measurement.yaml")),
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_it_reads_what_pyyaml_reads(path):
    text = path.read_text(encoding="utf-8")
    assert own_yaml.read(text) == yaml.safe_load(text)


def test_an_error_has_its_place_and_nothing_but_plain_types_are_made():
    with pytest.raises(yaml.MarkedYAMLError) as caught:
        own_yaml.read("a: 1\nb: [")
    assert caught.value.problem_mark is not None
    with pytest.raises(yaml.YAMLError):
        own_yaml.read("!!python/object/apply:os.getcwd []")
