"""A stack's settings, state, contracts and charges as the loop reads them."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from components.resources.context import Context
from components.scaling.running import VARIABLE, Extras, new_lease
from components.settings import parse
from components.vast.api.models import Charge, Instance
from tests.helpers.fakes import VirtualClock
from tests.helpers.offers import instance
from toolchain.project import Project
from toolchain.scale.automation import StepFailed, bring_up, reason
from toolchain.scale.loop import StackBusy
from toolchain.scale.situation import DAY, HOUR, ScalingRefused
from toolchain.scale.stack_world import (
    StackWorld,
    bill,
    endpoint_in,
    limits_of,
    of_stack,
    spent_today,
)
from toolchain.stack_lock import StackLocked

NOON = 1_800_057_600.0 + DAY / 2
URN = "urn:pulumi:dev::vast-vllm::vast-vllm:index:ModelEndpoint$pulumi-python:dynamic/"
LABEL = "vast-vllm/dev/endpoint-instance/abc"


def contract(id_: int, label: str = LABEL, started_at: float = NOON - HOUR) -> Instance:
    return Instance.from_json(instance(id=id_, label=label, dph_total=6.0, start_date=started_at))


def charge(id_: int, since: float, until: float, dollars: float, **changes: Any) -> Charge:
    known = {"label": LABEL, "kind": "gpu", **changes}
    return Charge(source=f"instance-{id_}", since=since, until=until, dollars=dollars, **known)


def spent(charges: list[Charge], contracts: list[Instance]) -> float:
    return spent_today(charges, contracts, "vast-vllm", "dev", NOON)


def test_the_ledger_counts_from_midnight_on_and_for_this_stack_alone():
    charges = [
        charge(1, NOON - DAY, NOON, 24.0),
        charge(2, NOON - HOUR, NOON, 5.0, label="vast-vllm/prod/endpoint-instance/abc"),
        charge(3, NOON - HOUR, NOON, 5.0, label=""),
        charge(4, NOON - HOUR, NOON, 0.5, kind="bwd"),
    ]
    assert spent(charges, []) == pytest.approx(12.5)


def test_what_the_ledger_does_not_have_yet_is_counted_at_its_price():
    assert spent([], [contract(1)]) == pytest.approx(6.0)
    assert spent([charge(1, NOON - HOUR, NOON - HOUR / 2, 2.9)], [contract(1)]) == pytest.approx(
        5.9
    )
    # One that started yesterday, or whose start nobody knows, is counted from midnight on.
    assert spent([], [contract(1, started_at=NOON - DAY)]) == pytest.approx(72.0)
    assert spent([], [contract(1, started_at=0.0)]) == pytest.approx(72.0)
    # Traffic says nothing about until when a machine was charged.
    assert spent([charge(1, NOON, NOON, 1.0, kind="bwd")], [contract(1)]) == pytest.approx(7.0)


def test_a_bill_has_the_replicas_above_the_floor_apart_and_the_highest_price_of_another():
    settings = parse({"maxDollarsPerHour": "9", "maxDollarsPerMonth": "5760"})
    found = bill(settings, [contract(1), contract(2), contract(3)], {2, 0}, 5.0)
    assert (found.spent_today, found.others_per_hour, found.another_per_hour) == (5.0, 12.0, 8.0)
    assert found.finding == 10.0


def test_contracts_are_the_stacks_by_their_whole_name():
    others = [contract(2, "vast-vllm/dev2/x/y"), contract(3, "other/dev/x/y"), contract(4, "")]
    assert [one.id for one in of_stack([contract(1), *others], "vast-vllm", "dev")] == [1]


def test_the_endpoint_is_the_one_with_a_record():
    outputs: dict[str, Any] = {URN + "vast:Instance::endpoint-instance": {}}
    with pytest.raises(ScalingRefused, match="no record"):
        endpoint_in(outputs)
    outputs[URN + "scaling:Scale::my-endpoint-scale"] = {}
    assert endpoint_in(outputs) == "my-endpoint"
    outputs[URN + "scaling:Scale::other-scale"] = {}
    with pytest.raises(ScalingRefused, match="several endpoints"):
        endpoint_in(outputs)


def test_limits_are_the_settings_and_are_refused_where_they_are_none():
    settings = parse({"replicas": "2", "replicasMax": "4", "maxDollarsPerHourTotal": "40"})
    limits = limits_of(settings, 500.0)
    assert (limits.floor, limits.ceiling, limits.dollars_per_hour) == (2, 4, 40.0)
    with pytest.raises(ScalingRefused, match="replicasMax is 0"):
        limits_of(parse({}), 500.0)


HISTORY = json.dumps(
    [
        {
            "kind": "update",
            "startTime": "2027-01-15T08:00:00.000Z",
            "endTime": "2027-01-15T08:00:00.000Z",
            "message": "",
            "environment": {},
            "config": {},
            "result": "succeeded",
            "version": 1,
        }
    ]
)


class FakeStacks:
    """`Stacks` that note each command, with the order that it would find."""

    def __init__(self, *, fails: str = "", locked: bool = False) -> None:
        self.commands: list[list[str]] = []
        self.orders: list[str] = []
        self.fails, self.locked = fails, locked
        self.environment: dict[str, str] = {}

    def pulumi(
        self, command: str, stack: str, *arguments: str, quiet: bool = False
    ) -> subprocess.CompletedProcess[str]:
        assert quiet
        self.commands.append([command, f"stack={stack}", *arguments])
        self.orders.append(os.environ.get(VARIABLE, ""))
        if self.locked:
            raise StackLocked("the stack dev is locked since 2027-01-15; nothing was done")
        if command == "up" and self.fails:
            return subprocess.CompletedProcess([], 255, self.fails, "")
        return subprocess.CompletedProcess([], 0, HISTORY if "history" in arguments else "", "")


ORDER = Extras(endpoint="endpoint", leases={1: new_lease(NOON)})


def test_an_order_is_in_the_environment_of_one_up_and_in_no_file():
    stacks = FakeStacks()
    bring_up(stacks, "dev", ORDER, most=4)
    ups = [command for command in stacks.commands if command[0] == "up"]
    assert len(ups) == 1
    assert ups[0][1:5] == ["stack=dev", "--yes", "--skip-preview", "--parallel"]
    assert ups[0][5] == "16"
    assert not any(word.startswith("--config") or word == "-c" for word in ups[0])
    assert Extras.model_validate_json(stacks.orders[0]) == ORDER
    assert "select" not in {word for command in stacks.commands for word in command}
    assert VARIABLE not in os.environ


def test_a_stack_that_is_locked_is_busy():
    with pytest.raises(StackBusy, match=r"the stack dev is at work .* is locked since"):
        bring_up(FakeStacks(locked=True), "dev", ORDER, most=4)
    conflict = "error: [409] Conflict: Another update is currently in progress."
    stacks = FakeStacks()
    real = stacks.pulumi

    def busy(command: str, stack: str, *arguments: str, quiet: bool = False) -> Any:
        done = real(command, stack, *arguments, quiet=quiet)
        return subprocess.CompletedProcess([], 255, "", conflict) if command == "up" else done

    stacks.pulumi = busy  # type: ignore[method-assign]
    with pytest.raises(StackBusy, match="another update is in progress"):
        bring_up(stacks, "dev", ORDER, most=4)


PULUMI = """\
Updating (dev):
    pulumi-python:dynamic/vast:Instance (endpoint-r1-instance):
    error: no offer fits: 3 are dearer than $8.00/h; nothing was rented
    pulumi:pulumi:Stack (vast-vllm-dev):
    error: update failed
Resources:
"""


def test_a_failed_up_gives_pulumis_own_sentence():
    with pytest.raises(StepFailed) as failed:
        bring_up(FakeStacks(fails=PULUMI), "dev", ORDER, most=4)
    assert str(failed.value) == "no offer fits: 3 are dearer than $8.00/h; nothing was rented"
    assert reason("nothing at all") == "`pulumi up` does not say why"
    assert len(reason("error: " + "x" * 9000)) == 500


def test_settings_are_read_from_the_stacks_configuration_and_secrets_are_not(tmp_path):
    (tmp_path / "Pulumi.dev.yaml").write_text(
        "config:\n"
        "  vast-vllm:replicas: 1\n"
        "  vast-vllm:replicasMax: 3\n"
        '  vast-vllm:maxDollarsPerHour: "9.50"\n'
        "  vast-vllm:huggingFaceToken:\n    secure: AAAA\n"
    )
    world = StackWorld(
        stacks=FakeStacks(),
        project=Project(tmp_path),
        project_name="vast-vllm",
        name="dev",
        dollars_per_day=300.0,
        context=Context(clock=VirtualClock()),
    )
    assert world.limits().ceiling == 3
    assert world._settings().max_dollars_per_hour == 9.5
