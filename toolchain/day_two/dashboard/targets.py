"""Whom Prometheus asks of a stack, with what key, and whom it believes. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Literal
from urllib.parse import urlsplit

from components.core.errors import ConfigurationError
from components.core.keys import machine_key, metrics_key
from components.machine.addresses import with_port
from components.tls.certificates import machine_name
from toolchain.day_two.fleet import Fleet, Machine

Role = Literal["machine", "router"]


class NoMetricsKey(ConfigurationError):
    """A stack has no key that opens its counters alone.

    Cost: nothing.
    Remedy: set `metrics`, run `pulumi up`, and then `make dashboard` again.
    """


@dataclasses.dataclass(frozen=True)
class Target:
    """One address of the stack that has counters."""

    role: Role
    name: str
    """Such as `machine-0-123` or `router`; no two of a stack are the same."""
    address: str
    """`ip:port`."""
    is_tls: bool
    labels: dict[str, str]
    server_name: str
    """Which name its certificate must have; empty for its address."""
    authorities: str = dataclasses.field(repr=False)
    """PEM of all that is believed about it."""
    key: str = dataclasses.field(repr=False)
    """Opens its counters and nothing else."""
    identity: str = dataclasses.field(default="", repr=False)
    """PEM of certificate and key that it asks for; empty if it asks for none."""


def targets(fleet: Fleet) -> tuple[Target, ...]:
    """Give the machines that take such a key, and the router.

    Raises:
        NoMetricsKey: if none of them takes one.
    """
    found = tuple(_machine(fleet, one) for one in with_key(fleet))
    if not found:
        raise NoMetricsKey(
            f"no machine of {fleet.stack} has a key for its counters alone, and the key of clients "
            "is not given to Prometheus: `pulumi config set metrics true`, then "
            f"`pulumi up --stack {fleet.stack}`, which restarts its servers once"
        )
    return (*found, *_router(fleet))


def with_key(fleet: Fleet) -> tuple[Machine, ...]:
    """The serving machines that take such a key."""
    return tuple(one for one in fleet.serving if one.server and one.server.metrics_keys)


def without_key(fleet: Fleet) -> list[str]:
    """Name who cannot be asked, since it takes no such key yet."""
    known = {one.contract for one in with_key(fleet)}
    machines = [one for one in fleet.serving if one.contract not in known]
    is_router_left_out = fleet.router is not None and not any(_router(fleet))
    return [*(f"machine {one.replica}" for one in machines), *["router"] * is_router_left_out]


def _machine(fleet: Fleet, machine: Machine) -> Target:
    assert machine.server is not None  # noqa: S101  (`with_key` gives no other)
    inputs = machine.server.inputs
    of_stack = metrics_key(inputs.stack_key or "", inputs.key_scope)
    return Target(
        role="machine",
        # While it is being replaced, a replica has two. The name is a file's too.
        name=f"machine-{machine.replica}-{machine.contract}",
        address=with_port(inputs.host.address.ip, inputs.host_port),
        is_tls=inputs.tls,
        labels={
            "stack": fleet.stack,
            "endpoint": machine.endpoint,
            "replica": str(machine.replica),
            "contract": str(machine.contract),
        },
        server_name=machine_name(machine.contract) if inputs.tls else "",
        authorities=machine.server.ca_certificate,
        key=machine_key(of_stack, inputs.key_scope, machine.contract),
        identity=inputs.client_certificate or "",
    )


def _router(fleet: Fleet) -> Iterator[Target]:
    router, key = fleet.router, fleet.outputs.get("metrics_key")
    if router is None or not isinstance(key, str) or not key:
        return
    identity = fleet.outputs.get("client_certificate")
    yield Target(
        role="router",
        name="router",
        address=urlsplit(router.url).netloc,
        is_tls=True,
        labels={"stack": fleet.stack},
        server_name="",
        authorities=router.certificate,
        key=key,
        identity=identity if isinstance(identity, str) else "",
    )
