from __future__ import annotations

import pytest

from components.vllm.change import describe

OLDS = {
    "status": "ready",
    "serve_yaml": "model: m\nmax-num-seqs: 32\n",
    "boot_seconds": {"download": 900.0, "load": 80.0, "graphs": 40.0},
    "tls": True,
    "key_grace_minutes": 10.0,
}

VARIABLES = ["environment"]


@pytest.mark.parametrize(
    ("news", "changed", "said"),
    [
        ({}, ["instance_id"], "moves to another host: boots there from the start and downloads"),
        (
            {"serve_yaml": "model: m\nmax-num-seqs: 64\n"},
            ["serve_yaml"],
            (
                "restarts on the same host after draining (max-num-seqs 32 -> 64): away for "
                "about 2 min, as its last start took, nothing is downloaded"
            ),
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


@pytest.mark.parametrize("changed", [[], ["ready_minutes"], ["host_port"]])
def test_what_a_client_does_not_notice_is_not_said(changed):
    assert describe(OLDS, OLDS, changed) is None


def test_a_server_that_was_found_dead_is_brought_back():
    dead = {**OLDS, "status": "the endpoint refuses the connection"}
    assert "found not ready (the endpoint refuses" in str(describe(dead, OLDS, []))


def test_without_a_known_start_no_number_is_invented():
    said = describe({**OLDS, "boot_seconds": {}}, {**OLDS, "tls": False}, ["tls"])
    assert "away for minutes" in str(said)
