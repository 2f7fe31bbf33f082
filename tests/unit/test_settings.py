from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pulumi
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
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
        ({"maxDollarsPerHour": "abc"}, "'maxDollarsPerHour' is 'abc': a number has digits"),
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
        ({"replicas": "0"}, "'replicas' is '0': input should be greater than or equal to 1"),
        ({"replicas": "33"}, "'replicas' is '33': input should be less than or equal to 32"),
        ({"replicas": "2.5"}, "'replicas' is '2.5': a whole number has digits alone, such as 20"),
        ({"replicas": "2_0"}, "'replicas' is '2_0': a whole number has digits alone, such as 20"),
        ({"replicas": " 3"}, "'replicas' is ' 3': a whole number has digits alone"),
        ({"replicas": "\u0663"}, "a whole number has digits alone"),
        ({"diskGb": "+80"}, "'diskGb' is '+80': a whole number has digits alone"),
        ({"maxDollarsPerHour": "1_0.5"}, "'maxDollarsPerHour' is '1_0.5': a number has digits"),
        ({"maxDollarsPerMonth": "1e6"}, "a number has digits and one point at most"),
        ({"rentBudgetDollars": "inf"}, "a number has digits and one point at most"),
        ({"replicas": "2", "tls": "false"}, "replicas is 2 and tls is off"),
        ({"replicasMax": "33"}, "'replicasMax' is '33': input should be less than or equal to 32"),
        ({"replicas": "3", "replicasMax": "2"}, "replicasMax is 2 and replicas is 3"),
        ({"replicasMax": "2", "tls": "false"}, "replicasMax is 2 and tls is off"),
        ({"replicasMax": "2", "adopt": "9001"}, "adopt names the one instance 9001"),
        ({"replicasMax": "2", "idleMinutes": "30"}, "replicasMax is 2 and idleMinutes is 30"),
        (
            {"replicasMax": "3", "maxDollarsPerHour": "8", "maxDollarsPerHourTotal": "20"},
            "3 machines at up to $8.00/h each may cost $24.00/h",
        ),
        ({"replicas": "2", "adopt": "9001"}, "adopt names the one instance 9001"),
        ({"replicas": "2", "idleMinutes": "30"}, "replicas is 2 and idleMinutes is 30"),
        (
            {"replicas": "3", "maxDollarsPerHour": "8", "maxDollarsPerHourTotal": "20"},
            "3 machines at up to $8.00/h each may cost $24.00/h: let one cost at most 6.66 ",
        ),
        (
            {"replicas": "2", "maxDollarsPerMonth": "720", "maxDollarsPerHourTotal": "1.99"},
            "2 machines at up to $1.00/h each may cost $2.00/h: let one cost at most 0.99 ",
        ),
        ({"routerAddress": "router.example"}, "'routerAddress' is 'router.example': is no IP"),
        ({"routerAddress": ""}, "'routerAddress' is '': is no IP address"),
        ({"routerAddress": "0.0.0.0"}, "is no address that a client can call"),
        ({"routerAddress": "255.255.255.255"}, "is no address that a client can call"),
        ({"routerAddress": "fe80::1"}, "is no address that a client can call"),
        ({"routerAddress": "::ffff:127.0.0.1"}, "is no address that a client can call"),
        ({"routerPort": "65536"}, "'routerPort' is '65536'"),
        ({"routerHost": "-oProxyCommand=x@y"}, "must be empty for this computer, or user@host"),
        ({"routerHost": "router.example"}, "must be empty for this computer, or user@host"),
        ({"routerHost": "me@a:b"}, "must be empty for this computer, or user@host"),
        ({"routing": "random"}, "'routing' is 'random': input should be 'conversation' or"),
        ({"lostRouter": "maybe"}, "'lostRouter' is 'maybe': input should be 'refuse' or 'go-on'"),
        (
            {"replicas": "2", "routerHost": "me@router.example"},
            "the router runs on me@router.example and routerAddress is 127.0.0.1",
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


@pytest.mark.parametrize(
    "changes",
    [
        {"tls": "false"},
        {"adopt": "9001"},
        {"idleMinutes": "30"},
        {"maxDollarsPerHourTotal": "0.01"},
        {"routerHost": "me@router.example"},
    ],
)
def test_one_machine_may_have_what_several_may_not(changes):
    assert parse(values(**changes)).replicas == 1
    with pytest.raises(SettingRefused):
        parse(values(**changes, replicas="2"))


@pytest.mark.parametrize(
    "login", ["", "me@router.example", "me@192.0.2.7", "me@2001:db8::7", "me@::1", "a_b@my_box"]
)
def test_a_computer_is_named_as_ssh_takes_it(login):
    assert parse(values(routerHost=login)).router_host == login


def test_an_idle_machine_of_several_may_end_itself_if_that_is_meant():
    settings = parse(values(replicas="2", idleMinutes="30", idleReplica="end"))
    assert settings.idle_minutes == 30


@given(st.integers(2, 32), st.floats(0.01, 128), st.floats(0.01, 2000))
def test_the_cap_that_a_refused_total_names_is_taken(replicas, each, total):
    def with_cap(dollars: str) -> Any:
        return parse(
            values(
                replicas=str(replicas),
                maxDollarsPerHour=dollars,
                maxDollarsPerMonth="1000000000",
                maxDollarsPerHourTotal=f"{total:.4f}",
            )
        )

    try:
        settings = with_cap(f"{each:.4f}")
    except SettingRefused as refused:
        named = re.search(r"maxDollarsPerHour ([0-9.]+)`", str(refused))
        assert named is not None
        if float(named[1]):
            assert with_cap(named[1]).replicas == replicas
    else:
        most = replicas * settings.max_dollars_per_hour
        assert most <= settings.max_dollars_per_hour_total + 1e-6


@given(st.text())
def test_whatever_names_the_routers_computer_is_a_login_of_plain_characters(text):
    try:
        login = parse(values(routerHost=text)).router_host
    except SettingRefused:
        return
    assert login == "" or re.fullmatch(r"[\w.-]+@[\w.:-]+", login, re.ASCII)
    assert not login.startswith("-")


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
