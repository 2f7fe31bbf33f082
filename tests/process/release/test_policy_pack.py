from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
import yaml
from google.protobuf.empty_pb2 import Empty  # type: ignore[import-untyped]
from pulumi.runtime.proto.analyzer_pb2 import MANDATORY, AnalyzeRequest
from pulumi.runtime.proto.analyzer_pb2_grpc import AnalyzerStub
from pulumi_policy import (
    PolicyCustomTimeouts,
    PolicyResourceOptions,
    ResourceValidationArgs,
    ResourceValidationPolicy,
)

from components.plan import make_plan
from components.release.policy_pack import (
    INSTANCE,
    PROMOTION,
    SERVER,
    policies,
    policy_input_from_bag,
    stack_in,
)
from components.release.production_rules import RULES, PolicyInput
from components.settings import parse
from components.vast.market.requirements import search_for
from components.vllm.agent_files import model_env
from tests.helpers.places import ROOT
from tests.helpers.plan_scene import PINNED, PRODUCTION
from tests.unit.test_settings import values


def resource(kind: str, props: dict[str, Any], stack: str = "prod") -> ResourceValidationArgs:
    options = PolicyResourceOptions(
        protect=False,
        ignore_changes=[],
        delete_before_replace=None,
        aliases=[],
        custom_timeouts=PolicyCustomTimeouts(create_seconds=0, update_seconds=0, delete_seconds=0),
        additional_secret_outputs=[],
    )
    urn = f"urn:pulumi:{stack}::vast-vllm::{kind}::endpoint"
    return ResourceValidationArgs(kind, props, urn, "endpoint", options, None)


def violations(args: ResourceValidationArgs) -> dict[str, str]:
    found: dict[str, str] = {}
    for policy in policies():
        assert isinstance(policy, ResourceValidationPolicy)
        validate = policy.validate
        assert callable(validate)
        said: list[str] = []
        validate(args, partial(_note, said))
        if said:
            (found[policy.name],) = said
    return found


def _note(said: list[str], text: str, _urn: str | None) -> None:
    said.append(text)


def instance_inputs(**changes: Any) -> dict[str, Any]:
    settings = parse(values(**changes))
    plan = make_plan(settings)
    return {
        "image": plan.profile.image,
        "search": search_for(plan.query, plan.need),
        "first_contact": settings.first_contact,
    }


def test_the_packs_policies_are_the_rules():
    assert [policy.name for policy in policies()] == list(RULES)
    pack = yaml.safe_load((ROOT / "policy/PulumiPolicy.yaml").read_text())
    assert (ROOT / "policy" / pack["runtime"]["options"]["virtualenv"]).resolve() == ROOT / ".venv"


def test_a_careless_stack_breaks_all_but_the_cap():
    instance = violations(resource(INSTANCE, instance_inputs()))
    assert set(instance) == {
        *("datacenter-floor", "pinned-image", "pinned-revision", "first-contact")
    }
    assert set(violations(resource(SERVER, {"tls": False}))) == {"tls"}
    dear = instance_inputs(maxDollarsPerHour="50", maxDollarsPerMonth="90000")
    assert "price-cap" in violations(resource(INSTANCE, dear))


def test_only_stacks_for_production_are_held_to_the_rules():
    assert violations(resource(INSTANCE, instance_inputs(), stack="dev")) == {}
    assert stack_in("urn:pulumi:prod::vast-vllm::a$b::c") == "prod"


def test_what_keeps_to_the_rules_passes():
    settings = {key: value for key, value in PRODUCTION.items() if key != "production"}
    inputs = instance_inputs(image=PINNED, **settings)
    inputs["search"]["revision"] = "a" * 40
    assert violations(resource(INSTANCE, inputs)) == {}
    assert violations(resource(SERVER, {"tls": True})) == {}
    promotion = {"release": "r1", "promote_from": "staging"}
    assert violations(resource(PROMOTION, promotion)) == {}
    assert set(violations(resource(PROMOTION, {**promotion, "promote_from": ""}))) == {"promoted"}


def test_the_cap_is_the_stricter_one_as_in_the_program():
    caps = {"maxDollarsPerHour": "128", "maxDollarsPerMonth": "6500"}
    inputs = instance_inputs(image=PINNED, **caps)
    assert "price-cap" not in violations(resource(INSTANCE, inputs))
    without = {"search": {**inputs["search"], "max_dollars_per_hour": 128.0}}
    del without["search"]["max_dollars_per_month"]
    assert "price-cap" in violations(resource(INSTANCE, without))


def server_inputs(**changes: Any) -> dict[str, Any]:
    plan = make_plan(parse(values(**changes)))
    profile = plan.profile.model_copy(update={"revision": "a" * 40})
    return {"tls": True, "model_env": model_env(profile), "serve_yaml": plan.serve_yaml}


def test_pictures_come_from_nowhere_or_from_public_domains():
    for media_from in ("", "anywhere", "10.0.0.7"):
        told = violations(resource(SERVER, server_inputs(mediaFrom=media_from)))
        assert set(told) == {"media"}
    for media_from in ("none", "a.example, b.example"):
        assert violations(resource(SERVER, server_inputs(mediaFrom=media_from))) == {}


def test_a_companion_and_a_draft_have_to_be_at_a_commit():
    assert violations(resource(SERVER, server_inputs(mediaFrom="none"))) == {}
    eagle = violations(resource(SERVER, server_inputs(model="mistral-small-4-fp8-2xh200-eagle")))
    assert "2603-eagle is taken at 'main'" in eagle["pinned-revision"]
    draft = '{"speculative-config": {"model": "someone/draft", "method": "draft_model"}}'
    own = violations(resource(SERVER, server_inputs(vllmOverrides=draft)))
    assert "someone/draft is taken at 'main'" in own["pinned-revision"]


def test_foreign_code_is_found_in_a_servers_options_and_variables():
    inputs = server_inputs(mediaFrom="none")
    own = make_plan(parse(values(huggingFaceToken="hf_x"))).environment
    inputs["environment"] = f"{own}VLLM_LOGGING_LEVEL='IN FO'\n"
    assert violations(resource(SERVER, inputs)) == {}
    inputs["environment"] += "LD_PRELOAD=/tmp/x.so\n"
    assert "LD_PRELOAD is a variable" in violations(resource(SERVER, inputs))["no-foreign-code"]
    remote = server_inputs(vllmOverrides='{"trust-remote-code": true}')
    assert "trust-remote-code runs" in violations(resource(SERVER, remote))["no-foreign-code"]


@pytest.mark.parametrize("content", ["model: [", f"trust-remote-code: {'[' * 150}{']' * 150}"])
def test_options_that_cannot_be_read_pass_no_rule(content):
    with pytest.raises(yaml.YAMLError):
        policy_input_from_bag(SERVER, {"serve_yaml": content})


@pytest.mark.parametrize("kind", [INSTANCE, SERVER, PROMOTION, "aws:s3/bucket:Bucket"])
def test_a_resource_that_says_nothing_breaks_nothing(kind):
    assert violations(resource(kind, {})) == {}
    assert policy_input_from_bag(kind, {}) == PolicyInput()


@pytest.fixture
def pack(tmp_path: Path) -> Iterator[AnalyzerStub]:
    """The pack as Pulumi's language host starts it, and the engine's side of its protocol."""
    program = ROOT / "policy/__main__.py"
    with (tmp_path / "errors").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "pulumi.policy", "127.0.0.1:1", str(program)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            assert port.isdigit(), (tmp_path / "errors").read_text()
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield AnalyzerStub(channel)
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def test_the_pack_answers_the_engine(pack):
    told = pack.GetAnalyzerInfo(Empty())
    assert told.name == "vast-vllm"
    assert {policy.name for policy in told.policies} >= set(RULES)
    request = AnalyzeRequest(
        type=SERVER, urn=f"urn:pulumi:prod::vast-vllm::{SERVER}::endpoint", name="endpoint"
    )
    request.properties.update({"tls": False})
    (violation,) = pack.Analyze(request).diagnostics
    assert violation.policyName == "tls"
    assert "in clear" in violation.message
    assert violation.enforcementLevel == MANDATORY
    request.properties.update({"tls": True})
    assert list(pack.Analyze(request).diagnostics) == []
