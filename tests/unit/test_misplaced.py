"""Settings where nobody reads them are told, with what was meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.misplaced import beside_config, in_other_namespaces, similar
from components.settings import KEYS, SettingRefused
from components.settings_loader import refuse_misplaced

PROJECT = "vast-vllm"


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("vast_vllm:maxDollarsPerHour", "vast-vllm:maxDollarsPerHour"),
        ("vastvllm:maxDollarsPerHour", "vast-vllm:maxDollarsPerHour"),
        ("Vast-vLLM:max_dollars_per_hour", "vast-vllm:maxDollarsPerHour"),
        ("vast-vlm:model", "vast-vllm:model"),
        ("vllm:offerQery", "vast-vllm:offerQuery"),
        ("aws:timeToLiveHours", "vast-vllm:timeToLiveHours"),
    ],
)
def test_a_key_in_another_namespace_is_told_with_what_was_meant(key, meant):
    said = in_other_namespaces(["vast-vllm:model", key], PROJECT, KEYS)
    assert f"configuration key {key!r} is not read by anybody" in said
    assert said.endswith(f"did you mean '{meant}'?")


@pytest.mark.parametrize(
    "key",
    ["vast-vllm:maxDollarsPerHour", "pulumi:tags", "aws:region", "docker:image", "azure:model"],
)
def test_keys_of_the_project_and_of_others_are_let_be(key):
    assert in_other_namespaces([key], PROJECT, KEYS) == ""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"vast-vllm:maxDollarsPerHour": 5}, "did you mean 'vast-vllm:maxDollarsPerHour' under"),
        ({"maxDollarsPerHour": 5, "config": {}}, "'maxDollarsPerHour' stands outside of `config:`"),
        ({"vast_vllm:idle_minutes": 5}, "did you mean 'vast-vllm:idleMinutes' under `config:`?"),
        ({"vast-vllm": {"diskGb": 5}}, "'vast-vllm' stands outside of `config:`"),
        ({"Config": {"vast-vllm:diskGb": 5}}, "'Config' is not read by anybody: did you mean"),
        ({"configs": {}}, "did you mean 'config'?"),
    ],
)
def test_what_stands_beside_config_is_told(content, said):
    assert said in beside_config(content, PROJECT, KEYS)


@pytest.mark.parametrize("key", ["environment", "secretsprovider", "encryptionsalt", "description"])
def test_what_pulumi_has_beside_config_is_let_be(key):
    assert beside_config({key: "x", "config": {"a:b": 1}}, PROJECT, KEYS) == ""


def spelt(key: str) -> st.SearchStrategy[str]:
    """A setting as people spell it: in another case, with dashes or underscores."""
    words = "".join(f" {one}" if one.isupper() else one for one in key).split()
    return st.sampled_from(
        [key, key.lower(), key.upper(), "_".join(words).lower(), "-".join(words).lower()]
    )


@given(st.sampled_from(KEYS).flatmap(lambda key: st.tuples(st.just(key), spelt(key))))
def test_however_a_setting_is_spelt_it_is_the_one_that_is_named(spelling):
    key, written = spelling
    assert similar(written, KEYS) == key
    for project in ("vast_vllm", "vastVllm"):
        with pytest.raises(SettingRefused, match=f"did you mean 'vast-vllm:{key}'"):
            refuse_misplaced(PROJECT, [f"{project}:{written}"], {})
    with pytest.raises(SettingRefused, match=f"did you mean 'vast-vllm:{key}' under `config:`"):
        refuse_misplaced(PROJECT, [], {written: 1})
