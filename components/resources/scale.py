"""`Scale`: how many replicas of an endpoint run, in the state, where a loop may change it.

Pulumi's programs cannot read a resource's state before they declare it. But the engine hands out
the outputs of a stack's last state, also while an update of the same stack runs. That is what
policies and `StackReference` use. So the program reads its own number there, in preview as well.
"""

from __future__ import annotations

from typing import Any

import pulumi
from pulumi import dynamic

from components.core.commands import as_typed_here
from components.core.property_bag import Properties
from components.resources.context import current
from components.resources.program import running as running_program
from components.resources.provider import Provider
from components.scaling.running import (
    VARIABLE,
    Extras,
    OrderRefused,
    Running,
    contracts_in,
    described,
    fixed,
    ordered,
    record_name,
    recorded,
    running,
)

READ_STATE = "pulumi:pulumi:readStackResourceOutputs"
"""The engine's function (github.com/pulumi/pulumi, pkg/resource/deploy/builtins.go)."""


class ScaleProvider(Provider):
    """CRUD of `Scale`, which asks nobody."""

    def diff(self, _id: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """Another number, or another lease, is an update."""
        return dynamic.DiffResult(changes=Extras.from_bag(olds) != Extras.from_bag(news))

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Keep the number."""
        extras = Extras.from_bag(props)
        return dynamic.CreateResult(record_name(extras.endpoint), extras.to_bag())

    def read(self, id_: str, props: Properties) -> dynamic.ReadResult:
        """What a loop ordered stays ordered."""
        return dynamic.ReadResult(id_, props)

    def update(self, _id: str, _olds: Properties, news: Properties) -> dynamic.UpdateResult:
        """Keep the new number."""
        return dynamic.UpdateResult(Extras.from_bag(news).to_bag())

    def delete(self, _id: str, _props: Properties) -> None:
        """Nothing exists, so nothing ends."""


class Scale(dynamic.Resource, module="scaling", name="Scale"):
    """The record of the replicas above the floor."""

    extras: pulumi.Output[dict[str, Any]]
    """By index: `since`, `hours` and `contract`, as `Lease` has them."""

    def __init__(
        self, name: str, *, extras: Extras, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        """Record `extras` in the state."""
        super().__init__(ScaleProvider(), name, extras.to_bag(), opts)


def running_replicas(
    endpoint: str,
    *,
    replicas: int,
    replicas_max: int,
    opts: pulumi.ResourceOptions | None = None,
) -> tuple[Running, list[pulumi.Resource]]:
    """Say which replicas of an endpoint run, and record it where a loop may change it.

    Returns:
        The replicas, and what has to be in the state before they change.

    Raises:
        pulumi.RunError: one sentence, if the state or the order cannot be read. The number is
            never guessed: a lower one would end machines that serve.
    """
    if not replicas_max:
        return fixed(replicas), []
    context = current()
    with running_program().refusing():
        outputs = _own_state()
        known = ordered(context.environment.get(VARIABLE, ""), endpoint)
        extras = (known or recorded(outputs, endpoint)).within(replicas, replicas_max)
        now = context.clock.epoch()
        found = running(
            extras,
            floor=replicas,
            ceiling=replicas_max,
            contracts=contracts_in(outputs, endpoint),
            now=now,
        )
    for line in described(extras, found, ceiling=replicas_max, now=now):
        pulumi.log.info(as_typed_here(line))
    return found, [Scale(record_name(endpoint), extras=extras, opts=opts)]


def _own_state() -> dict[str, dict[str, Any]]:
    """Read the outputs of each resource in this stack's last state, by URN.

    Raises:
        OrderRefused: if the backend does not say.
    """
    place = (pulumi.get_organization(), pulumi.get_project(), pulumi.get_stack())
    stack = "/".join(part for part in place if part)
    try:
        answer = pulumi.runtime.invoke(READ_STATE, {"stackName": stack})
    except Exception as error:  # noqa: BLE001  (of gRPC, which has kinds of its own)
        reason = " ".join(str(error).split())[:300]
        raise OrderRefused(
            f"the state does not say how many replicas run ({reason}), and nothing was changed: "
            "run the command again"
        ) from None
    value = answer.value or {}
    return {urn: dict(one.get("outputs") or {}) for urn, one in value.get("outputs", {}).items()}
