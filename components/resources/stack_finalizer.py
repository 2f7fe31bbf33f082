"""`StackFinalizer`: created before an endpoint rents anything, destroyed after all of it.

A crash between a rent call and the state that should remember it leaves a contract that only its
label connects with the endpoint. The finalizer's `delete` ends whatever still carries that label.
Its `check` says in every preview and `up` what is billed under it. Other endpoints of the stack are
never its business (`labels.whose`).
"""

from __future__ import annotations

import collections
import dataclasses
from typing import TYPE_CHECKING, Any

import pulumi
from pulumi import dynamic

from components.core.errors import StackError
from components.core.property_bag import Properties
from components.resources.context import Context, current
from components.resources.provider import Provider, refused
from components.vast.api.account import account_of, hold_to
from components.vast.endpoint_states import EndpointScope, FinalizerState
from components.vast.errors import LabelTaken, StillBilled
from components.vast.labels import is_labelled, partition_by_owner
from components.vast.lifecycle.preemption import PREEMPTIONS_FILE, PreemptionLog, record_preemptions
from components.vast.rental.termination import Terminator, left_alone

if TYPE_CHECKING:
    from components.vast.api.client import VastApi
    from components.vast.api.models import Instance

LIST_MAX_AGE = 3.0
"""Seconds for which a list of contracts is used again."""


class StackFinalizerProvider(Provider):
    """CRUD of `StackFinalizer`."""

    def check(self, olds: Properties, news: Properties) -> dynamic.CheckResult:
        """Say what carries the endpoint's label now.

        This is the first call in a new stack: without an answer, nothing else can work. A new
        finalizer is refused where contracts under its label are billed already. They belong to
        another state, and it must not end them. A finalizer that is to be replaced has no previous
        inputs either, and its end would sweep what serves. For an existing finalizer the lines only
        inform people.
        """
        scope = EndpointScope.from_bag(news)
        try:
            contracts = current().market(patient=False).instances()
        except StackError as error:
            if not olds:
                return refused(news, error)
            current().say(f"lease: what carries the label {scope.path} is not known ({error})")
            return dynamic.CheckResult(news, [])
        billed = inventory(scope, contracts)
        if billed and _moves(olds, scope):
            return refused(news, _taken(billed[0]))
        own, others = _divided(contracts, scope)
        for line in [*inventory(scope, own), *map(left_alone, others)]:
            current().say(f"lease: {line}")
        return dynamic.CheckResult(news, [])

    def diff(self, _id: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """Never replace it: the old finalizer's end would sweep the contracts of the new one."""
        changes = FinalizerState.from_bag(olds).differs(FinalizerState.from_bag(news))
        return dynamic.DiffResult(changes=changes, replaces=[])

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Take the label, which costs nothing, and note whose account it is on."""
        made = dataclasses.replace(
            FinalizerState.from_bag(props), losses={}, account_id=account_of(current().market())
        )
        return dynamic.CreateResult(made.scope.path, made.to_bag())

    def read(self, id_: str, props: Properties) -> dynamic.ReadResult:
        """Note which machines others took away; nothing else of it can change."""
        state = FinalizerState.from_bag(props)
        context = current()
        if state.interruptible:
            try:
                state = _with_losses(state, context)
            except StackError as error:
                context.say(f"lease: whether a machine was taken away is not known ({error})")
        return dynamic.ReadResult(id_, state.to_bag())

    def update(self, _id: str, olds: Properties, news: Properties) -> dynamic.UpdateResult:
        """Take over another label, name or kind of contract; keep what was lost."""
        after = FinalizerState.from_bag(olds).taken_over(FinalizerState.from_bag(news))
        return dynamic.UpdateResult(after.to_bag())

    def delete(self, _id: str, props: Properties) -> None:
        """Destroy every contract that is still the endpoint's; fail if one stays."""
        state, context = FinalizerState.from_bag(props), current()
        api = context.market()
        stuck: list[str] = []
        for scope in (*state.former, state.scope):
            hold_to(api, state.account_id or 0, f"what carries the label {scope.path}")
            try:
                _sweep(api, context, scope)
            except StillBilled as error:
                # What carries its other labels is billed meanwhile.
                stuck.append(str(error))
        if stuck:
            raise StillBilled("; ".join(stuck))


class StackFinalizer(dynamic.Resource, module="vast", name="Lease"):
    """The promise that `pulumi destroy` leaves nothing of an endpoint billed."""

    label_prefix: pulumi.Output[str]

    losses: pulumi.Output[dict[str, Any]]
    """Interruptible machines that others took away within a day; see `outbid.Losses`."""

    def __init__(
        self,
        name: str,
        *,
        label_prefix: str,
        endpoint: pulumi.Input[str],
        public_key: pulumi.Input[str],
        interruptible: bool = False,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Sweep the labels of `endpoint` that begin with `label_prefix` when destroyed.

        Only what was rented with `public_key`: a stack of the same name may stand elsewhere.
        With `interruptible`, each refresh notes which machines were taken away.
        """
        inputs = {
            "label_prefix": label_prefix,
            "endpoint": endpoint,
            "public_key": public_key,
            "interruptible": interruptible,
            "losses": None,
        }
        # If a person replaces it, the end of the old finalizer sweeps what was rented by then.
        own = pulumi.ResourceOptions(delete_before_replace=True)
        super().__init__(
            StackFinalizerProvider(), name, inputs, pulumi.ResourceOptions.merge(opts, own)
        )


def inventory(scope: EndpointScope, contracts: list[Instance]) -> list[str]:
    """Say what is billed under an endpoint's label, in lines; none if nothing is.

    One resource has one contract. If it has several, the resource's own refresh names its own.
    """
    billed = [one for one in contracts if is_labelled(one.label, scope.label_prefix, scope.name)]
    if not billed:
        return []
    by_resource: dict[str, list[Instance]] = collections.defaultdict(list)
    for one in billed:
        by_resource[one.label.removeprefix(scope.label_prefix).split("/")[0]].append(one)
    total = sum(one.dollars_per_hour for one in billed)
    named = ", ".join(
        f"{one.id} for {resource} at ${one.dollars_per_hour:.2f}/h"
        for resource, contracts_of_it in by_resource.items()
        for one in contracts_of_it
    )
    lines = [f"billed under the label {scope.path}: ${total:.2f}/h ({named})"]
    for resource, contracts_of_it in by_resource.items():
        if len(contracts_of_it) > 1:
            lines.append(
                f"{len(contracts_of_it)} contracts carry the label of {resource}, which has one: "
                "the others are strays, which its refresh or its next rental ends"
            )
    return lines


def _moves(olds: Properties, scope: EndpointScope) -> bool:
    """Whether the finalizer is new to its label. An older state that gets its name is not."""
    if not olds:
        return True
    before = EndpointScope.from_bag(olds)
    if before.endpoint is None:
        return before.label_prefix != scope.label_prefix
    return before.path != scope.path


def _taken(billed: str) -> LabelTaken:
    return LabelTaken(
        f"this lease would be new there, and there is something {billed}: it is of this stack, "
        "whose lease must not be replaced, or of a stack of the same name in another backend, "
        "whose machines this one would end, or of a state that was lost; leave the lease, take "
        "another stack name, or end it first (`make orphans` lists it, ON=account an account's)"
    )


def _divided(
    contracts: list[Instance], scope: EndpointScope
) -> tuple[list[Instance], list[Instance]]:
    return partition_by_owner(contracts, scope.label_prefix, scope.owner, scope.name)


def _with_losses(state: FinalizerState, context: Context) -> FinalizerState:
    """Add the machines that were taken away since the last refresh.

    Raises:
        StackError: of the client's kinds, if that is not known.
    """
    from components.vast.lifecycle.status_confirm import confirmed_stopped  # noqa: PLC0415

    clock, scope = context.clock, state.scope
    api = context.market(patient=False)
    own, _ = _divided(api.instances(LIST_MAX_AGE), scope)
    suspects = [one for one in own if str(one.id) not in state.losses]
    stopped = confirmed_stopped(api, clock, context.progress("lease"), suspects)
    note = PreemptionLog(api.shared(PREEMPTIONS_FILE), clock)
    losses = {**note.of(scope.label_prefix, scope.name), **state.losses}
    return dataclasses.replace(state, losses=record_preemptions(losses, stopped, clock.epoch()))


def _sweep(api: VastApi, context: Context, scope: EndpointScope) -> None:
    from components.vast.rental.journal import SUFFIX, awaited_labels  # noqa: PLC0415

    prefix, name = scope.label_prefix, scope.name
    sent = awaited_labels(api.shared_files(SUFFIX), prefix, context.clock)
    awaited = {label: left for label, left in sent.items() if is_labelled(label, prefix, name)}
    Terminator(api, context.clock, context.progress("lease")).sweep(
        prefix, owner=scope.owner_to_sweep, endpoint=name, awaited=awaited
    )
