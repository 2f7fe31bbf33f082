"""`ModelEndpoint`: a served model as one thing, composed of everything it needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pulumi
from pulumi.runtime.settings import SETTINGS

from components import endpoints
from components.core.commands import as_typed_here
from components.endpoints import Declared
from components.front import Front, described, in_front, proofs, ssh_command
from components.outputs import folded
from components.plan import Plan, make_plan
from components.replica import Parts, Replica, offered, rented, serving
from components.resources.api_key import ApiKey
from components.resources.authority import Authority
from components.resources.context import current
from components.resources.hub_revisions import HubRevisions
from components.resources.instance import VastInstance
from components.resources.orphan_cleanup import OrphanCleanup
from components.resources.program import running as program
from components.resources.promotion import Promotion
from components.resources.scale import running_replicas
from components.resources.server import VllmServer
from components.resources.ssh_key import SshKey
from components.resources.stack_finalizer import StackFinalizer
from components.resources.workers import parallel_warning, processes
from components.settings import Settings, parse
from components.vast.labels import stack_prefix


class ModelEndpoint(pulumi.ComponentResource):
    """Rented machines that serve one model behind one URL and one key."""

    instance: VastInstance
    """The first machine."""
    server: VllmServer
    """Of the first machine."""

    endpoint_url: pulumi.Output[str]
    """Base URL of the OpenAI API, with `/v1`."""
    api_key: pulumi.Output[str]
    """Secret; the key that the serving machine or the router accepts."""
    ca_certificate: pulumi.Output[str]
    """PEM to pin; empty with `tls` off."""
    client_certificate: pulumi.Output[str]
    """PEM of certificate and key that a client shows; secret, and empty if none is asked for."""
    ssh_command: pulumi.Output[str]
    """Expects the outputs `ssh_private_key` and `known_hosts` in `stack.key` and `stack.known`."""
    known_hosts: pulumi.Output[str]
    """The host keys that were recorded at first contact, as lines of `known_hosts`."""
    ssh_private_key: pulumi.Output[str]
    """Secret."""
    boot_seconds: pulumi.Output[dict[str, float]]
    """Boot of the host and of the server, by stage."""
    smoke_report: pulumi.Output[dict[str, Any]]
    """Questions and answers of the smoke test after the last change."""
    release: pulumi.Output[dict[str, Any]]
    """What runs, for the gate of another stack; see `endpoints.release_facts`."""
    hourly_cost: pulumi.Output[float]
    """$/h of all machines, with their disks, without traffic."""
    replicas: pulumi.Output[list[dict[str, Any]]]
    """What each machine is, in the order of their numbers."""
    router: pulumi.Output[dict[str, Any]] | None
    """Where the router in front of several machines runs; None in front of one."""
    metrics_key: pulumi.Output[str] | None
    """Secret; opens `/metrics` at `endpoint_url` and nothing else. None with `metrics` off."""
    report: pulumi.Output[str]
    """All other facts, as `outputs.unfolded` reads them."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        opts: pulumi.ResourceOptions | None = None,
        *,
        api_key: ApiKey | None = None,
        label: str | None = None,
    ) -> None:
        """Compose an endpoint out of settings. A program can have several of them.

        Args:
            name: stands in the labels of its machines. No endpoint's name may begin another
                endpoint's name.
            settings: those of the stack, or a `variant` of them.
            opts: of the component.
            api_key: the key from which its machines' keys are derived; by default it makes a key.
            label: beginning of its labels; else, and at least, `<project>/<stack>/`.

        Raises:
            pulumi.RunError: one sentence, if the settings or the name cannot work.
        """
        super().__init__("vast-vllm:index:ModelEndpoint", name, {}, opts)
        label = label or stack_prefix(pulumi.get_project(), pulumi.get_stack())
        with program().refusing():
            endpoint = Declared.of(name, label, settings)
            program().declare(endpoint)
            plan = make_plan(settings)
            if api_key is not None:
                endpoints.check_key(name, settings, is_of_fleet=api_key.is_of_fleet)
        inside = pulumi.ResourceOptions(parent=self)
        parts = _parts(endpoint, settings, plan, inside, api_key)
        _tell(parts)
        offer = offered(parts)
        machines = [rented(parts, index, offer) for index in parts.running.indices]
        OrphanCleanup(
            f"{name}-holdings",
            instances=[machine.instance for machine in machines],
            finalizer=parts.finalizer,
            endpoint=name,
            public_key=parts.ssh_key.public_key,
            opts=inside,
        )
        authority = Authority(
            f"{name}-authority",
            instance=None if settings.is_fleet else machines[0].instance,
            private_key=parts.ssh_key.private_key,
            tls=settings.tls,
            generation=settings.ca_generation,
            client_certificates=settings.client_certificates,
            opts=inside,
        )
        replicas = [serving(parts, machine, authority) for machine in machines]
        front = in_front(parts, replicas, authority)
        self.instance, self.server = replicas[0].instance, replicas[0].server
        self.endpoint_url = front.served.endpoint_url
        self.api_key = front.served.api_key
        self.ca_certificate = front.served.ca_certificate
        self.client_certificate = authority.client_certificate
        self.ssh_private_key = parts.ssh_key.private_key
        self.ssh_command, self.known_hosts = ssh_command(replicas[0]), front.known_hosts
        self.boot_seconds = pulumi.Output.all(
            self.instance.boot_seconds, self.server.boot_seconds
        ).apply(lambda stages: {**stages[0], **stages[1]})
        self.smoke_report = front.report
        self.hourly_cost = front.hourly_cost
        self.replicas, self.router = described(replicas), front.router
        self.metrics_key = front.metrics_key
        self.release, self.report = _described(parts, replicas, front, self.boot_seconds)
        self.register_outputs({"endpoint_url": self.endpoint_url, "api_key": self.api_key})


def variant(settings: Settings, **changes: object) -> Settings:
    """Return the settings of one more endpoint: those of the stack with `changes`, by their keys.

    `variant(settings, model="qwen2.5-0.5b-1x4090", diskGb=40)`.

    Raises:
        pulumi.RunError: one sentence, as for a key of the configuration; no endpoint rents then.
    """
    with program().refusing():
        return parse({**settings.model_dump(by_alias=True), **changes})


def _tell(parts: Parts) -> None:
    settings, plan = parts.settings, parts.plan
    for fact in (f"profile {plan.profile.name}: {plan.profile.description}", *plan.facts):
        pulumi.log.info(as_typed_here(fact))
    promises = endpoints.unheld_promises(settings, plan, pulumi.get_stack())
    slow = parallel_warning(len(parts.running.indices), SETTINGS.parallel)
    passing = endpoints.passing_router_warning(settings, current().environment)
    for warning in filter(None, (*promises, *plan.warnings, slow, passing)):
        pulumi.log.warn(as_typed_here(warning))


def _parts(
    endpoint: Declared,
    settings: Settings,
    plan: Plan,
    inside: pulumi.ResourceOptions,
    api_key: ApiKey | None,
) -> Parts:
    """Declare what all machines of the endpoint have in common."""
    name, label = endpoint.name, endpoint.label
    running, record = running_replicas(
        name, replicas=settings.replicas, replicas_max=settings.replicas_max, opts=inside
    )
    ssh_key = SshKey(f"{name}-ssh-key", comment=label.rstrip("/"), opts=inside)
    finalizer = StackFinalizer(
        f"{name}-lease",
        label_prefix=label,
        endpoint=program().admitted(name),
        public_key=ssh_key.public_key,
        interruptible=settings.contract == "interruptible",
        opts=inside,
    )
    gate = _gate(name, settings, plan, inside)
    revisions = HubRevisions(
        f"{name}-revisions",
        references=plan.references,
        token=settings.hugging_face_token,
        opts=inside,
    )
    api_key = api_key or ApiKey(
        f"{name}-api-key",
        generation=settings.key_generation,
        # Several never share one: the hosts that knew it would open the router.
        shared=settings.shared_api_key and not settings.is_fleet,
        fleet=settings.is_fleet,
        opts=inside,
    )
    return Parts(
        name=name,
        label=label,
        settings=settings,
        plan=plan,
        inside=inside,
        ssh_key=ssh_key,
        finalizer=finalizer,
        revisions=revisions,
        api_key=api_key,
        gate=gate,
        running=running,
        record=record,
        processes=processes(name, running.indices, inside),
    )


def _gate(
    name: str, settings: Settings, plan: Plan, inside: pulumi.ResourceOptions
) -> list[pulumi.Resource]:
    """The gate in front of a release, if the endpoint runs one."""
    if plan.release is None:
        return []
    return [
        Promotion(
            f"{name}-promotion",
            release=plan.release.name,
            digest=plan.release.digest,
            promote_from=settings.promote_from,
            opts=inside,
        )
    ]


def _described(
    parts: Parts,
    replicas: Sequence[Replica],
    front: Front,
    boot_seconds: pulumi.Output[dict[str, float]],
) -> tuple[pulumi.Output[dict[str, Any]], pulumi.Output[str]]:
    """The outputs `release` and `report`."""
    first, release = replicas[0], parts.plan.release
    server, instance = first.server, first.instance
    facts = pulumi.Output.all(
        runs=first.runs,
        files=server.files,
        resolved=parts.revisions.resolved,
        compared=server.files_compared,
        smoke_report=first.report,
        host_key_from=instance.host_key_from,
    ).apply(
        lambda known: endpoints.release_facts(
            **known,
            name=release.name if release else "",
            let_in=release is not None or not parts.settings.promote_from,
        )
    )
    if parts.settings.is_fleet:
        facts = pulumi.Output.all(facts, proofs(replicas), front.report).apply(
            lambda known: endpoints.release_of_several(*known)
        )
    others = pulumi.Output.all(
        max_model_len=server.max_model_len,
        model_revision=server.model_revision,
        companion_revisions=server.companion_revisions,
        machine_id=instance.machine_id,
        gpu=instance.gpu,
        started_at=server.started_at,
        boot_seconds=boot_seconds,
        smoke_report=front.report,
    )
    both = pulumi.Output.all(facts, others).apply(lambda known: folded(*known))
    return both.apply(lambda known: known[0]), both.apply(lambda known: known[1])
