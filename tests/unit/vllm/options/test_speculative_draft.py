"""At which revision vLLM is told to take a draft model."""

from __future__ import annotations

import json
from typing import Any

import pytest

from components.vllm.options import speculative_draft

C, D = "c" * 40, "d" * 40

as_it_is_or_as_text = pytest.mark.parametrize("write", [dict, json.dumps])
"""vLLM reads a mapping and JSON text alike."""


def options(write: Any, **speculative: Any) -> dict[str, Any]:
    return {"seed": 1, "speculative-config": write({"method": "eagle", **speculative})}


@pytest.mark.parametrize("speculative", [None, "no JSON", "[]", 3])
def test_what_names_no_model_is_left_as_it_is(speculative: object) -> None:
    given = {"seed": 1, "speculative-config": speculative}
    assert speculative_draft.pinned(given, {"org/head": C}) == given


@as_it_is_or_as_text
@pytest.mark.parametrize(
    ("revision", "wanted"), [({}, C), ({"revision": "main"}, C), ({"revision": D}, D)]
)
def test_a_draft_is_taken_at_its_commit(write: Any, revision: dict[str, str], wanted: str) -> None:
    given = options(write, model="org/head", **revision)
    pinned = speculative_draft.pinned(given, {"org/head": C})
    speculative = pinned["speculative-config"]
    read = json.loads(speculative) if isinstance(speculative, str) else speculative
    assert read == {"method": "eagle", "model": "org/head", "revision": wanted}
    assert pinned["seed"] == 1


@as_it_is_or_as_text
def test_a_draft_whose_commit_is_not_known_is_left_as_it_is(write: Any) -> None:
    given = options(write, model="org/other")
    assert speculative_draft.pinned(given, {"org/head": C}) == given
