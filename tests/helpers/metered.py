"""Stacks whose counters have a key of their own, read from an exported state."""

from __future__ import annotations

from typing import Any

from components.core.keys import digest, machine_key, metrics_key, scope_of
from tests.helpers.fleets import CONTRACT, deployment
from toolchain.day_two.fleet import Fleet, fleet_of

STACK_KEY = "7d" * 24
SCOPE = scope_of("vast-vllm", "dev")
OF_THE_STACK = metrics_key(STACK_KEY, SCOPE)


def of_machine(replica: int = 0) -> str:
    """The key of a machine's counters."""
    return machine_key(OF_THE_STACK, SCOPE, CONTRACT + replica)


def metered(replicas: int = 1, **changes: Any) -> Fleet:
    """A stack with so many machines; `changes` are laid over the properties of each server."""
    found = deployment(replicas)
    for one in found["resources"]:
        if one["type"].endswith("vllm:Server"):
            replica = int(float(one["outputs"]["instance_id"])) - CONTRACT
            own = {
                "stack_key": STACK_KEY,
                "key_scope": SCOPE,
                "metrics": True,
                "metrics_keys": {digest(of_machine(replica)): 0.0},
            }
            one["outputs"] = {**one["outputs"], **own, **changes}
        if one["type"] == "pulumi:pulumi:Stack":
            key = OF_THE_STACK if replicas > 1 else of_machine()
            one["outputs"] = {**one["outputs"], "metrics_key": key}
    return fleet_of("old", found)
