"""How an endpoint of several machines is wired, under Pulumi's mocks."""

from __future__ import annotations

import re
import time
from typing import Any

import pulumi
import pytest
from pulumi.runtime.rpc import unwrap_rpc_secret

from components.core.keys import digest, machine_key, metrics_key, scope_of
from components.plan import make_plan
from components.resources.scale import READ_STATE
from components.resources.workers import GROUP, at_once, parallel_warning, process_of
from components.scaling.running import Extras, new_lease
from components.settings import parse
from components.vllm.agent_files import agent_digest
from tests.helpers.engine import mocked, settled
from tests.unit.test_model_endpoint import (
    COMMAND,
    EngineMocks,
    made_another,
    made_endpoint,
    pulumi_test,
)
from tests.unit.test_settings import values

ROUTER = "pulumi-python:dynamic/router:Router"
OF_A_MACHINE = ("instance", "certificate", "server", "smoke-test")


class Engine(EngineMocks):
    """With machines that differ, and a router."""

    def __init__(self) -> None:
        super().__init__()
        self.gpus: dict[str, str] = {}
        """By name of a machine's resource, its GPUs, where they are not those of the others."""
        self.failing: set[str] = set()
        """Names of smoke tests that fail."""

    def new_resource(
        self, args: pulumi.runtime.MockResourceArgs
    ) -> tuple[str | None, dict[str, Any]]:
        id_, state = super().new_resource(args)
        if args.typ.endswith("vast:Instance"):
            number = 9001 + index_of(args.name)
            here = {"instance_id": number, "hourly_cost": 2.5, "gpu": self.gpus.get(args.name)}
            own = {name: value for name, value in here.items() if value is not None}
            return str(number), {**state, **own, "host_port": 40000 + number}
        if args.typ == ROUTER:
            return id_, {**state, "where": "this computer", "version": "2.6.12", "digest": "abc"}
        if args.name in self.failing:
            return id_, {**state, "stdout": '{"ok": false}'}
        return id_, state


def index_of(name: str) -> int:
    found = re.match(r"endpoint-r(\d+)-", name)
    return int(found[1]) if found else 0


@pytest.fixture
def mocks(loop_for_pulumi: None) -> Engine:
    del loop_for_pulumi
    return mocked(Engine())


async def several(**changes: Any) -> Any:
    endpoint = made_endpoint(replicas="3", **changes)
    await settled()
    return endpoint


def composed(mocks: Engine, **changes: Any) -> set[str]:
    """Names of all that a program makes, once all of it has been made."""

    async def compose(_mocks: Engine) -> None:
        made_endpoint(**changes)

    pulumi_test(compose)(mocks)
    return {*mocks.all}


def made(mocks: Engine, name: str) -> dict[str, Any]:
    return dict(mocks.all[name].inputs)


ALONE = {
    "endpoint",
    *(
        f"endpoint-{name}"
        for name in (
            "ssh-key",
            "lease",
            "revisions",
            "api-key",
            "offer",
            "instance",
            "holdings",
            "authority",
            "server",
            "smoke-test",
        )
    ),
}
"""What a program makes of an endpoint with one machine."""


def test_one_machine_is_named_as_ever(mocks):
    assert composed(mocks) == ALONE


def test_the_first_machine_keeps_its_names_and_each_other_one_has_its_own(mocks):
    assert composed(mocks, replicas="3") == ALONE | {
        *(f"endpoint-r{index}-{kind}" for index in (1, 2) for kind in OF_A_MACHINE),
        *("endpoint-certificate", "endpoint-router", "endpoint-fleet-smoke-test"),
        "endpoint-workers-0",
    }


def test_under_create_first_every_machine_is_named_after_what_it_is(mocks):
    composed(mocks, replicas="3", replacement="create-first")
    generation = make_plan(parse(values(replacement="create-first"))).generation()
    for index in range(3):
        host = f"endpoint-r{index}-{generation}" if index else f"endpoint-{generation}"
        assert {f"{host}-{kind}" for kind in OF_A_MACHINE} <= {*mocks.all}
        assert made(mocks, f"{host}-instance")["label_prefix"] == f"vast-vllm/dev/{host}-instance/"
    assert "endpoint-router" in mocks.all


def test_machines_beyond_the_first_have_processes_of_their_own(mocks):
    composed(mocks, replicas="6")
    for index in range(6):
        host = f"endpoint-r{index}" if index else "endpoint"
        for kind in ("instance", "certificate", "server"):
            provider = mocks.all[f"{host}-{kind}"].provider
            assert (f"endpoint-workers-{process_of(index)}" in provider) == (index > 0)
    for shared in ("lease", "offer", "api-key", "revisions", "holdings", "authority", "router"):
        assert "workers" not in mocks.all[f"endpoint-{shared}"].provider
    assert {name for name in mocks.all if "workers" in name} == {
        "endpoint-workers-0",
        "endpoint-workers-1",
    }


def test_a_process_has_no_more_machines_than_leave_it_a_free_call():
    groups = [process_of(index) for index in range(1, 32)]
    assert all(groups.count(group) <= GROUP for group in groups)
    assert groups == sorted(groups)


@pytest.mark.parametrize(
    ("replicas", "parallel", "said"),
    [
        (1, 4, False),
        (2, 11, True),
        (2, 12, False),
        (16, 32, True),
        (16, 40, False),
        (32, 72, False),
        (32, None, False),
        (32, 0, False),
    ],
)
def test_a_pulumi_that_would_bring_machines_up_one_after_the_other_is_told(
    replicas, parallel, said
):
    warning = parallel_warning(replicas, parallel)
    assert bool(warning) is said
    assert not said or f"`export PULUMI_PARALLEL={at_once(replicas)}`" in warning


def test_what_several_machines_may_cost_together_is_said_in_advance():
    plan = make_plan(parse(values(replicas="3", routerPort="9443", spread="host")))
    assert "3 machines, no two of one host, for at most $24.00/h together" in plan.facts
    (router,) = (fact for fact in plan.facts if "router" in fact)
    assert "this computer answers at https://127.0.0.1:9443/v1; nobody else can" in router
    elsewhere = {"routerHost": "me@router.example", "routerAddress": "2001:db8::7"}
    plan = make_plan(parse(values(replicas="2", **elsewhere)))
    assert "a router on me@router.example answers at https://[2001:db8::7]:8443/v1" in plan.facts
    assert not [fact for fact in make_plan(parse(values())).facts if "router" in fact]


def test_a_key_that_machines_do_not_share_is_told():
    warnings = make_plan(parse(values(replicas="2", sharedApiKey="true"))).warnings
    assert [one for one in warnings if one.startswith("sharedApiKey does nothing")]
    assert not [
        one
        for settings in ({"sharedApiKey": "true"}, {"replicas": "2"})
        for one in make_plan(parse(values(**settings))).warnings
        if "sharedApiKey" in one
    ]


@pulumi_test
async def test_clients_have_one_address_and_the_stacks_key(mocks):
    endpoint = await several()
    assert await endpoint.endpoint_url.future() == "https://127.0.0.1:8443/v1"
    assert await endpoint.api_key.future() == "KEY"
    assert await endpoint.hourly_cost.future() == 7.5
    assert await endpoint.router.future() == {
        "where": "this computer",
        "version": "2.6.12",
        "digest": "abc",
    }
    machines = await endpoint.replicas.future()
    assert [(one["name"], one["index"], one["instance_id"]) for one in machines] == [
        ("endpoint", 0, 9001),
        ("endpoint-r1", 1, 9002),
        ("endpoint-r2", 2, 9003),
    ]
    assert {one["hourly_cost"] for one in machines} == {2.5}
    assert {one["smoke_ok"] for one in machines} == {True}
    assert (await endpoint.known_hosts.future()).count("\n") == 2
    assert mocks.all


def test_the_router_has_every_machine_and_asks_with_the_stacks_key(mocks):
    elsewhere = {"routing": "least-connections", "lostRouter": "go-on", "routerPort": "9443"}
    composed(mocks, replicas="3", **elsewhere)
    router = made(mocks, "endpoint-router")
    assert router["members"] == [
        {"contract": str(number), "address": "203.0.113.9", "port": 40000 + number}
        for number in (9001, 9002, 9003)
    ]
    assert (router["routing"], router["lost_router"]) == ("least-connections", "go-on")
    assert router["endpoint_url"] == "https://127.0.0.1:9443/v1"
    assert unwrap_rpc_secret(router["stack_key"]) == "KEY"
    asked = unwrap_rpc_secret(made(mocks, "endpoint-fleet-smoke-test")["environment"])
    assert asked["ENDPOINT_URL"] == "https://127.0.0.1:9443/v1"
    assert asked["ENDPOINT_KEY"] == "KEY"
    assert made(mocks, "endpoint-fleet-smoke-test")["triggers"][0] == "9001,9002,9003"
    for host in ("endpoint", "endpoint-r1", "endpoint-r2"):
        own = unwrap_rpc_secret(made(mocks, f"{host}-smoke-test")["environment"])
        assert own["ENDPOINT_KEY"] == "MACHINE KEY"


def test_machines_are_one_endpoints_and_never_share_a_key(mocks):
    composed(mocks, replicas="3", sharedApiKey="true", spread="host")
    for host in ("endpoint", "endpoint-r1", "endpoint-r2"):
        server = made(mocks, f"{host}-server")
        assert server["rollout"] == "vast-vllm/dev/endpoint"
        assert (server["replica"], server["replicas"]) == (index_of(f"{host}-"), [0, 1, 2])
        assert server["drain_minutes"] == 10
        assert (
            server["key_grace_minutes"] >= made(mocks, "endpoint-router")["key_grace_minutes"] + 60
        )
        assert made(mocks, f"{host}-instance")["fleet"] == {"replicas": 3, "spread": "host"}
        assert server["shared_api_key"] is False
        assert "instance_id" in made(mocks, f"{host}-certificate")
    assert made(mocks, "endpoint-offer")["fleet"] == {"replicas": 3, "spread": "host"}
    assert "instance_id" not in made(mocks, "endpoint-authority")
    assert made(mocks, "endpoint-api-key")["shared"] is False
    holdings = made(mocks, "endpoint-holdings")
    assert (holdings["instance_id"], holdings["others"]) == ("9001", ["9002", "9003"])


SCOPE = scope_of("vast-vllm", "dev")


OF_THE_STACK = metrics_key("KEY", SCOPE)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"metrics": "true"}, machine_key(OF_THE_STACK, SCOPE, 9001)),
        ({"metrics": "true", "replicas": "3"}, OF_THE_STACK),
    ],
    ids=["one machine", "several"],
)
def test_the_counters_have_the_key_of_what_clients_call(mocks, changes, key):
    async def has_it(_mocks: Engine) -> None:
        endpoint = made_endpoint(**changes)
        assert endpoint.metrics_key is not None
        assert await endpoint.metrics_key.future() == key
        assert await endpoint.metrics_key.is_secret()

    pulumi_test(has_it)(mocks)


@pulumi_test
async def test_without_the_setting_there_is_no_such_output(mocks):
    assert (await several()).metrics_key is None
    assert mocks.all


def test_who_takes_a_key_of_the_counters_is_told_of_it_and_nobody_else(mocks):
    composed(mocks, replicas="2", metrics="true")
    router, server = made(mocks, "endpoint-router"), made(mocks, "endpoint-r1-server")
    assert router["metrics_key_digest"] == digest(metrics_key("KEY", SCOPE))
    assert (server["metrics"], server["agent"]) == (True, agent_digest(metrics=True))
    mocks.all.clear()
    mocked(mocks)
    composed(mocks, replicas="2")
    router, server = made(mocks, "endpoint-router"), made(mocks, "endpoint-r1-server")
    assert not {"metrics_key_digest", "metrics"} & {*router, *server}
    assert server["agent"] == agent_digest()


def test_one_machine_has_nothing_of_that(mocks):
    composed(mocks)
    server, holdings = made(mocks, "endpoint-server"), made(mocks, "endpoint-holdings")
    assert {"rollout", "replica", "replicas", "drain_minutes"}.isdisjoint(server)
    assert server["key_grace_minutes"] == 10
    assert "others" not in holdings
    for kind in ("offer", "instance"):
        assert "fleet" not in made(mocks, f"endpoint-{kind}")
    assert made(mocks, "endpoint-authority")["instance_id"] == "9001"
    assert ROUTER not in mocks.made


@pulumi_test
async def test_what_all_machines_and_the_router_have_passed_is_proven(mocks):
    release = await (await several()).release.future()
    assert mocks.all
    assert release["proven"] is True
    assert "unproven" not in release


@pytest.mark.parametrize(
    ("failing", "gpus", "said"),
    [
        ({"endpoint-r1-smoke-test"}, {}, "endpoint-r1 has not passed its smoke test"),
        ({"endpoint-fleet-smoke-test"}, {}, "has not passed the smoke test through the router"),
        (set(), {"endpoint-r2-instance": "2x H200"}, "endpoint-r2 runs other GPUs than endpoint"),
    ],
)
def test_one_machine_that_proves_nothing_leaves_the_release_unproven(mocks, failing, gpus, said):
    mocks.failing, mocks.gpus = failing, gpus

    async def unproven(_mocks: Engine) -> None:
        release = await (await several()).release.future()
        assert release["proven"] is False
        (message,) = release["unproven"]
        assert said in message

    pulumi_test(unproven)(mocks)


class Counting(Engine):
    """With a state in which a loop has ordered two machines above the floor."""

    def call(self, args: pulumi.runtime.MockCallArgs) -> Any:
        assert args.token == READ_STATE
        lease = new_lease(time.time())
        extras = Extras(endpoint="endpoint", leases={1: lease, 3: lease}).to_bag()
        urn = "urn:pulumi:dev::vast-vllm::pulumi-python:dynamic/scaling:Scale::endpoint-scale"
        return {"outputs": {urn: {"outputs": extras}}}


def test_machines_that_a_loop_has_ordered_are_declared_behind_the_record_of_it(loop_for_pulumi):
    del loop_for_pulumi
    counting = mocked(Counting())

    names = composed(counting, replicas="1", replicasMax="4")
    assert {"endpoint-scale", "endpoint-router", "endpoint-workers-0"} <= names
    machines = sorted(name for name in names if name.endswith("-instance"))
    assert machines == ["endpoint-instance", "endpoint-r1-instance", "endpoint-r3-instance"]
    hours = [made(counting, name)["leash"]["time_to_live_hours"] for name in machines]
    assert hours[0] == 0
    assert min(hours[1:]) > 0
    assert made(counting, "endpoint-r3-server")["replicas"] == [0, 1, 3]


def test_the_announcement_is_of_the_router(mocks):
    composed(mocks, replicas="3", announceCommand="true")
    environment = unwrap_rpc_secret(made(mocks, "endpoint-announcement")["environment"])
    assert mocks.all["endpoint-announcement"].typ == COMMAND
    assert environment["ENDPOINT_URL"] == "https://127.0.0.1:8443/v1"
    assert environment["ENDPOINT_KEY"] == "KEY"


@pytest.mark.parametrize("fleet", [True, False])
def test_a_key_from_outside_is_one_for_several_machines(mocks, fleet):
    from components.resources.api_key import ApiKey  # noqa: PLC0415  (after the mocks)

    async def compose(_mocks: Engine) -> None:
        shared = ApiKey("shared", generation=1, shared=False, fleet=fleet)
        made_another("endpoint", api_key=shared, replicas=2)

    if fleet:
        pulumi_test(compose)(mocks)
        assert "endpoint-api-key" not in mocks.all
        assert unwrap_rpc_secret(made(mocks, "endpoint-router")["stack_key"]) == "KEY"
        return
    with pytest.raises(pulumi.RunError, match="make that ApiKey with `fleet=True`"):
        pulumi_test(compose)(mocks)
    assert not [name for name in mocks.all if "instance" in name]
