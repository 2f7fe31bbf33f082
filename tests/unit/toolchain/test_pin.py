from __future__ import annotations

import pytest

from components.vllm.hub_references import HubRefuses, HubUnavailable, Reference, Snapshot
from toolchain.pin import RunsARelease, named, pinned

A, B = "a" * 40, "b" * 40
EAGLE = "mistral-small-4-fp8-2xh200-eagle"
MODEL = "mistralai/Mistral-Small-4-119B-2603"
HEAD = f"{MODEL}-eagle"


def settings(**values):
    return {f"vast-vllm:{key}": value for key, value in values.items()}


def test_what_settings_take_is_asked_about_at_its_branches():
    assert named({}) == (Reference(MODEL, "main"),)
    assert named(settings(model=EAGLE)) == (Reference(MODEL, "main"), Reference(HEAD, "main"))


def test_a_pin_of_before_is_no_branch_and_a_branch_that_is_set_is_one():
    assert named(settings(revisions={MODEL: A})) == (Reference(MODEL, "main"),)
    assert named(settings(revisions={MODEL: "next"})) == (Reference(MODEL, "next"),)


def test_a_draft_in_the_options_is_pinned_too():
    draft = {"speculative_config": {"method": "eagle", "model": "org/head", "revision": "next"}}
    assert Reference("org/head", "next") in named(settings(vllmOverrides=draft))


def test_a_release_names_its_commits_already():
    with pytest.raises(RunsARelease, match="runs the release r1, which names its commits"):
        named(settings(release="r1"))


def test_the_hubs_commits_are_what_is_written():
    at = {MODEL: A, HEAD: B}

    def snapshot(reference: Reference, token: str) -> Snapshot:
        assert token == "hf_x"
        return Snapshot(at[reference.repository], ())

    assert pinned(named(settings(model=EAGLE)), snapshot, "hf_x") == at


@pytest.mark.parametrize("error", [HubRefuses("no"), HubUnavailable("down")])
def test_without_an_answer_nothing_is_pinned(error):
    def snapshot(reference: Reference, token: str) -> Snapshot:
        del reference, token
        raise error

    with pytest.raises(type(error)):
        pinned([Reference(MODEL, "main")], snapshot, "")
