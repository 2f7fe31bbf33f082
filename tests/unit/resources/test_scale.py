"""The record of the number that runs, and how a program reads it."""

from __future__ import annotations

from typing import Any

import pulumi
import pytest

from components.resources.context import Context, using
from components.resources.scale import READ_STATE, ScaleProvider, running_replicas
from components.scaling.running import LEASE_HOURS, VARIABLE, Extras, Lease, new_lease
from tests.helpers.engine import Mocks, mocked
from tests.helpers.fakes import VirtualClock

NOW = VirtualClock().epoch()
RECORD = "urn:pulumi:dev::vast-vllm::pulumi-python:dynamic/scaling:Scale::endpoint-scale"
MACHINE = "urn:pulumi:dev::vast-vllm::pulumi-python:dynamic/vast:Instance::endpoint-r1-instance"


def extras(**leases: Lease) -> Extras:
    return Extras(
        endpoint="endpoint",
        leases={int(name.removeprefix("r")): one for name, one in leases.items()},
    )


class StateMocks(Mocks):
    def __init__(self, outputs: dict[str, Any] | None) -> None:
        self.outputs = outputs
        self.asked: list[str] = []
        self.declared: list[pulumi.runtime.MockResourceArgs] = []

    def call(self, args: pulumi.runtime.MockCallArgs) -> Any:
        assert args.token == READ_STATE
        self.asked.append(args.args["stackName"])
        if self.outputs is None:
            raise ValueError("the backend\nis away")
        of_each = {urn: {"type": "x", "outputs": one} for urn, one in self.outputs.items()}
        return {"name": "x", "outputs": of_each}, []

    def new_resource(
        self, args: pulumi.runtime.MockResourceArgs
    ) -> tuple[str | None, dict[str, Any]]:
        self.declared.append(args)
        return "id", dict(args.inputs)


def found(mocks: StateMocks, order: str = "", *, replicas: int = 1, most: int = 3):
    mocked(mocks)
    environment = {VARIABLE: order} if order else {}
    with using(Context(clock=VirtualClock(), environment=environment)):
        return running_replicas("endpoint", replicas=replicas, replicas_max=most)


def state_test(test: Any) -> Any:
    run: Any = pulumi.runtime.test(test)

    def wrapped(loop_for_pulumi: None) -> Any:
        del loop_for_pulumi
        return run()

    wrapped.__name__ = test.__name__
    return wrapped


@state_test
async def test_without_a_ceiling_nobody_is_asked_and_nothing_is_declared():
    mocks = StateMocks(None)
    running, records = found(mocks, "no order", replicas=3, most=0)
    assert (running.indices, running.hours, records) == ((0, 1, 2), {}, [])
    assert (mocks.asked, mocks.declared) == ([], [])


@state_test
async def test_a_new_stack_begins_with_its_floor_and_records_that():
    mocks = StateMocks({})
    running, (record,) = found(mocks)
    assert running.indices == (0,)
    await record.urn.future()
    (declared,) = mocks.declared
    assert (declared.typ, declared.name) == (
        "pulumi-python:dynamic/scaling:Scale",
        "endpoint-scale",
    )
    assert Extras.from_bag(declared.inputs) == extras()
    assert mocks.asked == ["vast-vllm/dev"]


@state_test
async def test_an_up_without_an_order_goes_on_with_what_the_state_has():
    lease = Lease(since=NOW - 9000, hours=5.5, contract=7)
    mocks = StateMocks({RECORD: extras(r1=lease).to_bag(), MACHINE: {"instance_id": 7.0}})
    running, (record,) = found(mocks)
    assert (running.indices, running.hours) == ((0, 1), {1: 5.5})
    await record.urn.future()
    assert Extras.from_bag(mocks.declared[0].inputs) == extras(r1=lease)


@state_test
async def test_an_order_counts_more_than_the_state():
    order = extras(r2=new_lease(NOW))
    mocks = StateMocks({RECORD: extras(r1=new_lease(NOW)).to_bag()})
    running, _ = found(mocks, order.model_dump_json())
    assert (running.indices, running.hours) == ((0, 2), {2: LEASE_HOURS})


@state_test
async def test_a_state_that_does_not_answer_is_no_floor():
    with pytest.raises(pulumi.RunError, match=r"does not say how many replicas run .* is away"):
        found(StateMocks(None))


@state_test
async def test_a_record_that_was_changed_by_hand_is_refused():
    with pytest.raises(pulumi.RunError, match="`extras` is missing in the state"):
        found(StateMocks({RECORD: {"endpoint": "endpoint"}}))


def test_another_lease_is_a_change_and_the_same_is_none():
    provider, before = ScaleProvider(), extras(r1=new_lease(NOW)).to_bag()
    assert provider.diff("x", before, before).changes is False
    after = extras(r1=new_lease(NOW).extended(NOW + 9000, 7)).to_bag()
    assert provider.diff("x", before, after).changes is True
    assert provider.update("x", before, after).outs == after
    assert provider.create(before).outs == before
