"""Which keys the gate takes, as digests: the stack's own, and replaced ones until their time. Pure.

The file's lines are what `on_host/key_gate.py` reads: a digest, with ` until <seconds since 1970>`
behind one that was replaced. The gate itself ends a replaced key, without another command.
"""

from __future__ import annotations

from components.core.keys import digest, machine_key, metrics_key
from components.vllm.server_state import ServerInputs, ServerState

Replaced = dict[str, float]
"""Digest of a replaced key -> the second since 1970 from which on it is refused."""

MetricsKeys = dict[str, float]
"""Digest of a key that opens the counters alone -> as above, and 0 for the one that does not end.
"""


def still_working(
    olds: ServerState | None, inputs: ServerInputs, current: str, now: float
) -> Replaced:
    """Find all keys that still work beside the one with the digest `current`, which works now.

    `olds` is the server so far on the machine of `inputs`, or None; `now` in seconds since 1970.
    """
    of_router = of_clients(inputs, current, now)
    return {**of_router, **replaced(olds, current, _grace_minutes(olds, inputs), now)}


def replaced(olds: ServerState | None, current: str, grace_minutes: float, now: float) -> Replaced:
    """Find the keys that still work beside the one with the digest `current`.

    `olds` is the server so far, or None. The grace of its key begins at `now`, in seconds since
    1970; keys that were replaced earlier keep their end.
    """
    if olds is None:
        return {}
    kept = {
        digest: until
        for digest, until in olds.replaced_keys.items()
        if until > now and digest != current
    }
    if olds.key_digest != current:
        kept[olds.key_digest] = now + grace_minutes * 60
    return kept


def of_clients(inputs: ServerInputs, current: str, now: float) -> Replaced:
    """Find the keys by which a router's clients, with a replaced key, still reach a machine.

    A router sends the key that it derives from the client's. So a machine that is rented within the
    grace has to take those of replaced keys as well, though it never had them. The grace of a
    machine outlasts the router's, since the router learns of a new key after its members.
    """
    ends = {
        digest(machine_key(former.key, inputs.key_scope, int(inputs.instance_id))): (
            former.replaced_at + inputs.key_grace_minutes * 60
        )
        for former in inputs.former_keys
    }
    return {key: until for key, until in ends.items() if until > now and key != current}


def metrics_keys(olds: ServerState | None, inputs: ServerInputs, now: float) -> MetricsKeys:
    """Find the keys that open the counters alone; none where the stack does not ask for them.

    A replaced one works for the grace of its machine's key, from `now` on.
    """
    if not inputs.metrics:
        return {}
    current = digest(_of_counters(inputs))
    known = olds.metrics_keys if olds else {}
    ends = {key: end or now + inputs.key_grace_minutes * 60 for key, end in known.items()}
    return {
        current: 0.0,
        **{key: end for key, end in ends.items() if key != current and end > now},
    }


def prolonged(keys: Replaced, seconds: float) -> Replaced:
    """Let replaced keys work `seconds` longer, while the new key is not proven yet."""
    return {digest: until + seconds for digest, until in keys.items()}


def lines(current: str, keys: Replaced) -> str:
    """Write the gate's file."""
    ending = "".join(f"{digest} until {round(until)}\n" for digest, until in sorted(keys.items()))
    return f"{current}\n{ending}"


def metrics_lines(keys: MetricsKeys, longer: float = 0.0) -> str:
    """Write the file of `metrics_gate.py`; replaced keys work `longer` by some seconds."""
    current = [key for key, end in keys.items() if not end]
    replaced = {key: end for key, end in keys.items() if end}
    return lines(current[0], prolonged(replaced, longer)) if current else ""


def _grace_minutes(olds: ServerState | None, inputs: ServerInputs) -> float:
    """Give how long a key works that is replaced now.

    The router in front of a machine that leaves its fleet lets clients in until the `up` has gone
    through, and that may fail. So the machine has the grace of a member once more.
    """
    if olds is not None and olds.inputs.rollout and not inputs.rollout:
        return max(inputs.key_grace_minutes, olds.inputs.key_grace_minutes)
    return inputs.key_grace_minutes


def _of_counters(inputs: ServerInputs) -> str:
    if not inputs.stack_key:
        raise ValueError("the stack's key is not known")
    scope = inputs.key_scope
    return machine_key(metrics_key(inputs.stack_key, scope), scope, int(inputs.instance_id))
