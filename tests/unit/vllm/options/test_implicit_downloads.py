"""Which repositories vLLM fetches by itself."""

from __future__ import annotations

import json
from typing import Any

import pytest

from components.vllm.options import implicit_downloads

FETCHED = {"org/model": "main", "org/head": "main"}

as_it_is_or_as_text = pytest.mark.parametrize("write", [dict, json.dumps])
"""vLLM reads a mapping and JSON text alike."""


def options(write: Any, **speculative: Any) -> dict[str, Any]:
    return {"seed": 1, "speculative-config": write({"method": "eagle", **speculative})}


@as_it_is_or_as_text
def test_a_draft_that_nobody_fetches_is_named_with_its_revision(write: Any) -> None:
    assert implicit_downloads.repositories(options(write, model="org/other"), FETCHED) == {
        "org/other": "main"
    }
    named = options(write, model="org/other", revision="v1")
    assert implicit_downloads.repositories(named, FETCHED) == {"org/other": "v1"}


@as_it_is_or_as_text
@pytest.mark.parametrize("model", [None, 1, "/root/head", "org/head", "org/model"])
def test_what_is_fetched_or_on_the_host_is_not(write: Any, model: object) -> None:
    assert implicit_downloads.repositories(options(write, model=model), FETCHED) == {}


@pytest.mark.parametrize("speculative", [None, "no JSON", "[]", 3])
def test_what_names_no_model_is_nothing_to_fetch(speculative: object) -> None:
    assert implicit_downloads.repositories({"speculative-config": speculative}, FETCHED) == {}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"tokenizer": "org/other"}, {"org/other": "main"}),
        ({"tokenizer": "org/other", "tokenizer-revision": "v2"}, {"org/other": "v2"}),
        ({"tokenizer": "org/model"}, {}),
        ({"tokenizer": "/root/tokenizer"}, {}),
        ({"lora-modules": ["one=org/adapter", "two=/root/adapter"]}, {"org/adapter": "main"}),
        ({"lora-modules": "one=org/adapter"}, {"org/adapter": "main"}),
        ({"lora-modules": ['{"name": "one", "path": "org/adapter"}']}, {"org/adapter": "main"}),
        ({"lora-modules": {"name": "one", "path": "org/adapter"}}, {"org/adapter": "main"}),
        ({"lora-modules": [3]}, {}),
        ({"default-mm-loras": {"image": "org/adapter", "audio": "/a/b"}}, {"org/adapter": "main"}),
        ({"default-mm-loras": '{"image": "org/adapter"}'}, {"org/adapter": "main"}),
        ({"default-mm-loras": "no JSON"}, {}),
        ({"hf-config-path": "org/other"}, {"org/other": "main"}),
        ({"hf-config-path": "org/other", "revision": "v2"}, {"org/other": "v2"}),
        ({"generation-config": "org/other", "revision": "v2"}, {"org/other": "main"}),
        ({"generation-config": "vllm"}, {}),
    ],
)
def test_what_else_names_a_repository_is_fetched_too(
    given: dict[str, Any], wanted: dict[str, str]
) -> None:
    assert implicit_downloads.repositories(given, FETCHED) == wanted
