"""Check a server: whether it serves, hangs, and is still the process that was started.

A server that hangs still lists its models, so it is asked for a token. A server that is late while
its counters move on is busy. The host's status is compared with the pushed configuration. A host
that cannot be reached changes no finding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from components.core.bounded import OutOfTime
from components.core.errors import HostError, StackError
from components.core.progress import duration
from components.machine.agent_answers import moment
from components.machine.ssh_types import HostClient, Nonsense
from components.vllm import pushed_configuration, rollout
from components.vllm.client_types import ModelInfo, Refused, Traffic, Unreachable
from components.vllm.errors import OtherWeights
from components.vllm.readiness.decide import BUSY, MOST_PIECES, host_complaint
from components.vllm.readiness.log_parser import BootLog, Stage
from components.vllm.readiness.wait import LogFollower, in_utc
from components.vllm.server_access import Endpoint, Look, ServerAccess
from components.vllm.server_state import READY, ServerInputs, ServerState, Target

PUSHED_MARK = "pushed"
"""File on the host with the digest of the pushed configuration; empty during a push."""

RECONFIGURED = "the server was started with another configuration than the stack's"

DRAINING = "the server asks its clients to leave, as before its end"


def refreshed(state: ServerState, access: ServerAccess) -> ServerState:
    """Look at a server, and return its state with the findings.

    No host can make the look fail or exceed its time.
    """
    limits = access.limits
    try:
        status = access.meanwhile(
            "asking whether it still serves",
            lambda: _endpoint_status(state, access),
            limits.endpoint_look,
        )
        if status == READY:
            status = _host_status(state.target, access)
    except OutOfTime:
        status = f"could not be asked within {duration(limits.endpoint_look)}"
    except Exception as error:  # noqa: BLE001  (what a host's answer comes to is a status)
        words = str(error) if isinstance(error, StackError) else type(error).__name__
        status = f"could not be asked ({words})"
    found = dataclasses.replace(state, status=status)
    rollout.refreshed(found, access)
    return found


def rechecked(olds: ServerState, news: ServerInputs, access: ServerAccess) -> ServerState:
    """Ask a server again that a refresh found not ready, before the finding has consequences.

    A single look can fail, and a serving server is worth going back to. The server is asked at the
    address in `news`, with its existing key.
    """
    if not olds.needs_recheck:
        return olds
    host = dataclasses.replace(olds.inputs.host, address=news.host.address)
    inputs = dataclasses.replace(olds.inputs, host=host, host_port=news.host_port)
    target = dataclasses.replace(olds.target, inputs=inputs)
    return dataclasses.replace(
        olds, status=health_problem(target, olds.ca_certificate, access) or READY
    )


def health_problem(target: Target, certificate: str, access: ServerAccess) -> str:
    """Say what is wrong with a server that was up, so that a restart may mend it; empty if nothing.

    The request has the target's key, and trusts `certificate` (PEM) alone.
    """
    endpoint = access.patient_endpoint(target.inputs, certificate)
    return access.meanwhile(
        "asking for a completion, to tell a server that hangs from one that is busy",
        lambda: completion_problem(endpoint, target.api_key, target.inputs.model, access),
    )


def completion_problem(endpoint: Endpoint, key: str, model: str, access: ServerAccess) -> str:
    """Describe a server that completes nothing; empty if it completes, or is busy.

    A hanging server refuses new requests when enough of them hang. A busy server may refuse or be
    late as well, but its counters move on.
    """
    patience = access.limits.patient
    deadline = access.clock.monotonic() + patience
    before = endpoint.traffic(key)
    answer = endpoint.complete(key, model)
    if isinstance(answer, str):
        return ""
    is_busy = isinstance(answer, Refused) and answer.status in BUSY
    if not is_busy and answer != Unreachable("timed_out"):
        return f"completes nothing: {answer}"
    after = endpoint.traffic(key)
    while _stands_still(before, after) and access.clock.monotonic() < deadline:
        access.clock.sleep(access.limits.look_every)
        after = endpoint.traffic(key)
    if _stands_still(before, after):
        return f"hangs: no completion and not one token within {patience:.0f} s"
    return str(after) if isinstance(after, Unreachable) else ""


def status_if_running(host: HostClient, inputs: ServerInputs) -> dict[str, str] | None:
    """Return the supervisor's status if it runs what would be pushed, else None.

    Raises:
        OtherWeights: if the host names other commits than the configured ones.
        HostError: as `HostClient.status`.
    """
    mark, _ = host.read_log(PUSHED_MARK, 0)
    at_commits = mark == pushed_configuration.pushed_digest(pushed_configuration.as_pushed(inputs))
    if not at_commits and mark != pushed_configuration.pushed_digest(inputs):
        return None
    status = host.status()
    complaint = host_complaint(pushed_configuration.held(inputs), status)
    if complaint and at_commits:
        raise OtherWeights(f"{complaint}: it is not believed, and another host may do")
    # An older release pushed branches, and its host fetched their commits of that time.
    runs = status.get("supervisor") == "running" and not complaint
    return status if runs and not is_reconfigured(status, inputs) else None


def was_up(host: HostClient, status: Mapping[str, str], known: ServerState | None) -> bool:
    """Whether a running server was up before, by the state's same process, or by its log.

    A server that still starts, as after an interrupted `up`, was not up; its start is in its log.
    `known` is the server in the state, or None if the state is not reliable.
    """
    if known is None or not known.needs_recheck:
        return known is not None and known.is_ready
    if status.get("phase") != "serving":
        return False
    return is_same_process(status, known) or _has_served_by_its_log(host)


def is_same_process(status: Mapping[str, str], known: ServerState) -> bool:
    """Whether a host's server was started when the state says that it was."""
    since = moment(status.get("phase_since", ""))
    return since is not None and in_utc(since) == known.started_at


def is_reconfigured(status: Mapping[str, str], inputs: ServerInputs) -> bool:
    """Whether the server was started with another serve.yaml than the one of `inputs`.

    While the weights download, no server was started yet, and the status is of the previous server.
    """
    started_with = status.get("config_digest", "")
    if not started_with or status.get("phase") == "prefetch":
        return False
    return started_with not in pushed_configuration.config_digests(inputs)


def status_on_host(status: Mapping[str, str], inputs: ServerInputs) -> str:
    """Return `READY`, or say what a host runs instead of its configuration."""
    if is_reconfigured(status, inputs):
        return RECONFIGURED
    complaint = host_complaint(pushed_configuration.held(inputs), status)
    return complaint or (DRAINING if status.get("draining") else READY)


def _endpoint_status(state: ServerState, access: ServerAccess) -> str:
    """Return `READY`, or say what is wrong with the endpoint."""
    inputs, key = state.inputs, state.api_key
    # A list of models waits behind no request, since only generation has a queue.
    found = access.endpoint(inputs, state.ca_certificate).models(key)
    if not isinstance(found, ModelInfo):
        return str(found)
    if inputs.model not in found.ids or found.max_model_len != inputs.max_model_len:
        return f"serves {found.id} with {found.max_model_len} tokens"
    patient = access.patient_endpoint(inputs, state.ca_certificate)
    return completion_problem(patient, key, inputs.model, access) or READY


def _host_status(target: Target, access: ServerAccess) -> str:
    """For a server that answers, return `READY`, or say what its host runs instead."""

    def ask() -> str:
        with access.host(target) as host:
            return status_on_host(host.status(), target.inputs)

    doing = "asking its host what it was started with"
    try:
        return access.meanwhile(doing, ask, access.limits.host_look)
    except Nonsense as error:
        return str(error)
    except (HostError, OutOfTime):
        return READY


def _has_served_by_its_log(host: HostClient) -> bool:
    log = BootLog()
    follower = LogFollower(host, "vllm.log")
    for _ in range(MOST_PIECES):
        log.feed(follower.news())
        if not follower.behind:
            break
    return log.stage is Stage.SERVING or not log.start_seen


def _stands_still(before: Look, after: Look) -> bool:
    """Whether the counters show that nothing was done in between; False without counters."""
    return isinstance(before, Traffic) and isinstance(after, Traffic) and before.stands_as(after)
