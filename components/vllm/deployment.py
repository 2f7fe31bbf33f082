"""Puts a server on a host, keeps it, restarts it, or goes back to what served.

The configuration is pushed over SSH, not baked into the rental. So a changed option restarts the
server on the same host and downloads nothing, and a change that does not come up is undone.
"""

from __future__ import annotations

import dataclasses
import functools

from components.core.errors import StackError
from components.core.interruption import Interrupted
from components.core.keys import digest
from components.machine.ssh_types import HostClient, Nonsense
from components.vllm import (
    agent_files,
    fetched_files,
    gate_files,
    health,
    machine_key,
    pushed_configuration,
    rollout,
)
from components.vllm.agent_files import assigned
from components.vllm.client_types import EndpointClient, ModelInfo, Refused, Unreachable
from components.vllm.errors import (
    ChangeFailed,
    OtherWeights,
    RolloutStopped,
    ServerFailed,
    ServerHostFailed,
)
from components.vllm.host_certificates import Shown, is_taken, with_cross_certificate
from components.vllm.readiness.plan import ReadinessPlan
from components.vllm.readiness.wait import NotReady, ReadinessReport, in_utc, wait_until_ready
from components.vllm.rollout import Turn
from components.vllm.serve_config import DRAIN_SECONDS
from components.vllm.server_access import (
    COMMAND_SECONDS,
    MACHINE_STAYS,
    Endpoint,
    ServerAccess,
    run,
    supervise,
    url,
)
from components.vllm.server_state import READY, ServerInputs, ServerState, Target

PUSHED_CERTIFICATES = "tls/pushed.pem"
"""File on the host with what the server shows; `supervise.sh certify` puts it in its place."""

PUSHED_CLIENTS = "tls/pushed-clients.pem"
"""File with the authority of the clients that the server admits; empty if it admits all."""

UNTOUCHED = (
    "what served before, if anything did, is on another machine, untouched, and serves on; this "
    "new machine stays and is billed until an `up` that works, or that goes back (`make rollback`)"
)
"""The consequence of a failed create-first successor, for messages."""


def create(inputs: ServerInputs, access: ServerAccess) -> ServerState:
    """Bring a machine that serves nothing yet to serve.

    Raises:
        StackError: saying what becomes of the machine and its bill.
    """
    try:
        state = _serve(target_of(inputs, None), None, None, Turn(access))
    except StackError as error:
        if not isinstance(error, Interrupted):
            rollout.created(inputs, access, comes_up=False)
        _quarantine_if_unfit(inputs, error, access)
        if inputs.drain_minutes is not None and inputs.rollout is None:
            error.args = (f"{error}; {UNTOUCHED}",)
        elif not isinstance(error, ServerHostFailed | Nonsense):
            error.args = (f"{error}; {MACHINE_STAYS}",)
        raise
    rollout.created(inputs, access, comes_up=True)
    return state


def update(olds: ServerState, news: ServerInputs, access: ServerAccess) -> ServerState:
    """Serve what is asked for now, or go back; a replaced key works on for its grace.

    A server with siblings restarts in its turn.

    Raises:
        ChangeFailed: it did not come up; says what serves now.
        RolloutStopped: it was not tried, because of a sibling.
        StackError: there was nothing to go back to, or somebody asked to end.
    """
    was_ready = olds.is_ready
    olds = health.rechecked(olds, news, access)
    is_found = olds.is_ready and not was_ready
    is_out = is_found and rollout.has_left(news, olds.ca_certificate, access)
    with rollout.turn(news, access, serves=olds.is_ready, is_out=is_out) as turn:
        if _will_restart(olds, news):
            turn.take()
        try:
            state = _serve(target_of(news, olds), olds, olds, turn)
        except RolloutStopped:
            raise
        except StackError as error:
            if isinstance(error, Interrupted):
                raise _interrupted(error, turn) from None
            failure = roll_back(olds, error, turn)
            turn.failed()
            raise failure from None
        turn.came_up()
    if state.started_at == olds.started_at:
        return dataclasses.replace(state, boot_seconds=olds.boot_seconds)
    return state


def target_of(inputs: ServerInputs, olds: ServerState | None) -> Target:
    """Give the target of the machine of `inputs`; `olds` is the server that runs there, if any."""
    key = machine_key.taken(olds, inputs)
    return Target(inputs, key, digest(key))


def roll_back(olds: ServerState, error: StackError, turn: Turn) -> StackError:
    """Serve again what served before a change that did not come up; return what to report."""
    access = turn.access
    if not olds.is_ready or isinstance(error, OtherWeights):
        # A host with other weights is not believed about its previous server either.
        _quarantine_if_unfit(olds.inputs, error, access)
        return error
    access.progress.say(f"the change did not come up ({error}); going back to what served before")
    try:
        if _only_keys_changed(olds, turn):
            return ChangeFailed(
                f"{error}; the previous keys hold again, and the server runs on as it was"
            )
        _serve(olds.target, olds, None, turn)
    except (ServerFailed, Nonsense) as again:
        _quarantine_if_unfit(olds.inputs, again, access)
        return ChangeFailed(
            f"{error}; going back to the previous configuration failed too ({again}), so nothing "
            "serves: correct the settings and run `pulumi up`, or `pulumi destroy` to end the bill"
        )
    except StackError as again:
        return ChangeFailed(
            f"{error}; going back to the previous configuration failed too ({again}), so the host "
            "may serve either of them: run `pulumi up` again, which finds out and pushes what is "
            "asked for, or `pulumi destroy` to end the bill"
        )
    return ChangeFailed(f"{error}; the previous configuration serves again, nothing else changed")


def _interrupted(error: Interrupted, turn: Turn) -> Interrupted:
    """Say what becomes of a change that somebody asked to end."""
    if turn.gave_up:
        return Interrupted(f"{error}; {rollout.LEFT_ALONE}, and {MACHINE_STAYS}")
    return Interrupted(f"{error}; the host goes on with the change, and {MACHINE_STAYS}")


def _will_restart(olds: ServerState, news: ServerInputs) -> bool:
    """Whether a restart is to be expected; other findings on the host may need one all the same."""
    before, after = (
        pushed_configuration.pushed_digest(pushed_configuration.as_pushed(inputs))
        for inputs in (olds.inputs, news)
    )
    return before != after or not olds.is_ready


def _serve(
    target: Target,
    before: ServerState | None,
    known: ServerState | None,
    turn: Turn,
) -> ServerState:
    """Bring the target's host to serve it; the keys of `before` work on for their grace.

    `known` is the server that the host runs as far as the state knows; None if it does not know.
    In its turn, it leaves a router before a restart, and returns once it is proven.
    """
    access = turn.access
    inputs, progress = target.inputs, access.progress
    plan = _readiness_plan(target)
    with access.host(target) as host:
        progress.say("pushing its configuration to the host")
        # Until the new key is proven, the replaced ones must not run out.
        gate_files.push(host, target, before, access.clock.epoch(), longer=plan.deadline)
        host.put(agent_files.agent_files(metrics=inputs.metrics))
        shown = _push_certificates(host, Shown.of(inputs, before), access)
        served_before = _push(host, target, known, shown, turn)
        endpoint: EndpointClient = access.endpoint(inputs, shown.trusted)
        if served_before:
            plan = dataclasses.replace(plan, served_before=True)
            endpoint = _PatientEndpoint(access.patient_endpoint(inputs, shown.trusted), access)
        note = functools.partial(access.note_start, inputs)
        report = wait_until_ready(host, endpoint, plan, access.clock, progress, note=note)
        # Clients can change over from now on only, so the grace of the replaced key begins now.
        keys = gate_files.push(host, target, before, access.clock.epoch())
        files = fetched_files.listed(host)
        compared = fetched_files.compared(host, inputs, files, served_before=served_before)
        turn.come_back(host, inputs, shown.trusted)
    progress.say(f"{inputs.model} answers at {url(inputs)}")
    if before is not None and before.key_digest != target.key_digest:
        progress.say(_about_replaced_key(keys.replaced.get(before.key_digest), inputs))
    return dataclasses.replace(
        _state(target, shown, report),
        files=files,
        files_compared=compared,
        replaced_keys=keys.replaced,
        metrics_keys=keys.metrics,
    )


def _only_keys_changed(olds: ServerState, turn: Turn) -> bool:
    """If the host still runs the previous server, put its keys back; nothing else has changed.

    Another question to such a server would take as long, with the same answer.
    """
    target, access = olds.target, turn.access
    with access.host(target) as host:
        if health.status_if_running(host, olds.inputs) is None:
            return False
        gate_files.push(host, target, olds, access.clock.epoch())
        turn.come_back(host, olds.inputs, olds.ca_certificate)
    return True


def _quarantine_if_unfit(inputs: ServerInputs, error: StackError, access: ServerAccess) -> None:
    """If it is the machine's fault, mark it as unfit and say so in `error`."""
    if isinstance(error, ServerHostFailed | Nonsense):
        cause = error.cause if isinstance(error, NotReady | OtherWeights) else "commands_fail"
        error.args = (f"{error}; {access.quarantine(int(inputs.instance_id), cause)}",)


def _push(
    host: HostClient,
    target: Target,
    known: ServerState | None,
    shown: Shown,
    turn: Turn,
) -> bool:
    """Bring the host's files up to date and the server to run with them.

    Returns whether the server was left running and had been up before.
    """
    access = turn.access
    inputs, progress = target.inputs, access.progress
    status = health.status_if_running(host, inputs)
    if status is not None:
        was_up = health.was_up(host, status, known)
        problem = _reason_to_restart(target, known if was_up else None, shown, access)
        if not problem:
            progress.say("the server runs with this configuration already")
            if status.get("draining"):
                # An earlier stop was begun and not completed.
                run(host, supervise("undrain"), timeout=COMMAND_SECONDS)
                turn.left = True
                progress.say("it was draining, and takes requests again")
            return was_up
        progress.say(f"the server runs and is not well ({problem}): it is restarted")
    held_back = pushed_configuration.check_token(inputs)
    if held_back:
        progress.say(held_back)
    turn.leave(host, target, shown.trusted)
    _restart(host, pushed_configuration.as_pushed(inputs), access)
    turn.stay_away(host)
    progress.say("the supervisor has started")
    return False


def _reason_to_restart(
    target: Target, known: ServerState | None, shown: Shown, access: ServerAccess
) -> str:
    """Say why a server with the right configuration has to restart; empty if it need not.

    `known` is what the state says of a server that was up once, or None.
    """
    inputs = target.inputs
    if shown.leaf and not is_taken(access.endpoint(inputs, shown.leaf), access.clock):
        return "it does not take up its new certificate"
    if known is None or not known.needs_recheck:
        return ""
    if (known.ca_certificate, known.inputs.leaf or "") == (shown.trusted, shown.leaf):
        return known.status or ""
    # The look used another address, or the certificate had ended.
    return health.health_problem(target, shown.trusted, access)


def _restart(host: HostClient, pushed: ServerInputs, access: ServerAccess) -> None:
    # After a broken connection, the next process must not mistake a half push for the running
    # configuration.
    host.put({health.PUSHED_MARK: (b"", 0o644)})
    host.put(pushed_configuration.configuration_files(pushed))
    access.meanwhile(
        "the running server drains and starts anew",
        lambda: run(host, supervise("restart"), timeout=DRAIN_SECONDS + COMMAND_SECONDS),
    )
    host.put({health.PUSHED_MARK: (pushed_configuration.pushed_digest(pushed).encode(), 0o644)})


def _push_certificates(host: HostClient, shown: Shown, access: ServerAccess) -> Shown:
    """Push the server's certificates, which a running server takes up."""
    shown = with_cross_certificate(shown, host)
    if shown.former and shown.leaf and not shown.cross:
        access.progress.say(
            "the host cannot vouch for the stack's authority with its own former certificate: "
            "clients that pin only that certificate need the stack's `ca_certificate` now"
        )
    if shown.leaf:
        host.put(
            {
                PUSHED_CERTIFICATES: (shown.chain.encode(), 0o644),
                PUSHED_CLIENTS: (shown.lets_in.encode(), 0o644),
            }
        )
        run(host, supervise("certify"), timeout=COMMAND_SECONDS)
    return shown


def _about_replaced_key(until: float | None, inputs: ServerInputs) -> str:
    """Say when a replaced key ends, if it does not end at once."""
    shown = "the stack's outputs show it until this update is through"
    if until is None or not inputs.key_grace_minutes:
        return f"the previous key is refused from now on, and {shown}"
    return (
        f"the previous key works until {in_utc(until)}, and {shown}: if something fails after "
        "this, run `pulumi up` again before then"
    )


def _readiness_plan(target: Target) -> ReadinessPlan:
    inputs = target.inputs
    return ReadinessPlan(
        model=inputs.model,
        max_model_len=inputs.max_model_len,
        api_key=target.api_key,
        download_bytes=inputs.download_gb * 1e9,
        deadline=inputs.ready_minutes * 60,
        # A value may be a token.
        secrets=tuple(assigned(inputs.environment).values()),
        held=pushed_configuration.held(inputs),
    )


def _state(target: Target, shown: Shown, report: ReadinessReport) -> ServerState:
    held = pushed_configuration.held(target.inputs)
    # The commits to which a host was held are known without its word, which may name more.
    resolved = held.commits.get(held.model, report.resolved_revision)
    companions = {name: at for name, at in held.commits.items() if name != held.model}
    return ServerState(
        inputs=target.inputs,
        status=READY,
        endpoint_url=f"{url(target.inputs)}/v1",
        api_key=target.api_key,
        key_digest=target.key_digest,
        ca_certificate=shown.trusted,
        former_certificate=shown.former,
        cross_certificate=shown.cross,
        model_revision=resolved,
        companion_revisions=companions if held.commits else report.companion_revisions,
        started_at=report.started_at,
        boot_seconds={stage: round(took, 1) for stage, took in report.seconds.items()},
    )


@dataclasses.dataclass(frozen=True)
class _PatientEndpoint:
    """An `EndpointClient` whose completion may take long; it says so meanwhile."""

    endpoint: Endpoint
    access: ServerAccess

    def models(self, key: str) -> ModelInfo | Refused | Unreachable:
        return self.endpoint.models(key)

    def complete(self, key: str, model: str) -> str | Refused | Unreachable:
        doing = "asking for a completion, which may take its turn behind other requests"
        return self.access.meanwhile(doing, lambda: self.endpoint.complete(key, model))

    def status_of(self, path: str, key: str | None, *, method: str = "GET") -> int | Unreachable:
        return self.endpoint.status_of(path, key, method=method)
