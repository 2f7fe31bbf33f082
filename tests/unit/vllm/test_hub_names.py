"""Which repositories vLLM's options name, and at which revision it takes a draft model."""

from __future__ import annotations

import json
from typing import Any

import pytest

from components.vllm.hub_names import implicit_downloads, with_pinned_draft

C, D = "c" * 40, "d" * 40
FETCHED = {"org/model": "main", "org/head": "main"}

as_it_is_or_as_text = pytest.mark.parametrize("write", [dict, json.dumps])
"""vLLM reads a mapping and JSON text alike."""


def options(write: Any, **speculative: Any) -> dict[str, Any]:
    return {"seed": 1, "speculative-config": write({"method": "eagle", **speculative})}


@pytest.mark.parametrize("speculative", [None, "no JSON", "[]", 3])
def test_what_names_no_model_is_left_as_it_is(speculative: object) -> None:
    given = {"seed": 1, "speculative-config": speculative}
    assert with_pinned_draft(given, {"org/head": C}) == given


@as_it_is_or_as_text
@pytest.mark.parametrize(
    ("revision", "wanted"), [({}, C), ({"revision": "main"}, C), ({"revision": D}, D)]
)
def test_a_draft_is_taken_at_its_commit(write: Any, revision: dict[str, str], wanted: str) -> None:
    given = options(write, model="org/head", **revision)
    pinned = with_pinned_draft(given, {"org/head": C})
    speculative = pinned["speculative-config"]
    read = json.loads(speculative) if isinstance(speculative, str) else speculative
    assert read == {"method": "eagle", "model": "org/head", "revision": wanted}
    assert pinned["seed"] == 1


@as_it_is_or_as_text
def test_a_draft_whose_commit_is_not_known_is_left_as_it_is(write: Any) -> None:
    given = options(write, model="org/other")
    assert with_pinned_draft(given, {"org/head": C}) == given


@as_it_is_or_as_text
def test_a_draft_that_nobody_fetches_is_named_with_its_revision(write: Any) -> None:
    assert implicit_downloads(options(write, model="org/other"), FETCHED) == {"org/other": "main"}
    named = options(write, model="org/other", revision="v1")
    assert implicit_downloads(named, FETCHED) == {"org/other": "v1"}


@as_it_is_or_as_text
@pytest.mark.parametrize("model", [None, 1, "/root/head", "org/head", "org/model"])
def test_what_is_fetched_or_on_the_host_is_not(write: Any, model: object) -> None:
    assert implicit_downloads(options(write, model=model), FETCHED) == {}


@pytest.mark.parametrize("speculative", [None, "no JSON", "[]", 3])
def test_what_names_no_model_is_nothing_to_fetch(speculative: object) -> None:
    assert implicit_downloads({"speculative-config": speculative}, FETCHED) == {}


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
    assert implicit_downloads(given, FETCHED) == wanted
