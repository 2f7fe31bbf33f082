from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pulumi
import pytest
import yaml
from pulumi.runtime import config

from components.settings import SettingRefused, parse
from components.settings_loader import load
from tests.helpers.places import ROOT

PROJECT = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())
DEFAULTS = {key: declared["default"] for key, declared in PROJECT["config"].items()}


def as_pulumi_hands_over(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def values(**changes: Any) -> dict[str, Any]:
    return {key: as_pulumi_hands_over(value) for key, value in DEFAULTS.items()} | changes


def test_the_projects_defaults_are_settings():
    settings = parse(values())
    assert settings.model == "mistral-small-4-fp8-2xh200"
    assert settings.max_dollars_per_hour == 8.0
    assert settings.max_dollars_per_month == 6000.0
    assert settings.datacenter_only is False
    assert (settings.rent_budget_minutes, settings.rent_budget_dollars) == (60.0, 10.0)
    assert settings.tls is True
    assert settings.vllm_overrides == {}


def test_pulumis_defaults_are_those_that_hold_where_nothing_is_set():
    assert parse({}) == parse(values())


def test_objects_come_as_json_text():
    assert parse(values(vllmOverrides='{"max-num-seqs": 64}')).vllm_overrides == {
        "max-num-seqs": 64
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"offerQery": "x"}, "'offerQery' does not exist: did you mean 'offerQuery'?"),
        ({"zzz": "x"}, "'zzz' does not exist: the keys are adopt"),
        ({"maxDollarsPerHour": "abc"}, "'maxDollarsPerHour' is 'abc': input should be a valid"),
        ({"maxDollarsPerHour": "0"}, "'maxDollarsPerHour' is '0': input should be greater than 0"),
        ({"diskGb": "-1"}, "'diskGb' is '-1'"),
        ({"maxDollarsPerMonth": "0"}, "'maxDollarsPerMonth' is '0': input should be greater"),
        ({"datacenterOnly": "perhaps"}, "'datacenterOnly' is 'perhaps'"),
        ({"rentBudgetMinutes": "0"}, "'rentBudgetMinutes' is '0'"),
        ({"rentBudgetDollars": "-1"}, "'rentBudgetDollars' is '-1'"),
        ({"minReliability": "98"}, "'minReliability' is '98': input should be less than or equal"),
        ({"offerQuery": "a\nb"}, "must be one line"),
        ({"vllmOverrides": "[1]"}, "'vllmOverrides' is '[1]': input should be a valid dict"),
        ({"keyGeneration": "0"}, "'keyGeneration' is '0'"),
        ({"sharedApiKey": "often"}, "'sharedApiKey' is 'often'"),
        ({"marketEnd": "true"}, "marketEnd is true and timeToLiveHours is 0"),
        ({"maxRequestMib": "0"}, "'maxRequestMib' is '0'"),
        (
            {"firstContact": "trusted"},
            "'firstContact' is 'trusted': input should be '', 'trust' or",
        ),
        ({"mediaFrom": "*.a.example"}, "'mediaFrom' is '*.a.example': '*.a.example' is no domain"),
        ({"mediaFrom": "a\nb"}, "must be one line"),
        ({"machineGeneration": "0"}, "'machineGeneration' is '0'"),
        ({"caGeneration": "0"}, "'caGeneration' is '0'"),
        (
            {"clientCertificates": "true", "tls": "false"},
            "clientCertificates is on and tls is off: without TLS nobody shows a certificate",
        ),
        (
            {"replacement": "create-first", "whenContractEnds": "replace"},
            "whenContractEnds is replace, for which a machine goes before another one is rented",
        ),
    ],
)
def test_what_cannot_be_is_one_sentence_with_key_value_and_remedy(changes, said):
    with pytest.raises(SettingRefused) as refused:
        parse(values(**changes))
    text = str(refused.value)
    assert said in text
    assert "pulumi config" in text
    assert "\n" not in text


def test_the_token_is_in_no_repr():
    settings = parse(values(huggingFaceToken="hf_sentinel"))
    assert "hf_sentinel" not in repr(settings)


@pytest.fixture
def configured() -> Iterator[Callable[[dict[str, str], list[str]], None]]:
    """Set the running program's configuration and which of its keys are secrets."""
    before = dict(config.CONFIG.get())

    def configure(given: dict[str, str], secret: list[str]) -> None:
        config.set_all_config(
            {f"vast-vllm:{key}": value for key, value in given.items()},
            [f"vast-vllm:{key}" for key in secret],
        )

    yield configure
    config.set_all_config(before)


def test_a_secret_that_would_stand_in_the_state_in_clear_is_refused(configured):
    configured(values(vllmOverrides='{"seed": 1}'), ["vllmOverrides"])
    with pytest.raises(SettingRefused, match="'vllmOverrides' is set as a secret") as raised:
        load(pulumi.Config("vast-vllm"))
    assert "seed" not in str(raised.value)


def test_a_token_and_an_announcement_may_be_secrets(configured):
    given = {"huggingFaceToken": "hf_sentinel", "announceCommand": "tell --token sentinel"}
    configured(values(**given), list(given))
    settings = load(pulumi.Config("vast-vllm"))
    assert settings.announce_command == "tell --token sentinel"
    assert "sentinel" not in repr(settings)


@pytest.mark.parametrize(
    ("key", "value"),
    [("announceCommand", "tell --token sentinel\nand more"), ("huggingFaceToken", ["sentinel"])],
)
def test_a_value_that_may_be_secret_is_refused_without_being_quoted(key, value):
    with pytest.raises(SettingRefused, match=f"{key!r} .*config set --secret {key}") as refused:
        parse(values(**{key: value}))
    assert "sentinel" not in str(refused.value)


@pytest.mark.parametrize("number", ["inf", "nan", "-inf"])
@pytest.mark.parametrize("key", ["minDaysLeft", "minInetDownMbps", "rentBudgetDollars"])
def test_what_is_no_number_of_anything_is_refused(key, number):
    with pytest.raises(SettingRefused, match=key):
        parse(values(**{key: number}))


@pytest.mark.parametrize(
    ("key", "beside"),
    [("vast_vllm:maxDollarsPerHour", ""), ("", "vast-vllm:maxDollarsPerHour: 5\n")],
)
def test_a_cap_that_would_not_be_applied_is_refused_by_the_program(
    configured, tmp_path, key, beside
):
    configured(values(), [])
    if key:
        config.set_config(key, "5")
    (tmp_path / f"Pulumi.{pulumi.get_stack()}.yaml").write_text(beside)
    with pytest.raises(SettingRefused, match="did you mean 'vast-vllm:maxDollarsPerHour'"):
        load(pulumi.Config("vast-vllm"), tmp_path)
    (tmp_path / f"Pulumi.{pulumi.get_stack()}.yaml").write_text("{")
    if not key:
        assert load(pulumi.Config("vast-vllm"), tmp_path).max_dollars_per_hour == 8.0
