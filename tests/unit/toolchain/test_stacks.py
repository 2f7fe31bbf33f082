from __future__ import annotations

import subprocess

import pytest

from components.core.errors import StackError
from toolchain.stacks import history, outputs, resources

NOBODY = """\
error: PULUMI_ACCESS_TOKEN must be set for login during
  non-interactive CLI sessions
"""


class Pulumi:
    """A CLI that ends as a test wants."""

    def __init__(self, status: int, stdout: str = "", stderr: str = "") -> None:
        self.done = subprocess.CompletedProcess([], status, stdout, stderr)

    def pulumi(
        self, command: str, stack: str, *arguments: str, quiet: bool = False
    ) -> subprocess.CompletedProcess[str]:
        del command, stack, arguments, quiet
        return self.done


@pytest.mark.parametrize(
    ("ask", "command"), [(outputs, "output"), (history, "history"), (resources, "export")]
)
def test_who_is_not_logged_in_is_told_so_and_not_that_nothing_runs(ask, command):
    with pytest.raises(StackError) as refused:
        ask(Pulumi(255, stderr=NOBODY), "dev")
    assert str(refused.value) == (
        f"`pulumi stack {command} --stack dev` ended with 255: PULUMI_ACCESS_TOKEN must be set for "
        "login during non-interactive CLI sessions"
    )


@pytest.mark.parametrize("ask", [outputs, history, resources])
def test_a_failure_without_a_reason_is_one_as_well(ask):
    with pytest.raises(StackError, match="ended with 6: it does not say why"):
        ask(Pulumi(6, stdout="[]"), "dev")


@pytest.mark.parametrize("nothing", ["", "{}", "null"])
def test_a_stack_that_runs_nothing_has_no_outputs(nothing):
    assert outputs(Pulumi(0, nothing), "dev") == {}
    assert history(Pulumi(0, "[]"), "dev") == []


@pytest.mark.parametrize(
    "exported", ['{"version": 3}', '{"deployment": {}}', '{"deployment": {"resources": null}}']
)
def test_a_state_without_resources_has_none(exported):
    assert resources(Pulumi(0, exported), "dev") == []
