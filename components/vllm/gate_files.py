"""The files that the key gate reads again while it serves: keys as digests, and its limit.

The gate takes them up without a restart, so they are pushed before and after each change.
"""

from __future__ import annotations

from typing import NamedTuple

from components.machine.ssh_types import HostClient
from components.vllm import key_rotation
from components.vllm.key_rotation import MetricsKeys, Replaced
from components.vllm.server_state import ServerState, Target

MIB = 1024 * 1024
"""Bytes."""

KEYS = "allowed_keys"
METRICS_KEYS = "metrics_keys"
"""Digests of keys that open the counters alone; `metrics_gate.py` reads it."""


class GateKeys(NamedTuple):
    """What a gate lets in beside the key of its machine."""

    replaced: Replaced
    metrics: MetricsKeys


def push(
    host: HostClient,
    target: Target,
    before: ServerState | None,
    now: float,
    longer: float = 0.0,
) -> GateKeys:
    """Let the target's keys begin to work at `now`, in seconds since 1970; return what works.

    Keys of the server `before` work on for their grace, and `longer` by some seconds while the
    new key is not proven yet.

    Raises:
        HostError: as `HostClient.put`.
    """
    inputs = target.inputs
    keys = GateKeys(
        key_rotation.still_working(before, inputs, target.key_digest, now),
        key_rotation.metrics_keys(before, inputs, now),
    )
    replaced = key_rotation.prolonged(keys.replaced, longer)
    files = {KEYS: (key_rotation.lines(target.key_digest, replaced).encode(), 0o600)}
    if inputs.max_request_mib is not None:
        files["body_limit"] = (f"{inputs.max_request_mib * MIB}\n".encode(), 0o644)
    # A host whose stack has never asked for it gets no such file.
    if inputs.metrics or (before and before.metrics_keys):
        written = key_rotation.metrics_lines(keys.metrics, longer)
        files[METRICS_KEYS] = (written.encode(), 0o600)
    host.put(files)
    return keys
