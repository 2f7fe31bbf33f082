from __future__ import annotations

import dataclasses

import pytest
import yaml

from components.plan import MODELS, make_plan
from components.settings import parse
from components.vllm.agent_files import assigned, model_env
from components.vllm.hub_commits import Held, held, model_env_at, other_file, running, serve_yaml_at
from components.vllm.hub_references import HubFile
from components.vllm.profile import load_profile
from tests.helpers.server_bags import state_of
from tests.unit.test_settings import values

EAGLE = "mistral-small-4-fp8-2xh200-eagle"
PROFILE = load_profile(EAGLE, MODELS)
MODEL, (HEAD,) = PROFILE.repository, [one.repository for one in PROFILE.companions]
A, B, C = "a" * 40, "b" * 40, "c" * 40
COMMITS = {MODEL: A, HEAD: B}


def test_without_commits_a_host_is_told_what_it_was_told_before():
    made = make_plan(parse(values(model=EAGLE)))
    assert serve_yaml_at(made.serve_yaml, {}) == made.serve_yaml
    assert model_env_at(model_env(PROFILE), {}) == model_env(PROFILE)


def test_a_host_is_told_commits_and_never_a_branch():
    serve = yaml.safe_load(serve_yaml_at(make_plan(parse(values(model=EAGLE))).serve_yaml, COMMITS))
    assert serve["revision"] == A
    assert serve["speculative-config"]["revision"] == B
    told = assigned(model_env_at(model_env(PROFILE), COMMITS))
    assert told["REVISION"] == A
    assert told["COMPANIONS"].startswith(f"{HEAD} {B} consolidated*")
    assert told["FILES"] == assigned(model_env(PROFILE))["FILES"]


def test_a_profile_at_the_commits_is_told_the_same():
    pinned = make_plan(parse(values(model=EAGLE, revisions=dict(COMMITS))))
    branch = make_plan(parse(values(model=EAGLE)))
    assert pinned.serve_yaml == serve_yaml_at(branch.serve_yaml, COMMITS)
    assert model_env(pinned.profile) == model_env_at(model_env(branch.profile), COMMITS)


@pytest.mark.parametrize(
    ("revision", "companions", "said"),
    [
        (A, {HEAD: B}, ""),
        (A, {HEAD: B, "some/other": C}, ""),
        (C, {HEAD: B}, f"the host names commit {C} of {MODEL}, and had to fetch {A}"),
        (A, {HEAD: C}, f"the host names commit {C} of {HEAD}, and had to fetch {B}"),
        (A, {}, f"the host names no commit of {HEAD}"),
        ("\x1b]0;x\x07", {HEAD: B}, f"the host names no commit of {MODEL}"),
        ("", {HEAD: B}, "the host names no commit"),
        (C, {HEAD: B, MODEL: A}, f"the host names commit {C}"),
    ],
)
def test_a_host_is_held_to_what_it_was_told(revision, companions, said):
    host = held(model_env(PROFILE), {**COMMITS, "org/draft": C})
    complaint = host.complaint(revision, companions)
    assert said in complaint
    assert bool(said) is bool(complaint)
    assert complaint.isprintable()


def test_without_commits_a_host_is_held_to_nothing():
    assert Held(MODEL, {}).complaint("anything", {}) == ""


def test_what_runs_by_a_state():
    older = {"model_env": model_env(PROFILE), "model_revision": A, "companion_revisions": {HEAD: B}}
    assert running(state_of(**older)) == COMMITS
    assert running(state_of(**older, commits={MODEL: C})) == {MODEL: C, HEAD: B}


WEIGHTS = HubFile("weights", 5, "sha256:" + "0" * 64)
TOKENS = HubFile("tokens.json", 7, "git:" + A)
README = HubFile("README.md", 9, "git:" + B)
AT_THE_HUB = [WEIGHTS, TOKENS, README]


@pytest.mark.parametrize(
    ("claimed", "said"),
    [
        ([WEIGHTS, TOKENS], ""),
        (AT_THE_HUB, ""),
        ([WEIGHTS], "tokens.json is at the Hub and not on the host"),
        ([], "weights is at the Hub and not on the host"),
        (
            [dataclasses.replace(WEIGHTS, bytes=6), TOKENS],
            "weights has 6 bytes on the host and 5 at the Hub",
        ),
        (
            [dataclasses.replace(WEIGHTS, digest="sha256:" + "1" * 64), TOKENS],
            "weights has another digest on the host",
        ),
        (
            [*AT_THE_HUB, HubFile("evil\n.py", 1, "git:" + C)],
            "the host has a file that the Hub has not",
        ),
    ],
)
def test_a_hosts_files_are_the_hubs(claimed, said):
    different = other_file(claimed, [WEIGHTS, TOKENS], AT_THE_HUB)
    assert different.startswith(said)
    assert bool(said) is bool(different)
