"""What a release is made of; how one is written and read back is in `test_promote.py`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any

import pytest

from components.release.release import ReleaseRefused
from toolchain.release import what_runs

BEFORE, AFTER = "2026-11-24T03:11:24+00:00", "2026-11-25T09:00:00+00:00"

OUTPUTS = {"started_at": BEFORE, "release": {"proven": True}}


def server(endpoint: str, started_at: str, replica: float | None = None) -> dict[str, Any]:
    component = "vast-vllm:index:ModelEndpoint"
    return {
        "type": f"{component}$pulumi-python:dynamic/vllm:Server",
        "parent": f"urn:pulumi:dev::vast-vllm::{component}::{endpoint}",
        "outputs": {"started_at": started_at} | ({} if replica is None else {"replica": replica}),
    }


class Stacks:
    """A stack with these outputs, and servers in its state that were started at these moments."""

    def __init__(
        self,
        outputs: dict[str, Any],
        *started_at: str,
        sibling: str = "",
        replicas: Sequence[str] = (),
    ) -> None:
        """Let servers have been started.

        `sibling` is when the server of another endpoint of the stack was started, `replicas` when
        those of an endpoint with several machines were.
        """
        servers = [server("endpoint", at, float(number)) for number, at in enumerate(replicas)]
        servers += [server("endpoint", moment) for moment in started_at]
        servers += [server("assistant", sibling)] if sibling else []
        others = [{"type": "pulumi:pulumi:Stack", "outputs": outputs}, {"type": "no:out:Puts"}]
        self.told = {
            "stack output": outputs,
            "stack export": {"version": 3, "deployment": {"resources": [*others, *servers]}},
        }

    def pulumi(
        self, command: str, stack: str, *arguments: str, quiet: bool = False
    ) -> subprocess.CompletedProcess[str]:
        assert quiet
        assert arguments == (("--json",) if command == "stack output" else ()), stack
        return subprocess.CompletedProcess([], 0, json.dumps(self.told[command]), "")


def test_outputs_of_the_server_that_is_there_are_what_runs():
    assert what_runs(Stacks(OUTPUTS, BEFORE), "dev") == OUTPUTS


def test_the_server_of_before_may_still_be_there_until_its_clients_have_left():
    known = {**OUTPUTS, "started_at": AFTER}
    assert what_runs(Stacks(known, BEFORE, AFTER), "prod") == known


def test_the_server_of_another_endpoint_may_have_been_started_later():
    assert what_runs(Stacks(OUTPUTS, BEFORE, sibling=AFTER), "dev") == OUTPUTS
    with pytest.raises(ReleaseRefused, match="its server was started later"):
        what_runs(Stacks({**OUTPUTS, "started_at": "2026-11-20"}, BEFORE, sibling=AFTER), "dev")


def of_several(*started_at: str) -> dict[str, Any]:
    replicas = [{"index": number, "started_at": at} for number, at in enumerate(started_at)]
    return {**OUTPUTS, "started_at": started_at[0], "replicas": replicas}


def test_each_of_several_machines_has_to_run_what_the_outputs_say():
    known = of_several(BEFORE, AFTER)
    assert what_runs(Stacks(known, replicas=[BEFORE, AFTER]), "dev") == known
    # The first one is older than its siblings.
    assert what_runs(Stacks(known, replicas=[BEFORE, AFTER], sibling=AFTER), "dev") == known
    # An `up` that adds a machine has failed behind it.
    assert what_runs(Stacks(known, replicas=[BEFORE, AFTER, AFTER]), "dev") == known
    for servers in ([BEFORE, "2026-11-26"], [AFTER, AFTER], [BEFORE]):
        with pytest.raises(ReleaseRefused, match="one of its servers was started later, or is go"):
            what_runs(Stacks(known, replicas=servers), "dev")


def test_a_stack_without_outputs_runs_nothing_that_is_proven():
    assert what_runs(Stacks({}), "dev") == {}
    assert what_runs(Stacks({}, AFTER), "dev") == {}


@pytest.mark.parametrize(
    ("servers", "since"),
    [
        ([AFTER], "its server was started later"),
        # One that came up beside the old one, and did not pass.
        ([BEFORE, AFTER], "its server was started later"),
        ([], "it has no server any more"),
    ],
)
def test_outputs_of_what_ran_before_are_no_release(servers, since):
    with pytest.raises(ReleaseRefused, match=f"{since}: its last `up` did not go through; bring"):
        what_runs(Stacks(OUTPUTS, *servers), "dev")
