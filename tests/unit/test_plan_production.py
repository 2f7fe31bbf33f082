from __future__ import annotations

import json

import pytest
import yaml

from components.core.errors import ConfigurationError
from components.plan import MODELS, make_plan
from components.settings import parse
from tests.helpers.plan_scene import MEDIA, PINNED, PRODUCTION, in_production, plan
from tests.unit.test_settings import values


def test_production_takes_pictures_from_nowhere_unless_it_names_domains(tmp_path):
    def domains(**changes):
        made = in_production(tmp_path, settings=PRODUCTION | changes)
        return yaml.safe_load(made.serve_yaml)[MEDIA]

    assert domains() == ["none.invalid"]
    assert domains(mediaFrom="none") == ["none.invalid"]
    assert domains(mediaFrom="a.example") == ["a.example"]
    with pytest.raises(ConfigurationError, match=r"fetch any address.*\(mediaFrom: none, or the"):
        domains(mediaFrom="anywhere")
    with pytest.raises(ConfigurationError, match=r"come from 192\.168\.1\.1, which is no public"):
        domains(mediaFrom="a.example, 192.168.1.1")


def test_production_says_every_rule_that_is_broken_in_one_sentence():
    with pytest.raises(ConfigurationError) as raised:
        plan(production="true", tls="false")
    told = str(raised.value)
    for said in (
        "names no release",
        "no stack has to prove its releases",
        "tls is off",
        "no certified datacenters",
        "by a tag",
        "which is no commit",
    ):
        assert said in told
    assert "\n" not in told


def test_production_takes_a_model_at_a_commit_alone(tmp_path):
    with pytest.raises(ConfigurationError, match="'main', which is no commit"):
        in_production(tmp_path, commit="main")
    assert in_production(tmp_path).profile.revision == "a" * 40


def test_production_takes_a_release_alone_and_from_a_stack_before(tmp_path):
    profile = (MODELS / "mistral-small-4-fp8-2xh200.yaml").read_text()
    (tmp_path / "pinned.yaml").write_text(f"{profile}revision: {'a' * 40}\n")
    settings = values(model="pinned", image=PINNED, **PRODUCTION)
    with pytest.raises(ConfigurationError, match=r"production, and it names no release.*: nothing"):
        make_plan(parse(settings), models=tmp_path)
    first = PRODUCTION | {"promoteFrom": ""}
    with pytest.raises(ConfigurationError, match="and no stack has to prove its releases before"):
        in_production(tmp_path, settings=first)


def test_production_has_decided_about_machines_that_nobody_vouches_for(tmp_path):
    undecided = {key: value for key, value in PRODUCTION.items() if key != "firstContact"}
    with pytest.raises(ConfigurationError, match=r"\(firstContact: verified, or trust\)"):
        in_production(tmp_path, settings=undecided)
    in_production(tmp_path, settings=undecided | {"firstContact": "trust"})


def test_production_takes_no_draft_at_a_branch(tmp_path):
    draft = {"method": "draft_model", "model": "someone/draft", "num_speculative_tokens": 3}
    overrides = json.dumps({"speculative-config": draft})
    with pytest.raises(ConfigurationError, match="someone/draft is taken at 'main', which is no"):
        in_production(tmp_path, vllmOverrides=overrides)
    overrides = json.dumps({"speculative-config": {**draft, "revision": "b" * 40}})
    made = in_production(tmp_path, vllmOverrides=overrides)
    assert any("vLLM fetches it unseen" in warning for warning in made.warnings)
