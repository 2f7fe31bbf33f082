"""Stacks as Pulumi exports them, secrets in clear: of one machine, of several, of none."""

from __future__ import annotations

import functools
import json
from typing import Any

from tests.helpers.places import ROOT
from tests.helpers.state_secrets import in_clear_by
from toolchain.day_two.fleet import Fleet, fleet_of

PASSPHRASE = "the passphrase of an emulated stack"

KEY = bytes.fromhex("a192830df9c1af9e60594e0295b51fd98880661d11a1b0fa75ca2fe203c73f16")
"""What `key_of` derives from it and the state's salt in a sixth of a second, and each worker of the
tests again: `test_fleet.py` holds it to that."""

CONTRACT = 89899122
"""Of the one machine; replicas have the numbers after it."""

_OF_A_MACHINE = ("vast:Instance", "vllm:Server")

ROUTED = "https://192.0.2.1:8443/v1"


@functools.cache
def _written() -> str:
    """The newest state in the repository, as `pulumi stack export --show-secrets` gives it."""
    return json.dumps(in_clear_by(KEY, encrypted()))


def encrypted() -> dict[str, Any]:
    """The same as it stands there."""
    exported = json.loads((ROOT / "tests/states/2026-11-28.json").read_text())
    return dict(exported["deployment"])


def deployment(replicas: int = 1) -> dict[str, Any]:
    """An exported state of a stack with so many machines, and with a router if they are several."""
    one: dict[str, Any] = json.loads(_written())
    machine = [found for found in one["resources"] if found["type"].endswith(_OF_A_MACHINE)]
    for replica in range(1, replicas):
        one["resources"] += [_replica(resource, replica) for resource in machine]
    if replicas > 1:
        one["resources"].append(_router(one["resources"][0]["urn"]))
        stack = next(r for r in one["resources"] if r["type"] == "pulumi:pulumi:Stack")
        stack["outputs"]["endpoint_url"] = ROUTED
    return one


def fleet(replicas: int = 1) -> Fleet:
    """The same, read."""
    return fleet_of("old", deployment(replicas))


def destroyed() -> dict[str, Any]:
    """What Pulumi exports of a stack that was destroyed."""
    return {"manifest": {}, "resources": []}


def _replica(resource: dict[str, Any], replica: int) -> dict[str, Any]:
    contract = CONTRACT + replica
    text = json.dumps(resource).replace(str(CONTRACT), str(contract))
    found = dict(json.loads(text.replace("::endpoint-", f"::endpoint-r{replica}-")))
    for bag in (found["outputs"], found["inputs"]):
        for name in ("host_port", "ssh_port"):
            if name in bag:
                bag[name] += replica
        if "instance_id" in bag and isinstance(bag["instance_id"], float):
            bag["instance_id"] = float(contract)
    return found


def _router(urn: str) -> dict[str, Any]:
    outputs = {
        "endpoint_url": ROUTED,
        "ca_certificate": "",
        "where": "this computer",
        "version": "2.6.12",
        "host": "",
        "label": "vast-vllm/old/endpoint-router",
        "supervisor": "systemd",
        "problem": "",
    }
    return {
        "urn": f"{urn.rpartition('::')[0]}::endpoint-router",
        "type": "pulumi-python:dynamic/router:Router",
        "id": "router",
        "outputs": outputs,
    }
