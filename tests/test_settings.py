from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic.alias_generators import to_camel

from components.settings import SettingRefused, Settings, parse

PROJECT = yaml.safe_load((Path(__file__).parent.parent / "Pulumi.yaml").read_text())
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


def test_each_setting_is_declared_with_a_description_and_nothing_else_is():
    declared = set(PROJECT["config"])
    optional = {"huggingFaceToken"}  # a declared key without a default would be required
    assert declared == {to_camel(name) for name in Settings.model_fields} - optional
    assert all(entry["description"] for entry in PROJECT["config"].values())


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
        ({"machineGeneration": "0"}, "'machineGeneration' is '0'"),
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


def test_a_missing_key_is_named():
    some = values()
    del some["model"]
    with pytest.raises(SettingRefused, match="'model' is missing: `pulumi config set model"):
        parse(some)


def test_the_token_is_in_no_repr():
    settings = parse(values(huggingFaceToken="hf_sentinel"))
    assert "hf_sentinel" not in repr(settings)
