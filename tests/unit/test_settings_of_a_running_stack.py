"""What `docs/settings.md` says that a change does to a running stack is what the providers do."""

from __future__ import annotations

import functools
import re
from typing import Any

import pulumi
import pytest
from pulumi.runtime.rpc import unwrap_rpc_secret

from components import model_endpoint
from components.plan import make_plan
from components.release.release import Release, digest_of, to_text
from components.resources.instance import InstanceProvider
from components.resources.scale import READ_STATE
from components.settings import parse
from components.vast.instance_state import INPUTS
from tests.helpers.engine import mocked, settled
from tests.helpers.states import first_rented
from tests.unit.test_model_endpoint import EngineMocks, made_endpoint, pulumi_test
from tests.unit.test_settings import values
from toolchain.settings import settings

RUNNING = {name: value for name, value in first_rented().items() if name not in INPUTS}
"""What a refresh has recorded of the machine."""

RESTARTS = ("serve_yaml", "model_env", "environment", "agent", "tls")
"""Inputs of the server for which it restarts; `test_model_endpoint.py` holds the server to them."""

EXAMPLES: dict[str, dict[str, tuple[dict[str, str], ...]]] = {
    "model": {
        "restart": ({"model": "mistral-small-4-fp8-2xh200-latency"},),
        "another machine": ({"model": "mistral-small-4-fp8-1xh200"},),
    },
    "offerQuery": {
        "nothing": ({"offerQuery": "gpu_name=H200 num_gpus=2 geolocation=NL"},),
        "another machine": ({"offerQuery": "gpu_name=H100_SXM num_gpus=2"},),
    },
    "maxDollarsPerHour": {"nothing": ({"maxDollarsPerHour": "5"},)},
    "maxDollarsPerMonth": {"nothing": ({"maxDollarsPerMonth": "4000"},)},
    "datacenterOnly": {"nothing": ({"datacenterOnly": "true"},)},
    "rentBudgetMinutes": {"nothing": ({"rentBudgetMinutes": "30"},)},
    "rentBudgetDollars": {"nothing": ({"rentBudgetDollars": "5"},)},
    "diskGb": {"another machine": ({"diskGb": "900"},)},
    "image": {"another machine": ({"image": "vllm/vllm-openai:v0.33.0"},)},
    "adopt": {"nothing": ({"adopt": "9001"},)},
    "revisions": {
        "nothing": ({"revisions": '{"somebody/else": "main"}'},),
        "restart": ({"revisions": '{"mistralai/Mistral-Small-4-119B-2603": "other"}'},),
    },
    "maxModelLen": {"restart": ({"maxModelLen": "65536"},)},
    "vllmOverrides": {"restart": ({"vllmOverrides": '{"max-num-seqs": 64}'},)},
    "bootMinutes": {"nothing": ({"bootMinutes": "30"},)},
    "readyMinutes": {"nothing": ({"readyMinutes": "60"},)},
    "rehearse": {"nothing": ({"rehearse": "false"},)},
    "replicas": {"nothing": ({"replicas": "3"},)},
    "replicasMax": {"nothing": ({"replicasMax": "3"},)},
    "maxDollarsPerHourTotal": {"nothing": ({"maxDollarsPerHourTotal": "20"},)},
    "spread": {"nothing": ({"spread": "host"},)},
    "routerHost": {
        "nothing": ({"routerHost": "me@router.example", "routerAddress": "192.0.2.7"},),
    },
    "routerAddress": {"nothing": ({"routerAddress": "192.0.2.7"},)},
    "routerPort": {"nothing": ({"routerPort": "443"},)},
    "routing": {"nothing": ({"routing": "least-connections"},)},
    "lostRouter": {"nothing": ({"lostRouter": "go-on"},)},
    "idleReplica": {"nothing": ({"idleReplica": "end"},)},
    "keyGeneration": {"nothing": ({"keyGeneration": "2"},)},
    "sharedApiKey": {"nothing": ({"sharedApiKey": "true"},)},
    "keyGraceMinutes": {"nothing": ({"keyGraceMinutes": "30"},)},
    "firstContact": {"nothing": ({"firstContact": "verified"},)},
    "mediaFrom": {"restart": ({"mediaFrom": "none"},)},
    "maxRequestMib": {"nothing": ({"maxRequestMib": "64"},)},
    "minReliability": {"nothing": ({"minReliability": "0.99"},)},
    "minInetDownMbps": {"nothing": ({"minInetDownMbps": "900"},)},
    "minDaysLeft": {"nothing": ({"minDaysLeft": "9"},)},
    "expectedHours": {"nothing": ({"expectedHours": "100"},)},
    "tls": {"restart": ({"tls": "false"},)},
    "caGeneration": {"nothing": ({"caGeneration": "2"},)},
    "metrics": {"restart": ({"metrics": "true"},)},
    "clientCertificates": {"restart": ({"clientCertificates": "true"},)},
    "production": {
        "nothing": ({"production": "true"},),
        "restart": ({"production": "true"},),
    },
    "release": {
        "restart": ({"release": "shorter"},),
        "another machine": ({"release": "pinned"},),
    },
    "promoteFrom": {"nothing": ({"promoteFrom": "staging"},)},
    "replacement": {"another machine": ({"replacement": "create-first"},)},
    "machineGeneration": {
        "nothing": ({"machineGeneration": "2"},),
        "another machine": ({"machineGeneration": "2"},),
    },
    "announceCommand": {"nothing": ({"announceCommand": "true"},)},
    "drainMinutes": {"nothing": ({"drainMinutes": "20"},)},
    "contract": {"another machine": ({"contract": "interruptible"},)},
    "whenOutbid": {"nothing": ({"whenOutbid": "wait"}, {"whenOutbid": "rebid"})},
    "rerentTries": {"nothing": ({"rerentTries": "5"},)},
    "rerentDollars": {"nothing": ({"rerentDollars": "5"},)},
    "timeToLiveHours": {"nothing": ({"timeToLiveHours": "12"},)},
    "idleMinutes": {"nothing": ({"idleMinutes": "30"},)},
    "marketEnd": {"nothing": ({"timeToLiveHours": "12", "marketEnd": "true"},)},
    "warnDaysBefore": {"nothing": ({"warnDaysBefore": "5"},)},
    "whenContractEnds": {
        "nothing": ({"whenContractEnds": "replace"}, {"whenContractEnds": "accept"}),
    },
    "huggingFaceToken": {"restart": ({"huggingFaceToken": "hf_sentinel"},)},
}
"""By setting and effect, changes of a stack of defaults that have it."""

PROVEN = {
    "release": "pinned",
    "promoteFrom": "staging",
    "datacenterOnly": "true",
    "minReliability": "0.99",
    "firstContact": "trust",
}
"""What production has to have, besides pictures from nowhere, which is its default."""

BEFORE = {
    ("machineGeneration", "another machine"): {"replacement": "create-first"},
    ("production", "nothing"): PROVEN | {"mediaFrom": "none"},
    ("production", "restart"): PROVEN,
}
"""By setting and effect, what the stack has set before; nothing where it does not matter."""


class OtherStacks(EngineMocks):
    """The engine, with stacks that a production stack can take a release from."""

    def new_resource(
        self, args: pulumi.runtime.MockResourceArgs
    ) -> tuple[str | None, dict[str, Any]]:
        if args.typ == "pulumi:pulumi:StackReference":
            return args.name, {"name": args.name, "outputs": {}, "secretOutputNames": []}
        return super().new_resource(args)

    def call(self, args: pulumi.runtime.MockCallArgs) -> Any:
        """The stack's own state, in which no loop has ordered anything."""
        assert args.token == READ_STATE
        return {"outputs": {}}


@pytest.fixture
def mocks(loop_for_pulumi: None) -> EngineMocks:
    del loop_for_pulumi
    return mocked(OtherStacks())


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    """Releases that a stack can take: another context of the same image, and another image."""
    folder = tmp_path_factory.mktemp("releases")
    for name, changes in {
        "shorter": {"maxModelLen": "65536"},
        "pinned": {"image": f"vllm/vllm-openai:v0.32.0@sha256:{'a' * 64}"},
    }.items():
        runs = make_plan(parse(values(**changes))).runs("a" * 40, {})
        release = Release(name=name, digest=digest_of(runs), runs=runs, proven={})
        (folder / f"{name}.yaml").write_text(to_text(release))
    return folder


@pytest.fixture
def planned(releases, monkeypatch):
    """What a program plans takes its releases from there."""
    planned = functools.partial(make_plan, releases=releases)
    monkeypatch.setattr(model_endpoint, "make_plan", planned)


def of_the_first(mocks: EngineMocks, what: str) -> list[pulumi.runtime.MockResourceArgs]:
    """What the program makes of a machine, but for machines beyond the first."""
    return [
        made
        for name, made in mocks.all.items()
        if name.endswith(what) and not re.match(r"endpoint-r\d+-", name)
    ]


async def inputs(mocks: EngineMocks, changes: dict[str, str]) -> tuple[str, dict[str, Any], Any]:
    """Name and inputs of the first machine, and what its server restarts for."""
    mocks.all.clear()
    mocked(mocks)
    made_endpoint(**changes)
    await settled()
    (machine,) = of_the_first(mocks, "-instance")
    server = of_the_first(mocks, "-server")[0].inputs
    return machine.name, machine.inputs, [unwrap_rpc_secret(server[name]) for name in RESTARTS]


_composed: dict[str, tuple[str, dict[str, Any], Any]] = {}
"""What was composed of settings once: a third of a second each."""


async def effect(mocks: EngineMocks, before: dict[str, str], changes: dict[str, str]) -> str:
    if str(before) not in _composed:
        _composed[str(before)] = await inputs(mocks, before)
    old_name, olds, old_server = _composed[str(before)]
    name, news, server = await inputs(mocks, before | changes)
    diff = InstanceProvider().diff("9001", {**olds, **RUNNING}, news)
    if name != old_name or diff.replaces:
        return "another machine"
    return "restart" if server != old_server else "nothing"


def test_each_setting_has_an_example_of_each_effect():
    assert {key: sorted(effects) for key, effects in EXAMPLES.items()} == {
        one.key: sorted(one.on_change) for one in settings()
    }


@pytest.mark.usefixtures("planned")
@pytest.mark.parametrize("key", EXAMPLES)
def test_a_change_does_what_the_page_says(mocks, key):
    mocks.report = {"ok": True}

    async def same(mocks: EngineMocks) -> None:
        for expected, examples in EXAMPLES[key].items():
            before = BEFORE.get((key, expected), {})
            for changes in examples:
                assert await effect(mocks, before, changes) == expected

    pulumi_test(same)(mocks)
