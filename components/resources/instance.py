"""`VastInstance`: one rented machine that works, in the state from the moment it does.

`create` returns a machine that runs, is reachable and is what was ordered, or leaves nothing
billed. A change that needs another machine is a replacement, and the old machine goes first. Two
machines at once would cost twice for the whole boot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pulumi
from pulumi import dynamic

from components.core.errors import StackError
from components.core.property_bag import Properties
from components.resources.context import Context, current
from components.resources.provider import Provider, refused
from components.resources.siblings import told_of
from components.vast.fleet import Fleet, fleet_property
from components.vast.instance_state import OUTPUTS, InstanceInputs, InstanceState
from components.vast.labels import renter_of
from components.vast.lifecycle.auto_shutdown import AutoShutdown
from components.vast.lifecycle.contract_expiry import ExpiryPolicy
from components.vast.lifecycle.preemption import PreemptionPolicy


class InstanceProvider(Provider):
    """CRUD of `VastInstance`: Pulumi's hooks around `vast.lifecycle`."""

    def check(self, olds: Properties, news: Properties) -> dynamic.CheckResult:
        """Where a machine is going to be rented, say what the market offers and what it costs.

        The previous inputs are empty for a machine that is new or is to be replaced.
        """
        if olds:
            return dynamic.CheckResult(news, [])
        from components.vast.lifecycle.preview import preview  # noqa: PLC0415

        inputs = InstanceInputs.from_bag(news)
        try:
            preview(inputs, _context_of(inputs))
        except StackError as error:
            return refused(news, error)
        return dynamic.CheckResult(news, [])

    def diff(self, id_: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """Say whether the machine is updated, replaced or left alone; asks nobody."""
        from components.vast.lifecycle import diff  # noqa: PLC0415

        old, new = InstanceState.from_bag(olds), InstanceInputs.from_bag(news)
        change = diff.decide(id_, old, new, current().clock.epoch())
        if change.message:
            current().progress("endpoint").say(change.message)
        return dynamic.DiffResult(
            changes=bool(change), replaces=list(change.replaces), delete_before_replace=True
        )

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Adopt or rent; return a machine that works."""
        from components.vast.lifecycle.create import create  # noqa: PLC0415
        from components.vllm.readiness.plan import DOWNLOAD_SHARE  # noqa: PLC0415

        inputs = InstanceInputs.from_bag(props)
        fleet, context = inputs.fleet, _context_of(inputs)
        with told_of(_group_of(inputs), fleet.replicas if fleet else 1, context):
            made = create(inputs, context, DOWNLOAD_SHARE)
        return dynamic.CreateResult(str(made.observed.instance_id), made.to_bag())

    def read(self, id_: str, props: Properties) -> dynamic.ReadResult:
        """Look at the contract and say what drifted; gone only if GET and list agree."""
        from components.vast.lifecycle.refresh import refresh  # noqa: PLC0415

        state = InstanceState.from_bag(props)
        found = refresh(int(id_), state, _context_of(state.inputs))
        return dynamic.ReadResult(id_, found.to_bag()) if found else dynamic.ReadResult("", {})

    def update(self, id_: str, olds: Properties, news: Properties) -> dynamic.UpdateResult:
        """Take over inputs that change nothing about the machine; mend what a refresh found."""
        from components.vast.lifecycle.update import update  # noqa: PLC0415

        old, new = InstanceState.from_bag(olds), InstanceInputs.from_bag(news)
        return dynamic.UpdateResult(update(int(id_), old, new, _context_of(new)).to_bag())

    def delete(self, id_: str, props: Properties) -> None:
        """End the contract and read back that it is gone."""
        from components.vast.lifecycle.delete import LeavingInstance, delete  # noqa: PLC0415

        delete(int(id_), LeavingInstance.from_bag(props), current())


class VastInstance(dynamic.Resource, module="vast", name="Instance"):
    """A rented machine."""

    instance_id: pulumi.Output[int]
    machine_id: pulumi.Output[int]
    public_ip: pulumi.Output[str]
    ssh_port: pulumi.Output[int]
    host_port: pulumi.Output[int]
    """Where the container's `port` is reached from outside; may move at a restart."""
    host_key: pulumi.Output[str]
    """The SSH host key seen at first contact; checked ever after."""
    host_key_from: pulumi.Output[str | None]
    """Who vouched for the host key, `first_contact.BY_LOG` or `BY_TRUST`. None if an older release,
    which asked nobody, rented the machine.
    """
    gpu: pulumi.Output[str]
    hourly_cost: pulumi.Output[float]
    """$/h with the disk, without traffic."""
    location: pulumi.Output[str]
    status: pulumi.Output[str]
    boot_seconds: pulumi.Output[dict[str, float]]
    """By stage: contract, image, container, ports, ssh, check."""
    host_facts: pulumi.Output[dict[str, Any]]
    """What the host check found: GPUs and the link between them, driver, disk and memory. The rate
    from the Hub is in Mbit/s, or None with a note if it was not measured.
    """

    ends_itself_at: pulumi.Output[float]
    """When its time to live is over, in seconds since 1970; 0 for never."""

    market_ends_at: pulumi.Output[float]
    """When the market's own job to destroy it starts, in seconds since 1970; 0 without one."""

    def __init__(
        self,
        name: str,
        *,
        label_prefix: str,
        search: pulumi.Input[Mapping[str, Any]],
        image: str,
        disk_gb: float,
        port: int,
        public_key: pulumi.Input[str],
        private_key: pulumi.Input[str],
        min_driver: str,
        adopt: int,
        boot_minutes: float,
        outbid_policy: PreemptionPolicy,
        losses: pulumi.Input[Mapping[str, Any]],
        time_to_live: AutoShutdown,
        term: ExpiryPolicy,
        first_contact: str,
        token_for: pulumi.Input[Sequence[str]],
        fleet: Fleet | None = None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Rent for `label_prefix` (`<project>/<stack>/<resource>/`) what `search` finds.

        `first_contact` is the setting as it is written. `token_for` are the repositories that the
        Hub gives to the holder of the stack's token alone. `fleet` is of an endpoint with several
        machines.
        """
        inputs = {
            "label_prefix": label_prefix,
            "search": search,
            "image": image,
            "disk_gb": disk_gb,
            "port": port,
            "public_key": public_key,
            "private_key": private_key,
            "min_driver": min_driver,
            "adopt": adopt,
            "boot_minutes": boot_minutes,
            "outbid_policy": outbid_policy.to_bag(),
            "losses": losses,
            "leash": time_to_live.to_bag(),
            "term": term.to_bag(),
            "first_contact": first_contact,
            "token_for": token_for,
            **fleet_property(fleet),
        }
        # `diff` says so as well, but Pulumi does not ask it when a person replaces the machine. The
        # successor would find the contract by the label, adopt it, and see it destroyed.
        own = pulumi.ResourceOptions(
            additional_secret_outputs=["private_key"], delete_before_replace=True
        )
        super().__init__(
            InstanceProvider(),
            name,
            {**dict.fromkeys(OUTPUTS), **inputs},
            pulumi.ResourceOptions.merge(opts, own),
        )


def _context_of(inputs: InstanceInputs) -> Context:
    """The context in which a machine is dealt with; one of several is named in each line."""
    if inputs.fleet is None:
        return current()
    number = renter_of(inputs.label_prefix).replica
    return current().for_replica(number, inputs.fleet.replicas)


def _group_of(inputs: InstanceInputs) -> str | None:
    """Name the endpoint of one of several machines, as its servers do."""
    if inputs.fleet is None:
        return None
    renter = renter_of(inputs.label_prefix)
    return f"{renter.prefix}{renter.endpoint}"
