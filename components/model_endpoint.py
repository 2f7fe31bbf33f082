"""`ModelEndpoint`: a served model as one thing, composed of everything it needs."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import pulumi

from components import endpoints
from components.core.commands import as_typed_here
from components.core.keys import scope_of
from components.endpoints import Declared
from components.machine import login
from components.outputs import folded
from components.plan import PORT, Plan, make_plan
from components.release.release import ReleaseSpec, digest_of
from components.resources.announcement import announce
from components.resources.api_key import ApiKey
from components.resources.authority import Authority
from components.resources.hub_revisions import HubRevisions
from components.resources.instance import VastInstance
from components.resources.offer import VastOffer
from components.resources.orphan_cleanup import OrphanCleanup
from components.resources.program import running
from components.resources.promotion import Promotion
from components.resources.server import VllmServer
from components.resources.smoke_test import smoke_report
from components.resources.ssh_key import SshKey
from components.resources.stack_finalizer import StackFinalizer
from components.settings import Settings, parse
from components.vast.lifecycle.auto_shutdown import AutoShutdown
from components.vast.lifecycle.contract_expiry import ExpiryPolicy
from components.vast.lifecycle.preemption import PreemptionPolicy
from components.vast.market.requirements import search_for
from components.vllm.machine_key import KeyRule


class ModelEndpoint(pulumi.ComponentResource):
    """A rented machine that serves one model behind one URL and one key."""

    instance: VastInstance
    server: VllmServer

    endpoint_url: pulumi.Output[str]
    """Base URL of the OpenAI API, with `/v1`."""
    api_key: pulumi.Output[str]
    """Secret; the key that the serving machine accepts."""
    ca_certificate: pulumi.Output[str]
    """PEM to pin; empty with `tls` off."""
    client_certificate: pulumi.Output[str]
    """PEM of certificate and key that a client shows; secret, and empty if none is asked for."""
    ssh_command: pulumi.Output[str]
    """Expects the outputs `ssh_private_key` and `known_hosts` in `stack.key` and `stack.known`."""
    known_hosts: pulumi.Output[str]
    """The host key that was recorded at first contact, as a line of `known_hosts`."""
    ssh_private_key: pulumi.Output[str]
    """Secret."""
    boot_seconds: pulumi.Output[dict[str, float]]
    """Boot of the host and of the server, by stage."""
    smoke_report: pulumi.Output[dict[str, Any]]
    """Questions and answers of the smoke test after the last change."""
    release: pulumi.Output[dict[str, Any]]
    """What runs, for the gate of another stack; see `endpoints.release_facts`."""
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
        label = label or f"{pulumi.get_project()}/{pulumi.get_stack()}/"
        program = running()
        with program.refusing():
            program.declare(Declared(name, label, settings.adopt, settings.promote_from))
            plan = make_plan(settings)
        _tell(settings, plan)
        parts = _Parts(name, label, settings, plan, pulumi.ResourceOptions(parent=self))

        ssh_key = SshKey(f"{name}-ssh-key", comment=label.rstrip("/"), opts=parts.inside)
        finalizer = StackFinalizer(
            f"{name}-lease",
            label_prefix=label,
            endpoint=program.admitted(name),
            public_key=ssh_key.public_key,
            interruptible=settings.contract == "interruptible",
            opts=parts.inside,
        )
        first = [finalizer, *_gate(parts)]
        revisions = HubRevisions(
            f"{name}-revisions",
            references=plan.references,
            token=settings.hugging_face_token,
            opts=parts.inside,
        )
        offer = VastOffer(
            f"{parts.host}-offer", query=plan.query, need=plan.need, opts=parts.inside
        )
        first += [revisions, offer]
        api_key = api_key or ApiKey(
            f"{name}-api-key",
            generation=settings.key_generation,
            shared=settings.shared_api_key,
            opts=parts.inside,
        )
        self.instance = _instance(parts, ssh_key, finalizer, revisions, first)
        OrphanCleanup(
            f"{name}-holdings",
            instance=self.instance,
            finalizer=finalizer,
            endpoint=name,
            public_key=ssh_key.public_key,
            opts=parts.inside,
        )
        authority = Authority(
            f"{name}-authority",
            instance=self.instance,
            private_key=ssh_key.private_key,
            tls=settings.tls,
            generation=settings.ca_generation,
            client_certificates=settings.client_certificates,
            opts=parts.inside,
        )
        made = _Made(self.instance, ssh_key, api_key, authority, revisions)
        self.server = server = _server(parts, made, first)
        self.endpoint_url = server.endpoint_url
        self.api_key = server.api_key
        self.ca_certificate = server.ca_certificate
        self.client_certificate = authority.client_certificate
        self.ssh_private_key = ssh_key.private_key
        self.ssh_command, self.known_hosts = _logins(self.instance)
        self.boot_seconds = pulumi.Output.all(
            self.instance.boot_seconds, server.boot_seconds
        ).apply(lambda stages: {**stages[0], **stages[1]})
        runs = _runs(plan, self.instance, server)
        self.smoke_report = _tested(parts, made, server, runs)
        report = (self.smoke_report, self.boot_seconds)
        self.release, self.report = _described(parts, made, server, runs, report)
        self.register_outputs({"endpoint_url": self.endpoint_url, "api_key": self.api_key})


def variant(settings: Settings, **changes: object) -> Settings:
    """Return the settings of one more endpoint: those of the stack with `changes`, by their keys.

    `variant(settings, model="qwen2.5-0.5b-1x4090", diskGb=40)`.

    Raises:
        pulumi.RunError: one sentence, as for a key of the configuration; no endpoint rents then.
    """
    with running().refusing():
        return parse({**settings.model_dump(by_alias=True), **changes})


@dataclasses.dataclass(frozen=True)
class _Parts:
    """What all resources of an endpoint are made from."""

    name: str
    label: str
    settings: Settings
    plan: Plan
    inside: pulumi.ResourceOptions

    @property
    def is_create_first(self) -> bool:
        return self.settings.replacement == "create-first"

    @property
    def host(self) -> str:
        """Beginning of the names of what goes with a machine.

        Another name is another resource. Pulumi creates it before it deletes what is no longer
        named, and deletes nothing if that fails.
        """
        return f"{self.name}-{self.plan.generation()}" if self.is_create_first else self.name

    def after(self, first: list[pulumi.Resource]) -> pulumi.ResourceOptions:
        """Options of a resource that comes after these."""
        return pulumi.ResourceOptions.merge(
            self.inside, pulumi.ResourceOptions(depends_on=list(first))
        )

    def token_for(self, revisions: HubRevisions) -> pulumi.Output[list[str]]:
        """Repositories that only the holder of the stack's token can fetch."""
        return revisions.closed.apply(
            lambda closed: endpoints.token_for(self.settings, self.plan, closed)
        )


class _Made(NamedTuple):
    """What an endpoint's server and its outputs are made from."""

    instance: VastInstance
    ssh_key: SshKey
    api_key: ApiKey
    authority: Authority
    revisions: HubRevisions


def _tell(settings: Settings, plan: Plan) -> None:
    for fact in (f"profile {plan.profile.name}: {plan.profile.description}", *plan.facts):
        pulumi.log.info(as_typed_here(fact))
    promises = endpoints.unheld_promises(settings, plan, pulumi.get_stack())
    for warning in (*promises, *plan.warnings):
        pulumi.log.warn(as_typed_here(warning))


def _gate(parts: _Parts) -> list[pulumi.Resource]:
    """The gate in front of a release, if the endpoint runs one."""
    release = parts.plan.release
    if release is None:
        return []
    return [
        Promotion(
            f"{parts.name}-promotion",
            release=release.name,
            digest=release.digest,
            promote_from=parts.settings.promote_from,
            opts=parts.inside,
        )
    ]


def _instance(
    parts: _Parts,
    ssh_key: SshKey,
    finalizer: StackFinalizer,
    revisions: HubRevisions,
    first: list[pulumi.Resource],
) -> VastInstance:
    settings, plan = parts.settings, parts.plan
    return VastInstance(
        f"{parts.host}-instance",
        label_prefix=f"{parts.label}{parts.host}-instance/",
        # Not the offer's output, which is unknown in a preview before the offer exists.
        search=search_for(plan.query, plan.need),
        image=plan.profile.image,
        disk_gb=plan.profile.disk_gb,
        port=PORT,
        public_key=ssh_key.public_key,
        private_key=ssh_key.private_key,
        min_driver=plan.profile.min_driver,
        adopt=settings.adopt,
        boot_minutes=settings.boot_minutes,
        outbid_policy=PreemptionPolicy(
            settings.when_outbid, settings.rerent_tries, settings.rerent_dollars
        ),
        losses=finalizer.losses,
        term=ExpiryPolicy(
            settings.warn_days_before, settings.when_contract_ends, parts.is_create_first
        ),
        time_to_live=AutoShutdown(
            settings.time_to_live_hours, settings.idle_minutes, settings.market_end
        ),
        first_contact=settings.first_contact,
        token_for=parts.token_for(revisions),
        opts=parts.after(first),
    )


def _server(parts: _Parts, made: _Made, first: list[pulumi.Resource]) -> VllmServer:
    settings, plan = parts.settings, parts.plan
    return VllmServer(
        f"{parts.host}-server",
        instance=made.instance,
        private_key=made.ssh_key.private_key,
        api_key=made.api_key,
        key_rule=KeyRule(
            scope=scope_of(pulumi.get_project(), pulumi.get_stack()),
            generation=settings.key_generation,
            shared=settings.shared_api_key,
        ),
        profile=plan.profile,
        revisions=made.revisions,
        authority=made.authority,
        leaf=made.authority.leaf,
        serve_yaml=plan.serve_yaml,
        tls=settings.tls,
        key_grace_minutes=settings.key_grace_minutes,
        max_request_mib=settings.max_request_mib,
        environment=plan.environment,
        ready_minutes=settings.ready_minutes,
        token_for=parts.token_for(made.revisions),
        rehearse=settings.rehearse,
        drain_minutes=settings.drain_minutes if parts.is_create_first else None,
        opts=parts.after(first),
    )


def _logins(instance: VastInstance) -> tuple[pulumi.Output[str], pulumi.Output[str]]:
    """The outputs `ssh_command` and `known_hosts`."""
    address = (instance.public_ip, instance.ssh_port)
    command = pulumi.Output.all(*address).apply(lambda known: login.ssh_command(*known))
    hosts = pulumi.Output.all(*address, instance.host_key).apply(
        lambda known: login.known_hosts(*known)
    )
    return command, hosts


def _runs(plan: Plan, instance: VastInstance, server: VllmServer) -> pulumi.Output[ReleaseSpec]:
    """What runs, with the server's own commits, to which its host was held."""
    model = plan.profile.repository
    return pulumi.Output.all(server.commits, instance.gpu).apply(
        lambda known: plan.runs(known[0][model], known[0], known[1])
    )


def _tested(
    parts: _Parts, made: _Made, server: VllmServer, runs: pulumi.Output[ReleaseSpec]
) -> pulumi.Output[dict[str, Any]]:
    """Ask the endpoint what it must answer, and then announce it; return the report."""
    settings, plan = parts.settings, parts.plan
    certificate = made.authority.client_certificate
    report = smoke_report(
        f"{parts.host}-smoke-test",
        server=server,
        instance_id=made.instance.id,
        stack_key_digest=made.api_key.digest,
        client_certificate=certificate if settings.client_certificates else None,
        profile=plan.profile,
        serve_yaml=plan.serve_yaml,
        asked_for=digest_of(plan.as_asked()),
        runs=runs.apply(digest_of),
        opts=parts.inside,
    )
    if settings.announce_command:
        announce(
            f"{parts.name}-announcement",
            settings.announce_command,
            server=server,
            smoke_report=report,
            opts=parts.inside,
        )
    return report


def _described(
    parts: _Parts,
    made: _Made,
    server: VllmServer,
    runs: pulumi.Output[ReleaseSpec],
    measured: tuple[pulumi.Output[dict[str, Any]], pulumi.Output[dict[str, float]]],
) -> tuple[pulumi.Output[dict[str, Any]], pulumi.Output[str]]:
    """The outputs `release` and `report`; `measured` are smoke report and seconds of the boot."""
    report, boot_seconds = measured
    release = parts.plan.release
    facts = pulumi.Output.all(
        runs=runs,
        files=server.files,
        resolved=made.revisions.resolved,
        compared=server.files_compared,
        smoke_report=report,
        host_key_from=made.instance.host_key_from,
    ).apply(
        lambda known: endpoints.release_facts(
            **known,
            name=release.name if release else "",
            let_in=release is not None or not parts.settings.promote_from,
        )
    )
    others = pulumi.Output.all(
        max_model_len=server.max_model_len,
        model_revision=server.model_revision,
        companion_revisions=server.companion_revisions,
        machine_id=made.instance.machine_id,
        gpu=made.instance.gpu,
        started_at=server.started_at,
        boot_seconds=boot_seconds,
        smoke_report=report,
    )
    both = pulumi.Output.all(facts, others).apply(lambda known: folded(*known))
    return both.apply(lambda known: known[0]), both.apply(lambda known: known[1])
