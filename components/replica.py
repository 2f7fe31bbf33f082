"""One machine of an endpoint: rented, vouched for, served and tested."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pulumi

from components import endpoints
from components.core.keys import scope_of
from components.plan import PORT, Plan
from components.release.release import ReleaseSpec, digest_of
from components.resources.api_key import ApiKey
from components.resources.authority import Authority
from components.resources.hub_revisions import HubRevisions
from components.resources.instance import VastInstance
from components.resources.machine_certificate import MachineCertificate
from components.resources.offer import VastOffer
from components.resources.served import Served
from components.resources.server import VllmServer
from components.resources.smoke_test import report_of, smoke_test
from components.resources.ssh_key import SshKey
from components.resources.stack_finalizer import StackFinalizer
from components.resources.workers import process_of
from components.router.state import ROLLOUT_MINUTES
from components.scaling.running import Running
from components.settings import Settings
from components.vast.fleet import Fleet
from components.vast.lifecycle.auto_shutdown import AutoShutdown
from components.vast.lifecycle.contract_expiry import ExpiryPolicy
from components.vast.lifecycle.preemption import PreemptionPolicy
from components.vast.market.requirements import search_for
from components.vllm.machine_key import KeyRule


@dataclasses.dataclass(frozen=True)
class Parts:
    """What all machines of an endpoint are made from."""

    name: str
    """The endpoint's."""
    label: str
    settings: Settings
    plan: Plan
    inside: pulumi.ResourceOptions
    ssh_key: SshKey
    finalizer: StackFinalizer
    revisions: HubRevisions
    api_key: ApiKey
    gate: list[pulumi.Resource]
    """What comes before every rental, beside the finalizer."""
    running: Running
    """Which machines there are."""
    record: list[pulumi.Resource]
    """What says so, before a machine is rented that the settings alone do not ask for."""
    processes: Mapping[int, pulumi.ProviderResource]

    @property
    def is_create_first(self) -> bool:
        """Whether another machine comes up beside the one that it replaces."""
        return self.settings.replacement == "create-first"

    @property
    def path(self) -> str:
        """The endpoint's own in the account."""
        return f"{self.label}{self.name}"

    @property
    def fleet(self) -> Fleet | None:
        """What several machines do not share; None for one."""
        if not self.settings.is_fleet:
            return None
        return Fleet(len(self.running.indices), self.settings.spread)

    @property
    def key_rule(self) -> KeyRule:
        """How machines make their keys."""
        return KeyRule(
            scope=scope_of(pulumi.get_project(), pulumi.get_stack()),
            generation=self.settings.key_generation,
            shared=self.settings.shared_api_key and not self.settings.is_fleet,
        )

    def identity(self, authority: Authority) -> pulumi.Output[str] | None:
        """Give the certificate that clients show; None if none is asked for."""
        return authority.client_certificate if self.settings.client_certificates else None

    @property
    def token_for(self) -> pulumi.Output[list[str]]:
        """Repositories that only the holder of the stack's token can fetch."""
        return self.revisions.closed.apply(
            lambda closed: endpoints.token_for(self.settings, self.plan, closed)
        )

    def host(self, index: int) -> str:
        """Beginning of the names of what goes with a machine.

        Another name is another resource. Pulumi creates it before it deletes what is no longer
        named, and deletes nothing if that fails.
        """
        name = endpoints.replica_name(self.name, index)
        return f"{name}-{self.plan.generation()}" if self.is_create_first else name

    def options(self, index: int, *first: pulumi.Resource) -> pulumi.ResourceOptions:
        """Options of a machine's resource that comes after `first`."""
        own = pulumi.ResourceOptions(depends_on=[*first] or None)
        if index > 0:
            own.provider = self.processes[process_of(index)]
        return pulumi.ResourceOptions.merge(self.inside, own)


@dataclasses.dataclass(frozen=True)
class Machine:
    """A rented machine."""

    index: int
    instance: VastInstance
    first: tuple[pulumi.Resource, ...]
    """What was there before it."""


@dataclasses.dataclass(frozen=True)
class Replica:
    """A machine that serves, and was tested."""

    index: int
    name: str
    """As `endpoints.replica_name` gives it, whatever machine that is."""
    instance: VastInstance
    served: Served
    server: VllmServer
    runs: pulumi.Output[ReleaseSpec]
    """With the server's own commits, to which its host was held."""
    test: pulumi.Resource
    report: pulumi.Output[dict[str, Any]]


def offered(parts: Parts) -> VastOffer:
    """Ask the market what fits, once for all machines."""
    return VastOffer(
        f"{parts.host(0)}-offer",
        query=parts.plan.query,
        need=parts.plan.need,
        fleet=parts.fleet,
        opts=parts.inside,
    )


def rented(parts: Parts, index: int, offer: VastOffer) -> Machine:
    """Rent the machine of that number, or keep it."""
    settings, plan, host = parts.settings, parts.plan, parts.host(index)
    record = parts.record if index >= settings.replicas else []
    first = (parts.finalizer, *parts.gate, *record, parts.revisions, offer)
    hours = parts.running.time_to_live_hours(index, settings.time_to_live_hours)
    instance = VastInstance(
        f"{host}-instance",
        label_prefix=f"{parts.label}{host}-instance/",
        # Not the offer's output, which is unknown in a preview before the offer exists.
        search=search_for(plan.query, plan.need),
        image=plan.profile.image,
        disk_gb=plan.profile.disk_gb,
        port=PORT,
        public_key=parts.ssh_key.public_key,
        private_key=parts.ssh_key.private_key,
        min_driver=plan.profile.min_driver,
        adopt=settings.adopt,
        boot_minutes=settings.boot_minutes,
        outbid_policy=PreemptionPolicy(
            settings.when_outbid, settings.rerent_tries, settings.rerent_dollars
        ),
        losses=parts.finalizer.losses,
        term=ExpiryPolicy(
            settings.warn_days_before, settings.when_contract_ends, parts.is_create_first
        ),
        time_to_live=AutoShutdown(hours, settings.idle_minutes, settings.market_end),
        first_contact=settings.first_contact,
        token_for=parts.token_for,
        fleet=parts.fleet,
        opts=parts.options(index, *first),
    )
    return Machine(index, instance, first)


def serving(parts: Parts, machine: Machine, authority: Authority) -> Replica:
    """Serve the model on a rented machine, and ask it what it must answer."""
    server = _server(parts, machine, authority)
    model = parts.plan.profile.repository
    runs = pulumi.Output.all(server.commits, machine.instance.gpu).apply(
        lambda known: parts.plan.runs(known[0][model], known[0], known[1])
    )
    served = Served.by(server)
    test = smoke_test(
        f"{parts.host(machine.index)}-smoke-test",
        served=served,
        machines=machine.instance.id,
        stack_key_digest=parts.api_key.digest,
        client_certificate=parts.identity(authority),
        profile=parts.plan.profile,
        serve_yaml=parts.plan.serve_yaml,
        asked_for=digest_of(parts.plan.as_asked()),
        runs=runs.apply(digest_of),
        opts=parts.inside,
    )
    name = endpoints.replica_name(parts.name, machine.index)
    return Replica(
        machine.index, name, machine.instance, served, server, runs, test, report_of(test)
    )


def _server(parts: Parts, machine: Machine, authority: Authority) -> VllmServer:
    settings, plan = parts.settings, parts.plan
    waits = parts.is_create_first or settings.is_fleet
    # The router ends a replaced key first, since whom it lets in its machines have to let in.
    grace = settings.key_grace_minutes + (ROLLOUT_MINUTES if settings.is_fleet else 0)
    return VllmServer(
        f"{parts.host(machine.index)}-server",
        instance=machine.instance,
        private_key=parts.ssh_key.private_key,
        api_key=parts.api_key,
        key_rule=parts.key_rule,
        profile=plan.profile,
        revisions=parts.revisions,
        authority=authority,
        leaf=_leaf(parts, machine, authority),
        serve_yaml=plan.serve_yaml,
        tls=settings.tls,
        key_grace_minutes=grace,
        max_request_mib=settings.max_request_mib,
        environment=plan.environment,
        ready_minutes=settings.ready_minutes,
        token_for=parts.token_for,
        rehearse=settings.rehearse,
        metrics=settings.metrics,
        drain_minutes=settings.drain_minutes if waits else None,
        rollout=parts.path if settings.is_fleet else None,
        replica=machine.index,
        replicas=parts.running.indices,
        opts=parts.options(machine.index, *machine.first),
    )


def _leaf(parts: Parts, machine: Machine, authority: Authority) -> pulumi.Output[str]:
    """The machine's certificate, by the authority itself if it is the only one."""
    if not parts.settings.is_fleet:
        return authority.leaf
    return MachineCertificate(
        f"{parts.host(machine.index)}-certificate",
        instance=machine.instance,
        private_key=parts.ssh_key.private_key,
        authority=authority,
        opts=parts.options(machine.index),
    ).leaf
