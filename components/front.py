"""What clients call: an endpoint's one machine, or the router in front of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pulumi

from components import endpoints
from components.core.keys import machine_key, metrics_key
from components.machine import login
from components.outputs import total
from components.release.release import digest_of
from components.replica import Parts, Replica
from components.resources.announcement import announce
from components.resources.authority import Authority
from components.resources.router import Router
from components.resources.served import Served
from components.resources.smoke_test import report_of, smoke_test


class Front(NamedTuple):
    """What an endpoint shows of itself."""

    served: Served
    report: pulumi.Output[dict[str, Any]]
    """Of the newest smoke test of what clients call."""
    hourly_cost: pulumi.Output[float]
    """$/h of all machines, with their disks, without traffic."""
    known_hosts: pulumi.Output[str]
    """The host keys of all machines, as lines of `known_hosts`."""
    router: pulumi.Output[dict[str, Any]] | None
    """Where the router runs and what it is; None without one."""
    metrics_key: pulumi.Output[str] | None
    """What opens the counters of what clients call; None if the stack asks for no such key."""


def in_front(parts: Parts, replicas: Sequence[Replica], authority: Authority) -> Front:
    """Give what clients call, tested, and announce it."""
    is_fleet = parts.settings.is_fleet
    front = _several(parts, replicas, authority) if is_fleet else _one(parts, replicas[0])
    if parts.settings.announce_command:
        announce(
            f"{parts.name}-announcement",
            parts.settings.announce_command,
            served=front.served,
            smoke_report=front.report,
            opts=parts.inside,
        )
    return front


def described(replicas: Sequence[Replica]) -> pulumi.Output[list[dict[str, Any]]]:
    """Give the output `replicas`."""
    return pulumi.Output.all(*map(_described, replicas))


def proofs(replicas: Sequence[Replica]) -> pulumi.Output[list[endpoints.Proof]]:
    """Give what each machine runs and has been asked."""
    return pulumi.Output.all(*map(_proof, replicas))


def ssh_command(replica: Replica) -> pulumi.Output[str]:
    """Give the command that logs in on a machine."""
    at = pulumi.Output.all(replica.instance.public_ip, replica.instance.ssh_port)
    return at.apply(lambda known: login.ssh_command(*known))


def _one(parts: Parts, replica: Replica) -> Front:
    return Front(
        replica.served,
        replica.report,
        replica.instance.hourly_cost,
        _known_hosts(replica),
        router=None,
        metrics_key=_metrics_key(parts, replica.server, replica.instance.instance_id),
    )


def _several(parts: Parts, replicas: Sequence[Replica], authority: Authority) -> Front:
    settings = parts.settings
    router = Router(
        f"{parts.name}-router",
        host=settings.router_host,
        address=settings.router_address,
        port=settings.router_port,
        routing=settings.routing,
        members=[_member(replica) for replica in replicas],
        authority=authority,
        api_key=parts.api_key,
        key_rule=parts.key_rule,
        key_grace_minutes=settings.key_grace_minutes,
        client_certificates=settings.client_certificates,
        lost_router=settings.lost_router,
        metrics=settings.metrics,
        # A machine that is not proven gets no request.
        opts=pulumi.ResourceOptions.merge(
            parts.inside, pulumi.ResourceOptions(depends_on=[one.test for one in replicas])
        ),
    )
    served = Served(
        router.endpoint_url,
        # Not before the router takes it.
        pulumi.Output.all(router.id, parts.api_key.api_key).apply(lambda known: known[1]),
        router.ca_certificate,
        replicas[0].served.model,
        router,
    )
    test = smoke_test(
        f"{parts.name}-fleet-smoke-test",
        served=served,
        machines=pulumi.Output.all(*(one.instance.id for one in replicas)).apply(",".join),
        stack_key_digest=parts.api_key.digest,
        client_certificate=parts.identity(authority),
        profile=parts.plan.profile,
        serve_yaml=parts.plan.serve_yaml,
        asked_for=digest_of(parts.plan.as_asked()),
        runs=replicas[0].runs.apply(digest_of),
        opts=parts.inside,
    )
    return Front(
        served,
        report_of(test),
        pulumi.Output.all(*(one.instance.hourly_cost for one in replicas)).apply(total),
        pulumi.Output.all(*map(_known_hosts, replicas)).apply("\n".join),
        pulumi.Output.all(where=router.where, version=router.version, digest=router.digest),
        _metrics_key(parts, router),
    )


def _metrics_key(
    parts: Parts, taken_by: pulumi.CustomResource, contract: pulumi.Output[int] | None = None
) -> pulumi.Output[str] | None:
    """Give the router's key for its counters, or that of the machine with that contract."""
    if not parts.settings.metrics:
        return None
    scope = parts.key_rule.scope

    def made(known: Sequence[Any]) -> str:
        key = metrics_key(known[1], scope)
        return machine_key(key, scope, int(known[2])) if contract is not None else key

    # Not before it is taken.
    known = [taken_by.id, parts.api_key.api_key, *([contract] if contract is not None else [])]
    return pulumi.Output.secret(pulumi.Output.all(*known).apply(made))


def _member(replica: Replica) -> dict[str, pulumi.Output[Any]]:
    instance = replica.instance
    return {
        "contract": instance.id,
        "address": instance.public_ip,
        "port": instance.host_port,
    }


def _described(replica: Replica) -> pulumi.Output[dict[str, Any]]:
    instance = replica.instance
    return pulumi.Output.all(
        name=replica.name,
        index=replica.index,
        instance_id=instance.instance_id,
        machine_id=instance.machine_id,
        gpu=instance.gpu,
        location=instance.location,
        hourly_cost=instance.hourly_cost,
        endpoint_url=replica.served.endpoint_url,
        ssh_command=ssh_command(replica),
        started_at=replica.server.started_at,
        digest=replica.runs.apply(digest_of),
        smoke_ok=replica.report.apply(lambda report: bool(report.get("ok"))),
    )


def _proof(replica: Replica) -> pulumi.Output[endpoints.Proof]:
    return pulumi.Output.all(replica.runs, replica.report).apply(
        lambda known: endpoints.Proof(replica.name, *known)
    )


def _known_hosts(replica: Replica) -> pulumi.Output[str]:
    instance = replica.instance
    at = pulumi.Output.all(instance.public_ip, instance.ssh_port, instance.host_key)
    return at.apply(lambda known: login.known_hosts(*known))
