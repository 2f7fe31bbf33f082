"""Property bags of a server as Pulumi hands them over, for tests of what reads them."""

from __future__ import annotations

from typing import Any

from components.core.property_bag import Properties
from components.vllm.server_state import ServerInputs, ServerState

FIRST_RELEASE: Properties = {
    "agent": "1",
    "download_gb": 1.0,
    "environment": "",
    "host_key": "",
    "host_port": 40000.0,
    "instance_id": "7",
    "max_model_len": 4096.0,
    "model": "org/model",
    "model_env": "",
    "private_key": "",
    "public_ip": "203.0.113.1",
    "ready_minutes": 45.0,
    "serve_yaml": "",
    "ssh_port": 40022.0,
    "tls": False,
}
"""Inputs that every release has written, the first one too."""


def state_bag(**changed: Any) -> Properties:
    """A server's outputs, of the first release unless `changed` has what came later."""
    outputs = {"api_key": "key", "key_digest": "digest", "status": "ready"}
    return {**FIRST_RELEASE, **outputs, **changed}


def state_of(**changed: Any) -> ServerState:
    """The same, read."""
    return ServerState.from_bag(state_bag(**changed))


def inputs_of(**changed: Any) -> ServerInputs:
    """A server's inputs, read."""
    return ServerInputs.from_bag({**FIRST_RELEASE, **changed})
