"""What SECURITY.md names exists: files, settings, rules; and what it says of the code is so."""

from __future__ import annotations

import re

import pytest
from pydantic.alias_generators import to_camel

from components.plan import make_plan
from components.settings import Settings, parse
from components.vllm.options.known_holes import HOLES
from tests.helpers.places import ROOT
from tests.unit.test_settings import values

PAGE = (ROOT / "SECURITY.md").read_text()
CODE = re.findall(r"`([^`\n]+)`", PAGE)
LINKS = [link for link in re.findall(r"\]\(([^)]+)\)", PAGE) if "://" not in link]


@pytest.mark.parametrize("path", sorted({*LINKS, *(word for word in CODE if word.endswith(".py"))}))
def test_each_file_that_it_names_is_there(path):
    assert (ROOT / path).is_file()


@pytest.mark.parametrize("word", sorted({word for word in CODE if re.search(r"[a-z][A-Z]", word)}))
def test_each_setting_that_it_names_is_one(word):
    assert word.split(":")[0] in {to_camel(name) for name in Settings.model_fields}


def test_the_option_that_it_proposes_is_taken():
    assert "`max-logprobs: 0`" in PAGE
    assert (
        "max-logprobs: 0"
        in make_plan(parse(values(vllmOverrides='{"max-logprobs": 0}'))).serve_yaml
    )


def test_a_hole_that_is_warned_of_is_not_said_to_be_in_every_version():
    assert "CVE-2026-9540" in PAGE
    assert "CVE-2026-9540" not in {one.id for one in HOLES}


def test_readme_leads_to_it():
    assert "[SECURITY.md](SECURITY.md)" in (ROOT / "README.md").read_text()
