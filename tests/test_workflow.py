"""The shape of the deployment workflow: what must hold for nobody to lose a machine to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
WORKFLOW: dict[Any, Any] = yaml.safe_load((ROOT / ".github/workflows/deploy.yml").read_text())
STACKS = ("dev", "staging", "prod")


@pytest.mark.parametrize("stack", STACKS)
def test_a_deployment_is_never_cancelled_and_waits_for_its_environment(stack):
    job = WORKFLOW["jobs"][stack]
    assert job["environment"] == stack
    assert job["concurrency"] == {"group": f"deploy-{stack}", "cancel-in-progress": False}


def test_the_stacks_come_up_one_after_the_other():
    assert [WORKFLOW["jobs"][stack]["needs"] for stack in STACKS] == ["test", "dev", "staging"]


def test_a_pull_request_previews_and_brings_nothing_up():
    jobs = WORKFLOW["jobs"]
    assert jobs["preview"]["strategy"]["matrix"]["stack"] == list(STACKS)
    assert jobs["preview"]["steps"][-1]["with"]["command"] == "preview"
    assert jobs["dev"]["if"] == "github.event_name == 'push'"


def test_each_stack_has_its_configuration_and_takes_releases_from_the_one_before():
    settings = [
        yaml.safe_load((ROOT / f"Pulumi.{stack}.yaml").read_text())["config"] for stack in STACKS
    ]
    assert [one.get("vast-vllm:promoteFrom") for one in settings] == [None, "dev", "staging"]
    assert settings[2]["vast-vllm:replacement"] == "create-first"
    assert settings[2]["vast-vllm:datacenterOnly"] is True


def test_no_step_prints_the_outputs_of_a_stack():
    for stack in STACKS:
        assert WORKFLOW["jobs"][stack]["steps"][-1]["with"]["suppress-outputs"] is True
