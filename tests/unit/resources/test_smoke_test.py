"""How the smoke test is wired, under Pulumi's mocks: no engine, no provider process."""

from __future__ import annotations

import json
from typing import Any

import pulumi
import pytest
from pulumi.runtime.rpc import is_rpc_secret, unwrap_rpc_secret

from components.plan import MODELS, make_plan
from components.release.release import digest_of
from components.resources.served import Served
from components.resources.smoke_test import (
    COMMAND,
    report_of,
    served_capabilities,
    smoke_test,
    tool_call_parser,
)
from components.settings import parse
from components.vllm.profile import load_profile
from tests.helpers.engine import Mocks, mocked
from tests.unit.test_settings import values

REPORT = {"ok": True, "checks": {}, "tokens_per_second": 90.5}
RUNS = "sha256:" + "2" * 64
FP8 = load_profile("mistral-small-4-fp8-2xh200", MODELS)
FLAGS = "reasoning-parser: mistral\nenable-auto-tool-choice: true\ntool-call-parser: mistral\n"


class EngineMocks(Mocks):
    def __init__(self) -> None:
        self.made: dict[str, pulumi.runtime.MockResourceArgs] = {}

    def new_resource(
        self, args: pulumi.runtime.MockResourceArgs
    ) -> tuple[str | None, dict[str, Any]]:
        self.made[args.typ] = args
        return f"{args.name}-id", {**args.inputs, "stdout": json.dumps(REPORT), "stderr": ""}


SHOWN = "clientCertificates"


@pytest.fixture
def mocks(loop_for_pulumi: None) -> EngineMocks:
    del loop_for_pulumi
    return mocked(EngineMocks())


async def made_report(**changes: Any) -> pulumi.Output[dict[str, Any]]:
    plan = make_plan(parse(values(**changes)))
    served = Served(
        endpoint_url=pulumi.Output.from_input("https://203.0.113.9:40123/v1"),
        api_key=pulumi.Output.secret("sentinel-key"),
        ca_certificate=pulumi.Output.from_input("PEM"),
        model=pulumi.Output.from_input("mistral"),
        resource=pulumi.ComponentResource("test:index:Server", "server"),
    )
    test = smoke_test(
        "endpoint-smoke-test",
        served=served,
        machines=pulumi.Output.from_input("9001"),
        stack_key_digest=pulumi.Output.from_input("d" * 64),
        profile=plan.profile,
        serve_yaml=plan.serve_yaml,
        asked_for=digest_of(plan.as_asked()),
        runs=pulumi.Output.from_input(RUNS),
        client_certificate=pulumi.Output.secret("identity") if changes.get(SHOWN) else None,
    )
    report = report_of(test)
    await report.future()
    return report


async def made_inputs(mocks: EngineMocks, **changes: Any) -> dict[str, Any]:
    await made_report(**changes)
    return dict(mocks.made["command:local:Command"].inputs)


@pulumi.runtime.test
async def test_the_report_is_an_output_that_anybody_may_read(mocks):
    report = await made_report()
    assert "command:local:Command" in mocks.made
    assert await report.future() == REPORT
    assert not await report.is_secret()


@pulumi.runtime.test
async def test_the_same_command_creates_and_updates_and_knows_nothing_by_itself(mocks):
    inputs = await made_inputs(mocks)
    assert inputs["create"] == inputs["update"] == COMMAND
    assert "delete" not in inputs
    assert inputs["addPreviousOutputInEnv"] is False
    assert inputs["logging"] == "stderr"
    assert "sentinel-key" not in json.dumps({**inputs, "environment": None})


@pulumi.runtime.test
async def test_the_environment_says_what_is_served_and_is_secret_for_the_key(mocks):
    environment = (await made_inputs(mocks))["environment"]
    assert is_rpc_secret(environment)
    assert unwrap_rpc_secret(environment) == {
        "ENDPOINT_URL": "https://203.0.113.9:40123/v1",
        "ENDPOINT_KEY": "sentinel-key",
        "ENDPOINT_CERTIFICATE": "PEM",
        "ENDPOINT_MODEL": "mistralai/Mistral-Small-4-119B-2603",
        "ENDPOINT_MAX_MODEL_LEN": "131072",
        "ENDPOINT_ABILITIES": "vision,reasoning,tools",
        "ENDPOINT_TOOL_CALL_PARSER": "mistral",
        "ENDPOINT_DIGEST": RUNS,
    }


@pulumi.runtime.test
async def test_it_has_what_clients_show_if_the_server_asks_for_it(mocks):
    environment = (await made_inputs(mocks, **{SHOWN: "true"}))["environment"]
    assert is_rpc_secret(environment)
    assert unwrap_rpc_secret(environment)["ENDPOINT_CLIENT_CERTIFICATE"] == "identity"


@pulumi.runtime.test
async def test_machine_what_is_asked_for_and_key_trigger_it(mocks):
    before = (await made_inputs(mocks))["triggers"]
    after = (await made_inputs(mocks, maxModelLen=65536))["triggers"]
    assert before[0] == "9001"
    assert before[1] == digest_of(make_plan(parse(values())).as_asked())
    assert before[2] == "d" * 64
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True]


@pytest.mark.parametrize(
    ("serve_yaml", "abilities"),
    [
        (FLAGS, ("vision", "reasoning", "tools")),
        ("", ("vision",)),
        ("reasoning-parser: mistral", ("vision", "reasoning")),
        ("tool-call-parser: mistral", ("vision",)),
        (f"{FLAGS}language-model-only: true", ("reasoning", "tools")),
        (f"{FLAGS}limit-mm-per-prompt: {{image: 0}}", ("reasoning", "tools")),
        (f"{FLAGS}limit-mm-per-prompt: {{image: 4}}", ("vision", "reasoning", "tools")),
        (f"{FLAGS}limit-mm-per-prompt: '{{\"image\": 0}}'", ("reasoning", "tools")),
        (f"{FLAGS}limit-mm-per-prompt: '{{\"image\": 4}}'", ("vision", "reasoning", "tools")),
    ],
)
def test_an_ability_needs_the_options_that_let_it_through(serve_yaml, abilities):
    assert served_capabilities(FP8, serve_yaml) == abilities


def test_options_give_a_model_no_ability_that_it_lacks():
    small = load_profile("qwen2.5-0.5b-1x4090", MODELS)
    assert served_capabilities(small, FLAGS) == ("tools",)


@pytest.mark.parametrize(("serve_yaml", "parser"), [(FLAGS, "mistral"), ("", "")])
def test_the_parser_is_the_one_that_is_served(serve_yaml, parser):
    assert tool_call_parser(serve_yaml) == parser
