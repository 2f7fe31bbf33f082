"""The checks of the doctor, as functions of what was read."""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.vast.api.key_facts import KeyFacts
from components.vast.api.models import Instance
from components.vast.lifecycle.auto_shutdown import OVERDUE
from tests.helpers.fleets import CONTRACT, deployment, fleet
from tests.helpers.offers import instance
from tests.helpers.places import ROOT
from toolchain.day_two.attempt import Failed
from toolchain.day_two.doctor import ground
from toolchain.day_two.doctor.account_checks import NEEDED, PERMISSIONS
from toolchain.day_two.doctor.command import ALL_CHECKS, diagnose, show
from toolchain.day_two.doctor.facts import Facts, KeyPlace, LockFact, Tools
from toolchain.day_two.doctor.findings import Diagnosis, Finding
from toolchain.day_two.fleet import Fleet, fleet_of
from toolchain.orphans import Known
from toolchain.overdue import Recorded

NOW = 1_800_000_000.0
LABEL = "vast-vllm/old/endpoint-instance/4ab10f57b5ef2b10"
SILENT = Failed("ApiUnreachable", "nobody answers")


def contract(id_: int = CONTRACT, label: str = LABEL) -> Instance:
    return Instance.from_json(instance(id=id_, label=label, dph_total=6.0))


WELL = Facts(
    stack="old",
    on_account=True,
    now=NOW,
    environment={"VAST_URL": "https://console.vast.ai"},
    tools=Tools("3.11.7", "3.259.0 in .tools", "there", "there", "there", "2.6.12"),
    settings={"maxDollarsPerHour": "7.50"},
    key=KeyPlace("/home/me/.config/vastai/vast_api_key"),
    market="https://console.vast.ai",
    account=KeyFacts(1, 100.0, frozenset(NEEDED)),
    contracts=(contract(),),
    ledger=True,
    seconds_ahead=0.4,
    hub="https://huggingface.co",
    registry="https://registry-1.docker.io/v2/",
    backend="file:///home/me",
    stacks=("old",),
    fleet=fleet(),
    known=Known({"old": frozenset({"4ab10f"})}, frozenset({CONTRACT}), frozenset()),
)


def facts(**changes: Any) -> Facts:
    return dataclasses.replace(WELL, **changes)


def found(name: str, given: Facts) -> Finding:
    return next(one for one in diagnose(given).findings if one.name == name)


def test_a_set_up_without_a_fault_is_well():
    answer = diagnose(WELL)
    assert answer.problems == ()
    assert answer.exit_status == 0
    assert {one.state for one in answer.findings} == {"ok", "left out"}


def tools(**changes: str) -> Tools:
    return dataclasses.replace(WELL.tools, **changes)


def pending() -> Fleet:
    state = deployment()
    operation = {"type": "creating", "resource": {"urn": "urn:pulumi:old::p::t::endpoint-instance"}}
    return fleet_of("old", {**state, "pending_operations": [operation]})


LOCKED = LockFact(4711, "2026-11-28 20:00 UTC", is_stale=False, is_worked_on=False)
LATE = Recorded("old", CONTRACT, LABEL, NOW - OVERDUE - 1, account_id=1, is_changing=False)


BROKEN: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "no pulumi": ({"tools": tools(pulumi="")}, "Pulumi", "no CLI", "`make setup`"),
    "no host of providers": (
        {"tools": tools(provider_host="")},
        "Pulumi",
        "dynamic providers",
        "`make setup`",
    ),
    "no plugin on the emulator": (
        {"tools": tools(plugin=""), "on_account": False},
        "plugin",
        "plugin of pulumi-command",
        "`make setup`",
    ),
    "no home on the emulator": (
        {"tools": tools(home=""), "on_account": False},
        "home",
        "passphrase",
        "`make setup`",
    ),
    "no emulator": (
        {"environment": Failed("EmulatorDown", "it does not run"), "on_account": False},
        "emulator",
        "it does not run",
        "`make emulator`",
    ),
    "a setting that nobody reads": (
        {"settings_refused": "configuration key 'foo' does not exist: no (`pulumi config rm foo`)"},
        "settings",
        "configuration key 'foo' does not exist",
        "`pulumi config rm foo --stack old`",
    ),
    "two machines and no haproxy": (
        {"settings": {"replicas": 2}, "tools": tools(haproxy="")},
        "HAProxy",
        "2 machines need a router",
        "`make setup`",
    ),
    "a clock that is late": (
        {"seconds_ahead": -301.0},
        "clock",
        "301 s behind the market",
        "`sudo timedatectl set-ntp true`",
    ),
    "a pace that is none": (
        {"market": Failed("PaceRefused", "VAST_PACE is 'fast'")},
        "market",
        "VAST_PACE is 'fast'",
        "`unset VAST_PACE`",
    ),
    "no network": ({"market": SILENT, "account": SILENT}, "market", "nobody answers", "network"),
    "another account": (
        {"account": KeyFacts(7, 100.0, None)},
        "account",
        "of account 7, and the machines of the stack old are on account 1",
        "`vastai set api-key <key> &&",
    ),
    "a key without a permission": (
        {"account": KeyFacts(1, 100.0, frozenset(NEEDED) - {"instance_write"})},
        "permissions",
        "lacks instance_write: without instance_write no machine can be rented or ended",
        PERMISSIONS,
    ),
    "a ledger that may not be read": (
        {"ledger": Failed("PermissionMissing", "no"), "account": KeyFacts(1, 100.0, None)},
        "permissions",
        "lacks billing_read",
        PERMISSIONS,
    ),
    "credit for less than an hour": (
        {"account": KeyFacts(1, 3.0, None)},
        "credit",
        "$3.00, less than 1 h at $7.50/h",
        "https://cloud.vast.ai/billing/",
    ),
    "an orphan of the stack": (
        {"contracts": (contract(), contract(5))},
        "orphans",
        "1 contract is billed and in no state: 5 ($6.00/h)",
        "`make orphans DELETE=1 ON=account`",
    ),
    "an orphan of another backend": (
        {"contracts": (contract(), contract(5, "vast-vllm/prod/endpoint-instance/x"))},
        "orphans",
        "perhaps in another backend: 5",
        "`make orphans ON=account`",
    ),
    "a machine past its end": (
        {"recorded": (LATE,)},
        "overdue",
        f"past their own end: {CONTRACT}",
        "`make overdue DELETE=1 ON=account`",
    ),
    "no login": (
        {"stacks": Failed("PulumiFailed", "PULUMI_ACCESS_TOKEN must be set"), "backend": ""},
        "backend",
        "logged in to no backend",
        "`pulumi login`",
    ),
    "no stack": ({"fleet": None}, "stack", "no stack old", "`pulumi stack init old`"),
    "another passphrase": (
        {"fleet": Failed("PulumiFailed", "error: incorrect passphrase")},
        "stack",
        "passphrase is not set, or is another one",
        "`export PULUMI_CONFIG_PASSPHRASE_FILE=",
    ),
    "a lock of a dead process": (
        {"locks": (dataclasses.replace(LOCKED, is_stale=True),)},
        "lock",
        "process 4711 locked the stack at 2026-11-28 20:00 UTC, and is gone",
        "`pulumi cancel --yes --stack old`",
    ),
    "a lock of somebody": ({"locks": (LOCKED,)}, "lock", "nobody here knows", "`pulumi cancel"),
    "an operation that was cut off": (
        {"fleet": pending()},
        "pending",
        "creating endpoint-instance",
        "`pulumi up --stack old`",
    ),
    "a machine that is gone": (
        {"contracts": ()},
        "machines",
        f"the market has not: {CONTRACT}",
        "`pulumi refresh --stack old`",
    ),
}
"""By set-up: what differs, the check that finds it, parts of what it says and of what mends it."""


@pytest.mark.parametrize("broken", BROKEN)
def test_each_broken_set_up_is_named_with_what_mends_it(broken):
    changes, name, words, command = BROKEN[broken]
    finding = found(name, facts(**changes))
    assert finding.state == "wrong"
    assert words in finding.text
    assert command in finding.mend
    assert diagnose(facts(**changes)).exit_status == 1


def test_who_works_on_the_stack_just_now_is_no_fault():
    locks = (dataclasses.replace(LOCKED, is_worked_on=True),)
    given = facts(locks=locks, fleet=pending())
    assert found("lock", given).text == "process 4711 works on the stack since 2026-11-28 20:00 UTC"
    assert found("pending", given).state == "ok"


def test_what_nobody_answered_is_an_open_question_and_no_fault():
    given = facts(account=SILENT, contracts=SILENT, ledger=SILENT)
    answer = diagnose(given)
    assert answer.problems == ()
    assert answer.exit_status == 2
    assert any("nobody answers" in sentence for sentence in answer.not_asked)


def test_without_a_stack_the_account_is_judged_alone():
    given = facts(stack="", settings=None, registry=None, fleet=None)
    assert diagnose(given).exit_status == 0
    assert found("stack", given).state == "left out"


ANY = st.sampled_from([None, SILENT, Failed("KeyRefused", "no"), Failed("PermissionMissing", "no")])


ASKED = ("settings", "key", "market", "account", "contracts", "ledger", "hub", "registry")
OF_PULUMI = ("stacks", "fleet", "known")


@given(st.dictionaries(st.sampled_from((*ASKED, *OF_PULUMI)), ANY), st.booleans())
def test_whatever_has_no_answer_each_check_says_something(changes, on_account):
    answer = diagnose(facts(**changes, on_account=on_account))
    assert len(answer.findings) == len(ALL_CHECKS)
    assert all(one.text and bool(one.mend) == (one.state == "wrong") for one in answer.findings)


def test_the_permissions_that_are_printed_are_those_that_are_needed():
    granted = json.loads((ROOT / PERMISSIONS).read_text())["api"]
    assert granted.keys() == NEEDED.keys()


def test_a_line_for_each_check_fits_into_80_columns(capsys):
    from toolchain.day_two.command import write  # noqa: PLC0415

    write(show(diagnose(WELL)))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= len(ALL_CHECKS)
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("version", "environment", "packages", "name", "mend"),
    [
        ((3, 9, 2), "", "", "Python", "install a newer Python"),
        ((3, 11, 0), "", "", "packages", "`make setup` makes it"),
        ((3, 13, 1), "there", "", "packages", "`make setup` installs them"),
    ],
)
def test_what_everything_stands_on_comes_first(version, environment, packages, name, mend):
    missing = ground.what_is_missing(version, environment, packages)
    assert [one[0] for one in missing] == [name]
    assert mend in missing[0][2]
    assert mend in ground.shown(missing, "dev", as_json=False)


def test_a_computer_with_python_and_packages_goes_on():
    assert ground.what_is_missing((3, 12), "there", "as locked") == []


def test_without_packages_a_program_reads_the_same_model():
    missing = ground.what_is_missing((3, 9), "", "")
    read = json.loads(ground.shown(missing, "dev", as_json=True))
    verdict = read.pop("verdict")
    answer = Diagnosis.model_validate(read)
    assert answer.verdict == verdict == "not well"
    assert answer.problems[0].about == answer.findings[0].name == "Python"


def test_nothing_of_a_state_that_is_read_is_changed():
    before = copy.deepcopy(deployment())
    fleet_of("old", before)
    assert before == deployment()
