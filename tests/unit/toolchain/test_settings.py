"""The files that `make settings` writes."""

from __future__ import annotations

import re
import shutil

import pytest
import yaml

from components.settings import KEYS, parse
from tests.helpers.places import ROOT
from toolchain.settings import TYPES, differing, main, page, project_file, settings

PROJECT = (ROOT / "Pulumi.yaml").read_text()


def test_the_committed_files_are_those_of_the_settings():
    assert differing(ROOT) == []


@pytest.mark.parametrize("name", ["Pulumi.yaml", "docs/settings.md"])
def test_a_file_that_was_edited_or_is_gone_is_refused_and_written_anew(tmp_path, name):
    (tmp_path / "docs").mkdir()
    for path in ("Pulumi.yaml", "docs/settings.md"):
        shutil.copy(ROOT / path, tmp_path / path)
    assert main(["--check"], tmp_path) is None
    edited = tmp_path / name
    edited.write_text(edited.read_text().replace("8.00", "9.00"))
    refusal = main(["--check"], tmp_path)
    assert refusal
    assert refusal.startswith(f"{name} differ")
    assert "make settings" in refusal
    assert main([], tmp_path) is None
    assert edited.read_text() == (ROOT / name).read_text()


def test_pulumi_reads_back_each_key_type_default_and_words():
    declared = yaml.safe_load(project_file("name: a\nconfig:\n  gone: {}\n"))
    assert declared.pop("name") == "a"
    assert set(declared["config"]) == set(KEYS) - {"huggingFaceToken"}
    for one in settings():
        if one.is_declared:
            entry = declared["config"][one.key]
            assert entry["type"] == one.type
            assert entry["default"] == one.default
            assert TYPES[type(entry["default"])] == one.type
            assert entry["description"].startswith(" ".join(one.words.split()))


def test_a_secret_stands_in_no_project_file():
    assert "huggingFaceToken" not in PROJECT
    assert "hugging" in page().lower()


def test_what_stands_before_the_settings_stays():
    assert project_file(PROJECT).startswith(PROJECT.partition("config:\n")[0])
    with pytest.raises(ValueError, match="config:"):
        project_file("name: a\n")


@pytest.mark.parametrize("one", settings(), ids=lambda one: one.key)
def test_each_setting_has_plain_words_and_a_default_that_it_can_have(one):
    assert one.words.strip().endswith(".")
    sentences = re.split(r"(?<=[.:;])\s", " ".join(one.words.split()))
    assert max(len(sentence.split()) for sentence in sentences) <= 25
    assert one.on_change
    assert page().count(f"### {one.key}\n") == 1
    if one.is_declared:
        parse({one.key: one.default})
