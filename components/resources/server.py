"""`VllmServer`: vLLM on a rented host, up when the right model has answered with the key.

Pulumi and nothing else: what is decided and done stands in `components/vllm` (`change_summary`,
`deployment`, `health`, `shutdown`), over the types of `server_state`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import pulumi
from pulumi import dynamic

from components.core.errors import StackError
from components.core.property_bag import Properties, StateUnreadable
from components.resources.api_key import ApiKey
from components.resources.authority import Authority
from components.resources.context import Context, current
from components.resources.hub_revisions import HubRevisions
from components.resources.instance import VastInstance
from components.resources.provider import Provider
from components.resources.siblings import told_of
from components.vllm import agent_files, machine_key, server_state
from components.vllm.profile import Profile
from components.vllm.server_state import ServerInputs, ServerState

if TYPE_CHECKING:
    from components.vllm.readiness.course import Course
    from components.vllm.server_access import ServerAccess


class ServerProvider(Provider):
    """CRUD of `VllmServer`."""

    def diff(self, _id: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """Another machine is another server; all else happens in place."""
        from components.vllm.change_summary import change  # noqa: PLC0415

        inputs = ServerInputs.from_bag(news)
        found = change(ServerState.from_bag(olds), inputs)
        if found.message:
            _context_of(inputs).progress("server").say(found.message)
        return dynamic.DiffResult(
            changes=found.is_any, replaces=list(found.replaces), delete_before_replace=True
        )

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Push, start, wait until the model has answered."""
        from components.vllm import deployment  # noqa: PLC0415

        inputs = ServerInputs.from_bag(props)
        with _told_of_siblings(inputs):
            state = deployment.create(inputs, access(inputs))
        return dynamic.CreateResult(f"server-on-{inputs.instance_id}", state.to_bag())

    def read(self, id_: str, props: Properties) -> dynamic.ReadResult:
        """Ask the endpoint who it is, and the host what it was started with."""
        from components.vllm import health  # noqa: PLC0415

        state = ServerState.from_bag(props)
        state = health.refreshed(state, access(state.inputs))
        return dynamic.ReadResult(id_, state.to_bag())

    def update(self, _id: str, olds: Properties, news: Properties) -> dynamic.UpdateResult:
        """Serve what is asked for now, or go back."""
        from components.vllm import deployment  # noqa: PLC0415

        state, inputs = ServerState.from_bag(olds), ServerInputs.from_bag(news)
        with _told_of_siblings(inputs):
            served = deployment.update(state, inputs, access(inputs))
        return dynamic.UpdateResult(served.to_bag())

    def delete(self, _id: str, props: Properties) -> None:
        """Stop the server if its host still answers; the machine's own end stops it otherwise."""
        from components.vllm import shutdown  # noqa: PLC0415

        try:
            state = ServerState.from_bag(props)
        except StateUnreadable as error:
            current().progress("server").say(f"it is not stopped, its host goes anyway ({error})")
            return
        shutdown.shut_down(state, access(state.inputs))


class VllmServer(dynamic.Resource, module="vllm", name="Server"):
    """One model, served."""

    endpoint_url: pulumi.Output[str]
    api_key: pulumi.Output[str]
    """Secret: what the machine takes, see `machine_key.py`."""
    ca_certificate: pulumi.Output[str]
    """PEM to pin: the stack's authority, and on a machine from an older release also its previous
    certificate. Empty with `tls` off.
    """
    model: pulumi.Output[str]
    max_model_len: pulumi.Output[int]
    commits: pulumi.Output[dict[str, str]]
    """By repository, those that the stack has resolved: the host is held to them."""
    model_revision: pulumi.Output[str]
    """The commit of the model that the host names; one of `commits` is the same."""
    files: pulumi.Output[list[dict[str, Any]]]
    """Of the model, as the host names them: `name`, `bytes` and `digest`."""
    files_compared: pulumi.Output[list[str]]
    """The repositories whose files, as the host names them, are the Hub's."""
    companion_revisions: pulumi.Output[dict[str, str]]
    """By repository, the commits of the companions that the host names."""
    started_at: pulumi.Output[str]
    """UTC, ISO 8601."""
    boot_seconds: pulumi.Output[dict[str, float]]
    """By stage: download, load, compile, ..., completion."""

    def __init__(
        self,
        name: str,
        *,
        instance: VastInstance,
        private_key: pulumi.Input[str],
        api_key: ApiKey,
        key_rule: machine_key.KeyRule,
        profile: Profile,
        revisions: HubRevisions,
        authority: Authority,
        leaf: pulumi.Input[str],
        serve_yaml: str,
        tls: bool,
        key_grace_minutes: float,
        max_request_mib: int,
        environment: str,
        ready_minutes: float,
        token_for: pulumi.Input[Sequence[str]],
        rehearse: bool,
        metrics: bool = False,
        drain_minutes: float | None = None,
        rollout: str | None = None,
        replica: int = 0,
        replicas: Sequence[int] = (),
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Serve `profile` at `revisions` as `serve_yaml` says, on `instance`.

        With `tls`, it shows `leaf`, which `authority` has signed for the instance.
        `environment` is what the function of that name gives. `token_for` are the repositories that
        the Hub gives to the holder of the token alone. With `rehearse`, the host starts it with
        dummy weights while the real ones come. With `metrics`, a key opens its counters alone. With
        `drain_minutes`, its end waits at most that long for its clients to leave. Servers with the
        same `rollout` are one endpoint's: one of them at a time restarts in place. It is number
        `replica` among `replicas`.
        """
        inputs: dict[str, Any] = {
            # The id, not the output: it stays known in a preview unless the machine is replaced.
            "instance_id": instance.id,
            "public_ip": instance.public_ip,
            "host_port": instance.host_port,
            "ssh_port": instance.ssh_port,
            "host_key": instance.host_key,
            "host_key_from": instance.host_key_from,
            "token_for": token_for,
            "private_key": private_key,
            "stack_key": api_key.api_key,
            "stack_key_digest": api_key.digest,
            "previous_key_digest": api_key.previous_digest,
            "key_scope": key_rule.scope,
            "key_generation": key_rule.generation,
            "shared_api_key": key_rule.shared,
            "model": profile.served_model_name,
            "max_model_len": profile.max_model_len,
            "download_gb": profile.weights_gb,
            "image_gb": profile.image_gb,
            "disk_gb": profile.disk_gb,
            "serve_yaml": serve_yaml,
            "model_env": agent_files.model_env(profile),
            "commits": revisions.commits,
            "hub_files": revisions.files,
            "authorities": authority.certificate,
            "leaf": leaf,
            "client_certificate": authority.client_certificate,
            "key_grace_minutes": key_grace_minutes,
            "max_request_mib": max_request_mib,
            "environment": pulumi.Output.secret(environment),
            "agent": agent_files.agent_digest(metrics=metrics),
            "tls": tls,
            "ready_minutes": ready_minutes,
            "drain_minutes": drain_minutes,
            "rollout": rollout,
            **(_among_others(api_key, replica, replicas) if rollout else {}),
            "rehearse": rehearse,
            # Absent where it is off, as in states from older releases.
            **({"metrics": True} if metrics else {}),
        }
        secret = [*server_state.SECRET, *(server_state.OF_A_FLEET if rollout else ())]
        own = pulumi.ResourceOptions(
            additional_secret_outputs=secret,
            # Also where a person replaces it: the end of the old server stops the process that the
            # new server would have found.
            delete_before_replace=True,
        )
        super().__init__(
            ServerProvider(),
            name,
            {**inputs, **dict.fromkeys(server_state.OUTPUTS)},
            pulumi.ResourceOptions.merge(opts, own),
        )


def _among_others(api_key: ApiKey, replica: int, replicas: Sequence[int]) -> dict[str, Any]:
    """Give the inputs that a server has behind a router alone."""
    return {
        "replica": replica,
        "replicas": list(replicas),
        "former_keys": api_key.former_keys,
    }


def access(inputs: ServerInputs) -> ServerAccess:
    """Give the clients of the context that holds now, for a server."""
    from components.resources.rollout_files import SharedRollout  # noqa: PLC0415
    from components.vast import quarantine  # noqa: PLC0415
    from components.vllm.server_access import LIMITS, ServerAccess  # noqa: PLC0415

    context = _context_of(inputs)
    return ServerAccess(
        connect=context.remote,
        ask=context.endpoint,
        clock=context.clock,
        progress=context.progress("server"),
        quarantine=lambda instance_id, why: quarantine.quarantine(
            context.market(), instance_id, why
        ),
        rollout=lambda group: SharedRollout(context.market().shared, group),
        limits=LIMITS,
        note_start=lambda inputs, course: _note_start(context, inputs, course),
    )


def _context_of(inputs: ServerInputs) -> Context:
    """The context of a server; one of several is named in each line."""
    if inputs.rollout is None:
        return current()
    return current().for_replica(inputs.replica or 0, len(inputs.replicas or ()))


def _told_of_siblings(inputs: ServerInputs) -> AbstractContextManager[None]:
    return told_of(inputs.rollout, len(inputs.replicas or ()), current())


def _note_start(context: Context, inputs: ServerInputs, course: Course) -> None:
    """Note how a server started; a lost note must stop nothing."""
    from components.vast.boot_notes import ServerStart  # noqa: PLC0415

    start = ServerStart(int(inputs.instance_id), inputs.model, **dataclasses.asdict(course))
    try:
        context.boot_notes().note_start(start)
    except StackError as error:
        context.progress("server").say(f"`make boots` will not show this start ({error})")
