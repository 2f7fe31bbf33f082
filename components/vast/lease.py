"""`StackLease`: created before any rental, destroyed after all of them, and then sweeps.

A crash between a rent call and the state that should remember it leaves a contract that only its
label connects with the stack. The lease's `delete` ends whatever still carries the stack's label,
and its `check` says in every preview and `up` what is billed under it.
"""

from __future__ import annotations

import collections
from typing import Any

import pulumi
from pulumi import dynamic

from components.core.errors import StackError
from components.core.property_bag import Properties, changed
from components.resources.context import current
from components.resources.provider import Provider, refused
from components.vast import outbid
from components.vast.api.account import account_of, hold_to
from components.vast.api.models import Instance
from components.vast.ending import Ending, left_alone
from components.vast.errors import LabelTaken
from components.vast.owner import owner_in, told_apart
from components.vast.rent_note import SUFFIX, still_to_come
from components.vast.second_look import stopped_for_sure

FRESH = 3.0
"""Seconds for which a list of contracts is used again."""


class LeaseProvider(Provider):
    """CRUD of `StackLease`."""

    def check(self, olds: Properties, news: Properties) -> dynamic.CheckResult:
        """Say what carries the stack's label now.

        The first of all calls in a new stack: without an answer there is nothing to go on with,
        and what carries its label already is another state's, which it must not end. The inputs
        of before are empty for a lease that is to be replaced, too: the end of the old one would
        sweep what serves. Later the line is for people, and nothing depends on it.
        """
        prefix = str(news["label_prefix"])
        try:
            contracts = current().market(patient=False).instances()
        except StackError as error:
            if not olds:
                return refused(news, error)
            current().say(f"lease: what carries the label {prefix} is not known ({error})")
            return dynamic.CheckResult(news, [])
        # Of a stack that was renamed, nothing carries the new name yet.
        billed = inventory(prefix, contracts)
        if billed and olds.get("label_prefix") != prefix:
            return refused(news, _taken(billed[0]))
        mine, others = told_apart(contracts, prefix, owner_in(news))
        for line in [*inventory(prefix, mine), *map(left_alone, others)]:
            current().say(f"lease: {line}")
        return dynamic.CheckResult(news, [])

    def diff(self, _id: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """Never another lease: the end of the old one would sweep what the new one stands for."""
        renamed = bool(changed(olds, news, ["label_prefix", "public_key"]))
        others = bool(olds.get("interruptible")) != news.get("interruptible", False)
        return dynamic.DiffResult(changes=renamed or others, replaces=[])

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Take the lease, which costs nothing, and note whose account it is on."""
        outs = {**props, "losses": {}, "account_id": account_of(current().market())}
        return dynamic.CreateResult(str(props["label_prefix"]), outs)

    def read(self, id_: str, props: Properties) -> dynamic.ReadResult:
        """The lease stands as long as the stack does; note which machines others took away."""
        losses = dict(props.get("losses") or {})
        if not props.get("interruptible"):
            return dynamic.ReadResult(id_, {**props, "losses": losses})
        prefix = str(props["label_prefix"])
        context = current()
        clock = context.clock
        try:
            api = context.market(patient=False)
            mine, _ = told_apart(api.instances(FRESH), prefix, owner_in(props))
            suspects = [one for one in mine if str(one.id) not in losses]
            stopped = stopped_for_sure(api, clock, context.progress("lease"), suspects)
            losses = {**outbid.LossNote(api.shared(outbid.LOSSES), clock).of(prefix), **losses}
        except StackError as error:
            context.say(f"lease: whether a machine was taken away is not known ({error})")
            return dynamic.ReadResult(id_, props)
        losses = outbid.noted(losses, stopped, clock.epoch())
        return dynamic.ReadResult(id_, {**props, "losses": losses})

    def update(self, _id: str, olds: Properties, news: Properties) -> dynamic.UpdateResult:
        """Another kind of contract, or another label; what was lost before stays noted."""
        return dynamic.UpdateResult({**olds, **news, "losses": olds.get("losses") or {}})

    def delete(self, _id: str, props: Properties) -> None:
        """Destroy every contract that still carries the stack's label; fail if one stays."""
        context = current()
        clock, api = context.clock, context.market()
        prefix = str(props["label_prefix"])
        hold_to(api, int(props.get("account_id") or 0), f"what carries the label {prefix}")
        awaited = still_to_come(api.shared_files(SUFFIX), prefix, clock)
        Ending(api, clock, context.progress("lease")).sweep(
            prefix, owner=owner_in(props), awaited=awaited
        )


class StackLease(dynamic.Resource, module="vast", name="Lease"):
    """The promise that `pulumi destroy` leaves nothing billed under the stack's label."""

    label_prefix: pulumi.Output[str]

    losses: pulumi.Output[dict[str, Any]]
    """Interruptible machines that others took away within a day; see `outbid.Losses`."""

    def __init__(
        self,
        name: str,
        *,
        label_prefix: str,
        public_key: pulumi.Input[str],
        interruptible: bool = False,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Sweep what begins with `label_prefix` (`<project>/<stack>/`) when destroyed.

        Only what was rented with `public_key`: a stack of the same name may stand elsewhere.
        With `interruptible`, each refresh notes which machines were taken away.
        """
        inputs = {
            "label_prefix": label_prefix,
            "public_key": public_key,
            "interruptible": interruptible,
            "losses": None,
        }
        # Should a person have it replaced: the end of the old one sweeps what was rented by then.
        own = pulumi.ResourceOptions(delete_before_replace=True)
        super().__init__(LeaseProvider(), name, inputs, pulumi.ResourceOptions.merge(opts, own))


def _taken(billed: str) -> LabelTaken:
    return LabelTaken(
        f"this lease would be new there, and there is something {billed}: it is of this stack, "
        "whose lease must not be replaced, or of a stack of the same name in another backend, "
        "whose machines this one would end, or of a state that was lost; leave the lease, take "
        "another stack name, or end it first (`make orphans` lists it, ON=account an account's)"
    )


def inventory(prefix: str, contracts: list[Instance]) -> list[str]:
    """What is billed under a stack's label, in lines; none if nothing is.

    One resource has one contract. A second one is a stray: which of them it is, the resource's
    own refresh says.
    """
    mine = [one for one in contracts if one.label.startswith(prefix)]
    if not mine:
        return []
    by_resource: dict[str, list[Instance]] = collections.defaultdict(list)
    for one in mine:
        by_resource[one.label.removeprefix(prefix).split("/")[0]].append(one)
    total = sum(one.dollars_per_hour for one in mine)
    named = ", ".join(
        f"{one.id} for {resource} at ${one.dollars_per_hour:.2f}/h"
        for resource, ones in by_resource.items()
        for one in ones
    )
    lines = [f"billed under the label {prefix}: ${total:.2f}/h ({named})"]
    for resource, ones in by_resource.items():
        if len(ones) > 1:
            lines.append(
                f"{len(ones)} contracts carry the label of {resource}, which has one: the others "
                "are strays, which its refresh or its next rental ends"
            )
    return lines
