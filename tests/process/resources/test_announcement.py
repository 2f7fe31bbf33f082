"""Telling whoever routes the traffic: what pulumi-command is given, and what it runs and says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pulumi
import pytest
from pulumi.runtime.rpc import is_rpc_secret, unwrap_rpc_secret

from components.resources.announcement import announce
from emulator.command_plugin.shell import CommandFailedError, Running, Said, run
from tests.helpers.engine import Mocks, mocked


class EngineMocks(Mocks):
    def __init__(self) -> None:
        self.inputs: dict[str, Any] = {}

    def new_resource(
        self, args: pulumi.runtime.MockResourceArgs
    ) -> tuple[str | None, dict[str, Any]]:
        self.inputs = args.inputs
        return "announcement-id", {**args.inputs, "stdout": "", "stderr": ""}


@pytest.fixture
def mocks(loop_for_pulumi: None) -> EngineMocks:
    del loop_for_pulumi
    return mocked(EngineMocks())


def inputs_for(mocks: EngineMocks, command: str) -> dict[str, Any]:
    """What pulumi-command gets."""
    served: Any = SimpleNamespace(
        endpoint_url=pulumi.Output.from_input("https://203.0.113.9:40123/v1"),
        api_key=pulumi.Output.secret("sentinel-key"),
        model=pulumi.Output.from_input("mistral"),
        ca_certificate=pulumi.Output.from_input("PEM"),
    )

    async def made() -> None:
        report = pulumi.Output.from_input({"ok": True})
        await announce("announcement", command, served=served, smoke_report=report).urn.future()

    pulumi.runtime.test(made)()
    return mocks.inputs


def ran(inputs: dict[str, Any], command: str) -> Said:
    given = {**inputs, "environment": unwrap_rpc_secret(inputs["environment"])}
    return run(inputs[command], given, {}, lambda _line: None, Running())


@pytest.mark.parametrize("when", ["create", "update"])
def test_a_shell_runs_the_command_with_the_endpoint_in_its_environment(mocks, when):
    told = 'printf "%s %s" "$ENDPOINT_URL" "$ENDPOINT_CERTIFICATE" && echo " $ENDPOINT_MODEL" | cat'
    said = ran(inputs_for(mocks, told), when)
    assert said.stdout == "https://203.0.113.9:40123/v1 PEM mistral"


def test_a_gateway_is_told_the_key_of_the_machine_that_serves(mocks):
    said = ran(inputs_for(mocks, 'printf "%s" "$ENDPOINT_KEY"'), "create")
    assert said.stdout == "sentinel-key"


def test_a_command_that_fails_is_quoted_nowhere_and_is_kept_as_a_secret(mocks):
    inputs = inputs_for(mocks, 'test -z "token \\"sentinel\\"" || { echo it >&2; exit 7; }')
    assert is_rpc_secret(inputs["environment"])
    assert "sentinel" not in str({**inputs, "environment": None})
    with pytest.raises(CommandFailedError, match=r"^exit status 7: running .*:\nit\n$") as failed:
        ran(inputs, "create")
    assert "sentinel" not in str(failed.value)


def test_another_command_is_another_input(mocks):
    assert inputs_for(mocks, "true") != inputs_for(mocks, "tell --token other")
