from __future__ import annotations

import shlex

from components.plan import MODELS
from components.vllm.profile import load_profile
from components.vllm.server import model_env


def test_the_host_is_told_of_every_repository_and_its_files() -> None:
    told = dict(
        word.split("=", 1)
        for word in shlex.split(model_env(load_profile("mistral-small-4-fp8-2xh200-eagle", MODELS)))
    )
    assert told["MODEL"] == "mistralai/Mistral-Small-4-119B-2603"
    assert told["FILES"].splitlines()[0] == "consolidated*"
    name, revision, *files = told["COMPANIONS"].split()
    assert (name, revision) == ("mistralai/Mistral-Small-4-119B-2603-eagle", "main")
    assert files[0] == "consolidated*"


def test_a_model_alone_has_no_companions() -> None:
    told = model_env(load_profile("qwen2.5-0.5b-1x4090", MODELS))
    assert "COMPANIONS=''\n" in told
