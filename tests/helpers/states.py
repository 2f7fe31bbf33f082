"""A rented machine's inputs and outputs, as Pulumi hands them over: all numbers are floats."""

from __future__ import annotations

import dataclasses
from typing import Any

from components.core.property_bag import Properties
from components.machine.ssh_library import asyncssh
from components.vast.instance_state import InstanceInputs, InstanceState
from tests.helpers.offers import need

QUERY = "gpu_name=H200 num_gpus=2"
SSH_KEY = "ssh-ed25519 AAAA p/s"
PREFIX = "p/s/endpoint-instance/"


def search(**changes: Any) -> Properties:
    """An offer's inputs."""
    values = {"query": QUERY, **dataclasses.asdict(need())} | changes
    floats = {
        key: float(value)
        for key, value in values.items()
        if isinstance(value, int) and not isinstance(value, bool)
    }
    return {**values, **floats, "files": list(values["files"])}


def ordered(client_key: asyncssh.SSHKey | None = None, **changes: Any) -> Properties:
    """An instance's inputs, as the first release wrote them but for what its search lacked."""
    private = client_key.export_private_key().decode() if client_key else "PRIVATE"
    return {
        "label_prefix": PREFIX,
        "search": search(),
        "image": "vllm/vllm-openai:v0.33.0",
        "disk_gb": 500.0,
        "port": 8000.0,
        "public_key": SSH_KEY,
        "private_key": private,
        "min_driver": "580",
        "boot_minutes": 20.0,
    } | changes


def first_rented(**changes: Any) -> Properties:
    """An instance's outputs in a state of the first release."""
    return {
        **ordered(),
        "instance_id": 9001.0,
        "machine_id": 7.0,
        "status": "running",
        "label": f"{PREFIX}abc",
        "public_ip": "203.0.113.9",
        "ssh_port": 40022.0,
        "host_port": 40123.0,
        "host_key": "ssh-ed25519 AAAA",
        "host_facts": {"gpu_names": ["NVIDIA H200", "NVIDIA H200"], "driver": "580.95.05"},
        "boot_seconds": {"contract": 3.0, "image": 30.0},
        "gpu": "2x H200",
        "gpu_name": "H200",
        "num_gpus": 2.0,
        "hourly_cost": 6.0,
        "location": "Iceland, IS",
        "datacenter": True,
        "adopted": False,
    } | changes


def rented(**changes: Any) -> Properties:
    """An instance's outputs in a state of the release after it."""
    return {
        **first_rented(),
        "intended_status": "running",
        "carried_label": f"{PREFIX}abc",
        "strays": [],
    } | changes


def inputs(**changes: Any) -> InstanceInputs:
    return InstanceInputs.from_bag(ordered(**changes))


def state(**changes: Any) -> InstanceState:
    return InstanceState.from_bag(rented(**changes))
