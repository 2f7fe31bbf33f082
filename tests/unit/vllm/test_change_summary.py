from __future__ import annotations

import pytest
from pulumi.output import Unknown

from components.vllm.change_summary import change
from components.vllm.change_summary import describe as describe_typed
from components.vllm.server_state import ServerInputs, ServerState
from tests.helpers.server_bags import state_bag

OLDS = state_bag() | {
    "status": "ready",
    "serve_yaml": "model: m\nmax-num-seqs: 32\n",
    "boot_seconds": {"download": 900.0, "load": 80.0, "graphs": 40.0},
    "tls": True,
    "leaf": "the first",
    "key_grace_minutes": 10.0,
}

VARIABLES = ["environment"]


def describe(olds, news, changed):
    return describe_typed(ServerState.from_bag(olds), ServerInputs.from_bag(news), changed)


@pytest.mark.parametrize(
    ("news", "changed", "said"),
    [
        ({}, ["instance_id"], "moves to another host: boots there from the start and downloads"),
        ({}, ["instance_id", "key_digest"], "the weights again, and takes another API key"),
        (
            {"serve_yaml": "model: m\nmax-num-seqs: 64\n"},
            ["serve_yaml"],
            (
                "restarts on the same host after draining (max-num-seqs 32 -> 64): away for "
                "about 2 min, as its last start took, nothing is downloaded"
            ),
        ),
        (
            {"serve_yaml": "model: m\nmax-num-seqs: 64\n", "rollout": "vast-vllm/dev/chat"},
            ["serve_yaml"],
            "(max-num-seqs 32 -> 64), in its turn among its siblings: away for about 2 min",
        ),
        (
            {"serve_yaml": "model: m\nenforce-eager: true\n"},
            ["serve_yaml"],
            "enforce-eager unset -> True, max-num-seqs 32 -> unset",
        ),
        ({}, ["model_env"], "(other files of the model)"),
        ({}, ["model_env"], "what is not on its disk yet is downloaded"),
        ({"tls": False}, ["tls"], "TLS off"),
        ({}, ["agent", "environment"], "other variables, newer scripts"),
        ({}, ["key_digest", "api_key"], "takes a new key; the old one works 10 minutes longer"),
        ({"leaf": "the next"}, ["leaf"], "takes a new certificate, and nothing restarts"),
        ({"max_request_mib": 8}, ["max_request_mib"], "requests of up to 8 MiB, and nothing rest"),
    ],
)
def test_each_change_says_what_it_will_do(news, changed, said):
    assert said in str(describe(OLDS, {**OLDS, **news}, changed))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "HF_HUB_CACHE=/data\n"),
        ("HF_HUB_CACHE=/data\n", ""),
        ("HF_HUB_CACHE=/data\nHF_TOKEN=hf_one\n", "HF_HUB_CACHE='/my data'\nHF_TOKEN=hf_two\n"),
    ],
)
def test_another_cache_is_filled_anew_and_no_variable_is_told(before, after):
    said = str(describe({**OLDS, "environment": before}, {**OLDS, "environment": after}, VARIABLES))
    assert said.endswith("and the weights are downloaded anew, into another cache (HF_HUB_CACHE)")
    assert "data" not in said
    assert "hf_" not in said


def test_with_the_same_cache_nothing_is_downloaded():
    before, after = "HF_HUB_CACHE=/data\nA=1\n", "A=2\nHF_HUB_CACHE=/data\n"
    said = str(describe({**OLDS, "environment": before}, {**OLDS, "environment": after}, VARIABLES))
    assert said.endswith("nothing is downloaded")


def serving(model: str, gb: float, **told: str) -> dict[str, object]:
    words = {"MODEL": model, "FILES": "*", "REVISION": "main", **told}
    assigned = "".join(f"{name}='{value}'\n" for name, value in words.items())
    return {**OLDS, "model_env": assigned, "download_gb": gb}


def changes_model(before: dict[str, object], after: dict[str, object], disk_gb: float) -> str:
    news = {**after, "disk_gb": disk_gb, "image_gb": 30.0}
    return str(describe(before, news, ["model_env"]))


@pytest.mark.parametrize(
    ("after", "disk_gb", "warned"),
    [
        (serving("b/b", 100.0), 264.0, True),
        (serving("b/b", 100.0), 265.0, False),
        (serving("a/a", 100.0, FILES="*.gguf"), 264.0, True),
        # Much of them may be the same files.
        (serving("a/a", 120.0, REVISION="v2"), 200.0, False),
        (serving("a/a", 121.0, COMPANIONS="a/head main *"), 200.0, False),
    ],
)
def test_weights_that_do_not_fit_beside_those_of_before_are_warned_of(after, disk_gb, warned):
    said = changes_model(serving("a/a", 120.0), after, disk_gb)
    assert "what is not on its disk yet is downloaded" in said
    assert ("which may fill its disk of 264 GB: with the 120 GB" in said) == warned
    assert ("a larger diskGb makes another machine" in said) == warned


def test_another_cache_takes_its_room_as_well():
    before = serving("a/a", 120.0)
    news = {**before, "environment": "HF_HUB_CACHE=/data\n", "disk_gb": 200.0, "image_gb": 30.0}
    assert "286 GB would be needed" in str(describe(before, news, VARIABLES))


def test_inputs_of_an_older_release_name_no_disk_and_are_no_reason_to_warn():
    before, after = serving("a/a", 120.0), serving("b/b", 100.0)
    assert "may fill" in changes_model(before, after, 100.0)
    assert "may fill" not in str(describe(before, after, ["model_env"]))


GROUP = {"rollout": "vast-vllm/dev/endpoint", "replica": 0, "replicas": [0, 1]}
SIGNED_ANEW = "takes a new certificate, and nothing restarts"


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({}, GROUP, SIGNED_ANEW),
        (GROUP, {}, SIGNED_ANEW),
        (GROUP, GROUP, SIGNED_ANEW),
        # Its authority may change without signing anew.
        ({}, {}, None),
    ],
)
def test_a_certificate_that_a_preview_does_not_know_is_said_where_it_is_surely_new(
    before, after, said
):
    news = {**OLDS, **after, "leaf": Unknown()}
    assert describe({**OLDS, **before}, news, ["leaf"]) == said


@pytest.mark.parametrize("changed", [[], ["ready_minutes"], ["host_port"]])
def test_what_a_client_does_not_notice_is_not_said(changed):
    assert describe(OLDS, OLDS, changed) is None


def test_a_server_that_was_found_dead_is_brought_back():
    dead = {**OLDS, "status": "the endpoint refuses the connection"}
    assert "found not ready (the endpoint refuses" in str(describe(dead, OLDS, []))


def test_without_a_known_start_no_number_is_invented():
    said = describe({**OLDS, "boot_seconds": {}}, {**OLDS, "tls": False}, ["tls"])
    assert "away for minutes" in str(said)


A, B = "a" * 40, "b" * 40
OLDER = {**OLDS, "model_env": "MODEL=org/model\n", "model_revision": A}


@pytest.mark.parametrize(
    ("olds", "commits", "said"),
    [
        (OLDER, {"org/model": A}, "restarts on the same host only if it runs others"),
        # Not known yet.
        (OLDER, None, "restarts on the same host only if it runs others"),
        (OLDER, {"org/model": B}, "(other commits than it runs: those of the Hub): away for about"),
        (OLDER, {"org/model": B}, "what is not on its disk yet is downloaded"),
        ({**OLDER, "commits": {"org/model": A}}, {"org/model": A}, "None"),
        ({**OLDER, "commits": {"org/model": A}}, {"org/model": B}, "other commits than it runs"),
    ],
)
def test_a_server_is_told_what_the_hubs_commits_mean_for_it(olds, commits, said):
    assert said in str(describe(olds, {**OLDER, "commits": commits}, ["commits", "hub_files"]))


@pytest.mark.parametrize("name", ["serve_yaml", "model_env", "environment"])
def test_what_a_preview_does_not_know_is_said_to_restart_also_where_nothing_was_set(name):
    olds = {**OLDS, name: ""}
    news = {**olds, name: Unknown()}
    found = change(ServerState.from_bag(olds), ServerInputs.from_bag(news))
    assert "restarts on the same host" in str(found.message)
