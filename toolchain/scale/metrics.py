"""The load of an endpoint out of the counters of HAProxy and vLLM, in Prometheus' text. Pure.

The router counts the requests at each machine, and its word is ours. A rented machine says alone
how many of them it has not begun to answer. Whatever it says counts for those that the router has
sent to it, so it cannot invent requests, and cannot have machines rented for them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from components.core.errors import PlatformError
from toolchain.scale.situation import Reading

MEMBERS = "replicas"
"""The section of HAProxy's file that chooses a member (`components/router/config.py`)."""

QUEUE = "haproxy_backend_current_queue"
SESSIONS = "haproxy_server_current_sessions"
STATUS = "haproxy_server_status"
WAITING = "vllm:num_requests_waiting"

MOST_SAMPLES = 5000
"""Of the names above; 128 members have some 1500."""

MOST_COUNTED = 2**53

_MEMBER = re.compile(r"i([1-9][0-9]{0,15})")


class LoadUnknown(PlatformError):
    """The router or a replica does not say how many requests there are.

    Cost: nothing was changed; the leases of replicas are not extended in this turn.
    Remedy: none is needed if it passes; else look whether the endpoint answers.
    """


@dataclasses.dataclass(frozen=True)
class RouterLoad:
    """What HAProxy counts."""

    queue: float
    """Requests without a member."""
    sessions: Mapping[int, float]
    """Requests at each member, by contract."""
    serving: frozenset[int]
    """Contracts of the members that get new requests."""


def router_load(text: str) -> RouterLoad:
    """Read HAProxy's metrics.

    Raises:
        LoadUnknown: if they are none, or name no member.
    """
    queue, sessions, serving = 0.0, {}, set()
    for sample in _samples(text, (QUEUE, SESSIONS, STATUS), "the router"):
        if sample.labels.get("proxy") != MEMBERS:
            continue
        member = _MEMBER.fullmatch(sample.labels.get("server", ""))
        if sample.name == QUEUE:
            queue += sample.value
        elif member and sample.name == SESSIONS:
            sessions[int(member[1])] = sample.value
        elif member and sample.labels.get("state") == "UP" and sample.value:
            serving.add(int(member[1]))
    if not sessions:
        raise LoadUnknown("the router's metrics name none of its members")
    return RouterLoad(queue, sessions, frozenset(serving))


def waiting_requests(text: str, contract: int) -> float:
    """Read from vLLM's metrics how many requests wait, over all engines of the machine.

    Raises:
        LoadUnknown: if they do not say.
    """
    samples = list(_samples(text, (WAITING,), f"instance {contract}"))
    if not samples:
        raise LoadUnknown(f"the metrics of instance {contract} do not count requests that wait")
    return sum(sample.value for sample in samples)


def combined(at: float, router: RouterLoad, waiting: Mapping[int, float]) -> Reading:
    """Give the load of the whole endpoint; `waiting` is each machine's own word, by contract."""
    late = sum(min(waiting.get(one, 0.0), held) for one, held in router.sessions.items())
    return Reading(
        at=at,
        waiting=router.queue + late,
        running=sum(router.sessions.values()) - late,
        serving=len(router.serving),
    )


def _samples(text: str, names: tuple[str, ...], whose: str) -> Iterator[Sample]:
    """Read the samples of these names; what else the text has is not read at all."""
    lines = [line for line in text.split("\n") if re.split(r"[{ \t]", line, maxsplit=1)[0] in names]
    if len(lines) > MOST_SAMPLES:
        raise LoadUnknown(f"the metrics of {whose} have more than {MOST_SAMPLES} samples of a kind")
    try:
        families = list(text_string_to_metric_families("\n".join([*lines, ""])))
    except Exception:  # noqa: BLE001  (a stranger's text brings the parser to any)
        raise LoadUnknown(f"the metrics of {whose} cannot be read") from None
    for family in families:
        for sample in family.samples:
            # A comparison is false for what is no number.
            if not 0 <= sample.value <= MOST_COUNTED:
                raise LoadUnknown(f"the metrics of {whose} count what is no number of requests")
            yield sample
