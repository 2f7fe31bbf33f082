"""The shape of the deployment workflow: what must hold for nobody to lose a machine to it."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest
import yaml

from components.resources.workers import at_once
from tests.helpers.places import ROOT
from toolchain.pulumi_cli import CLI
from toolchain.scale.situation import Rules

WORKFLOW: dict[Any, Any] = yaml.safe_load((ROOT / ".github/workflows/deploy.yml").read_text())
OVERDUE: dict[Any, Any] = yaml.safe_load((ROOT / ".github/workflows/overdue.yml").read_text())
SCALE: dict[Any, Any] = yaml.safe_load((ROOT / ".github/workflows/scale.yml").read_text())
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


def test_the_scheduled_job_renews_and_rents_nothing():
    job = WORKFLOW["jobs"]["renew"]
    assert job["if"] == "github.event_name == 'schedule'"
    assert WORKFLOW["jobs"]["test"]["if"] == "github.event_name != 'schedule'"
    assert job["concurrency"] == {
        "group": "deploy-${{ matrix.stack }}",
        "cancel-in-progress": False,
    }
    asked = steps("renew")[-1]["with"]
    assert (asked["command"], asked["suppress-outputs"]) == ("up", True)
    assert asked["target"].split() == RENEWED
    days = {str(one["cron"]).split()[-1] for one in WORKFLOW[True]["schedule"]}
    assert days <= set("0123456"), "less often than weekly, it may find a certificate too late"


def test_pulumi_does_as_much_at_once_as_the_most_machines_take():
    most = str(at_once(32))
    assert WORKFLOW["env"]["PULUMI_PARALLEL"] == most
    assert f"export PULUMI_PARALLEL ?= {most}\n" in (ROOT / "Makefile").read_text()


RENEWED = [
    "**dynamic/tls:Authority::**",
    "**dynamic/tls:MachineCertificate::**",
    "**dynamic/vllm:Server::**",
    "**dynamic/router:Router::**",
]
"""What a renewal touches; `tests/cli` plays it."""


def steps(job: str) -> list[dict[str, Any]]:
    return list(WORKFLOW["jobs"][job]["steps"])


@pytest.mark.parametrize("job", ["preview", "renew", *STACKS])
@pytest.mark.parametrize(
    ("settings", "something"),
    [
        ("  vast-vllm:maxDollarsPerHour: 8\n", True),
        ("  vast-vllm:promoteFrom: dev\n", False),
        ("  vast-vllm:promoteFrom: dev\n  vast-vllm:release:\n", False),
        ('  vast-vllm:promoteFrom: dev\n  vast-vllm:release: ""\n', False),
        ("  vast-vllm:promoteFrom: dev\n  # vast-vllm:release: r1\n", False),
        ("  vast-vllm:promoteFrom: dev\n  vast-vllm:release: 2026-11\n", True),
        ('  vast-vllm:promoteFrom: "dev"\n  vast-vllm:release: "r1"\n', True),
        ('  vast-vllm:promoteFrom: ""\n', True),
    ],
)
def test_a_stack_that_takes_releases_runs_nothing_until_one_is_named(
    tmp_path, job, settings, something
):
    (tmp_path / "Pulumi.staging.yaml").write_text(f"config:\n{settings}")
    output = tmp_path / "output"
    output.touch()
    *_, asks, pulumi = steps(job)
    environment = {"PATH": "/usr/bin:/bin", "STACK": "staging", "GITHUB_OUTPUT": str(output)}
    said = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", asks["run"]],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert output.read_text() == ("something=true\n" if something else "")
    assert ("names no release" in said) is not something
    assert asks["id"] == "release"
    assert pulumi["if"] == "steps.release.outputs.something == 'true'"


def test_a_fork_previews_nothing():
    ours = "github.event.pull_request.head.repo.full_name == github.repository"
    assert ours in WORKFLOW["jobs"]["preview"]["if"]


def test_only_the_steps_that_run_pulumi_see_secrets():
    assert WORKFLOW["env"].keys() == {"PULUMI_PARALLEL"}
    for job, content in WORKFLOW["jobs"].items():
        assert "env" not in content
        for step in steps(job):
            sees = "secrets." in str(step)
            assert sees == str(step.get("uses")).startswith("pulumi/actions"), (job, step)


def test_no_step_prints_the_outputs_of_a_stack():
    for stack in STACKS:
        assert WORKFLOW["jobs"][stack]["steps"][-1]["with"]["suppress-outputs"] is True


ALL_STEPS = {job: steps(job) for job in sorted(WORKFLOW["jobs"])} | {
    "overdue": list(OVERDUE["jobs"]["end"]["steps"]),
    "scale": list(SCALE["jobs"]["turn"]["steps"]),
}


@pytest.mark.parametrize("job", ALL_STEPS)
def test_every_action_is_a_commit(job):
    """A tag is what its owner says it is tomorrow, and these see the keys."""
    for step in ALL_STEPS[job]:
        if "uses" in step:
            assert re.fullmatch(r"[\w-]+/[\w-]+(/[\w-]+)?@[0-9a-f]{40}", step["uses"]), step


@pytest.mark.parametrize("job", ALL_STEPS)
def test_no_checkout_leaves_its_token_to_the_program(job):
    checkouts = [
        one for one in ALL_STEPS[job] if str(one.get("uses")).startswith("actions/checkout@")
    ]
    assert [one["with"]["persist-credentials"] for one in checkouts] == [False]


@pytest.mark.parametrize("job", ["preview", "renew", *STACKS])
def test_the_cli_is_the_one_that_set_up_holds_to_its_digest(job):
    *_, prepares, _, pulumi = steps(job)
    assert "toolchain/set_up.py pulumi" in prepares["run"]
    assert '"$PWD/.tools/bin" >> "$GITHUB_PATH"' in prepares["run"]
    assert pulumi["with"]["pulumi-version"] == CLI


def test_what_is_overdue_is_ended_each_hour_without_anybody_and_without_holding_up_a_deployment():
    triggers = OVERDUE[True]  # YAML reads `on` as a truth value
    assert re.fullmatch(r"[1-5]?\d \* \* \* \*", triggers["schedule"][0]["cron"])
    assert set(triggers) == {"schedule", "workflow_dispatch"}
    assert OVERDUE["permissions"] == {"contents": "read"}
    job = OVERDUE["jobs"]["end"]
    assert job["environment"] == "overdue"
    assert job["concurrency"]["group"] not in {f"deploy-{stack}" for stack in STACKS}
    *others, ends = job["steps"]
    assert ends["run"] == ".venv/bin/python -m toolchain.overdue --end"
    assert set(ends["env"]) == {"PULUMI_ACCESS_TOKEN", "VAST_API_KEY"}
    assert "secrets." not in str(others)


def test_a_turn_of_scaling_spends_nothing_unasked_and_holds_up_no_deployment():
    assert set(SCALE[True]) == {"schedule", "workflow_dispatch"}
    assert SCALE["permissions"] == {"contents": "read"}
    job = SCALE["jobs"]["turn"]
    assert job["if"] == "vars.SCALE_STACK != '' && vars.SCALE_BUDGET != ''"
    assert job["environment"] == "scale"
    assert job["concurrency"] == {"group": "scale", "cancel-in-progress": False}
    plays = next(step for step in job["steps"] if "toolchain.scale" in str(step.get("run")))
    words = plays["run"].split()
    assert {"--account", "--once", "--budget", '"$BUDGET"', "--stack", '"$STACK"'} <= set(words)
    # What is given reaches the shell as data.
    assert "${{" not in plays["run"]
    assert set(plays["env"]) == {"STACK", "BUDGET", "PULUMI_ACCESS_TOKEN", "VAST_API_KEY"}


def test_a_turn_of_scaling_keeps_its_readings_also_after_a_step_that_failed():
    job = SCALE["jobs"]["turn"]
    restores, saves = (
        next(
            step
            for step in job["steps"]
            if str(step.get("uses")).startswith(f"actions/cache/{which}")
        )
        for which in ("restore", "save")
    )
    plays = next(step for step in job["steps"] if "toolchain.scale" in str(step.get("run")))
    assert saves["if"] == "always()"
    assert restores["with"]["path"] == saves["with"]["path"]
    assert f"--memory {saves['with']['path']}" in plays["run"]
    assert saves["with"]["key"] == restores["with"]["key"]
    assert saves["with"]["key"].startswith(restores["with"]["restore-keys"])


def test_a_turn_of_scaling_comes_more_often_than_its_readings_may_be_apart():
    minutes = SCALE[True]["schedule"][0]["cron"].split()[0]
    assert int(minutes.removeprefix("*/")) * 60 < Rules.longest_gap
