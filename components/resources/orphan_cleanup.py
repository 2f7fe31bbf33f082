"""`OrphanCleanup`: ends what an interrupted `up` has left under another name than the machine's.

A machine finds what was rented under its own name. But where it is replaced create-first, its
successor has another name. After other settings, a rollback, a renamed stack or another SSH key
nobody asks for that name again. The contract would be in no state, and billed until the endpoint
goes. This resource comes after the machine. Its refresh lists what carries the endpoint's label. It
leaves alone what that same refresh has read as a machine of the state, and what has ever been the
endpoint's. The rest it ends in an update.

It never ends a contract that may be in the state. Its creation ends nothing, since it may be
created anew beside a serving machine. A refresh on another computer or of single resources is no
proof.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pulumi
from pulumi import dynamic

from components.core.errors import StackError
from components.core.property_bag import Properties
from components.resources.context import current
from components.resources.instance import VastInstance
from components.resources.provider import Provider
from components.resources.stack_finalizer import LIST_MAX_AGE, StackFinalizer
from components.vast.endpoint_states import CleanupState, Orphan
from components.vast.labels import is_labelled, is_own, resource_of
from components.vast.refresh_log import FILE_NAME, RefreshLog
from components.vast.rental.termination import Terminator

if TYPE_CHECKING:
    from components.vast.api.client import VastApi
    from components.vast.api.models import Instance


class OrphanCleanupProvider(Provider):
    """CRUD of `OrphanCleanup`."""

    def diff(self, _id: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """Another machine, label or key, or an orphan, which is reported."""
        before, after = CleanupState.from_bag(olds), CleanupState.from_bag(news)
        doomed = _doomed(before, after.machines)
        for orphan in doomed:
            current().say(_left_over(orphan))
        return dynamic.DiffResult(changes=bool(doomed) or before.differs(after), replaces=[])

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Begin with the machine that there is; calls nobody."""
        inputs = CleanupState.from_bag(props)
        return dynamic.CreateResult("holdings", inputs.taken_over(inputs, []).to_bag())

    def read(self, id_: str, props: Properties) -> dynamic.ReadResult:
        """Look for what carries the endpoint's label; `diff` knows whether it is in the state."""
        state = CleanupState.from_bag(props)
        try:
            state = _looked(current().market(patient=False), state)
        except StackError as error:
            current().say(f"holdings: whether anything is left over is not known ({error})")
            return dynamic.ReadResult(id_, props)
        return dynamic.ReadResult(id_, state.to_bag())

    def update(self, _id: str, olds: Properties, news: Properties) -> dynamic.UpdateResult:
        """Note the machine, and end the orphans.

        An orphan that cannot be ended is reported and stays noted for the next `up`. The update
        goes on, since the machine works by now.
        """
        before, after = CleanupState.from_bag(olds), CleanupState.from_bag(news)
        stuck = []
        for orphan in _doomed(before, after.machines):
            try:
                _end(orphan)
            except StackError as error:
                current().say(f"holdings: leftovers could not be ended: {error}")
                stuck.append(orphan)
        return dynamic.UpdateResult(before.taken_over(after, stuck).to_bag())

    def delete(self, _id: str, _props: Properties) -> None:
        """The machine goes by itself, and orphans go with the finalizer."""


class OrphanCleanup(dynamic.Resource, module="vast", name="Holdings"):
    """The machines that are, or were, an endpoint's, and the orphans beside them."""

    def __init__(
        self,
        name: str,
        *,
        instances: Sequence[VastInstance],
        finalizer: StackFinalizer,
        endpoint: str,
        public_key: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Note `instances`; what else carries the label of `endpoint` may be an orphan."""
        first, *others = instances
        inputs = {
            # The id, not the output: it stays known in a preview unless the machine is replaced.
            "instance_id": first.id,
            "others": [one.id for one in others] or None,
            "label_prefix": finalizer.label_prefix,
            "endpoint": endpoint,
            "public_key": public_key,
        }
        outputs = dict.fromkeys(["held", "strays", "beside", "looked_at"])
        super().__init__(OrphanCleanupProvider(), name, {**inputs, **outputs}, opts)


def _looked(api: VastApi, state: CleanupState) -> CleanupState:
    """Find contracts that are not known as the endpoint's; without any, nothing changes."""
    contracts = api.instances(LIST_MAX_AGE)
    known = [one for one in contracts if one.id in state.known_ids]
    # The machine's own refresh reports a second contract of the same name.
    names = {resource_of(one.label) for one in known}
    noted = {orphan.id for orphan in state.orphans}
    orphans = tuple(
        Orphan.of(one)
        for one in contracts
        if one.id in noted or (_is_ours(one, state) and resource_of(one.label) not in names)
    )
    if not orphans:
        return dataclasses.replace(state, orphans=(), siblings=(), looked_at=0.0)
    looked_at = _refresh_log(api).note(state.scope.path)
    siblings = tuple(one.id for one in known)
    return dataclasses.replace(state, orphans=orphans, siblings=siblings, looked_at=looked_at)


def _is_ours(contract: Instance, state: CleanupState) -> bool:
    scope = state.scope
    return (
        contract.id not in state.known_ids
        and is_labelled(contract.label, scope.label_prefix, scope.name)
        and is_own(contract.label, scope.owner)
    )


def _doomed(before: CleanupState, go_on: Sequence[str]) -> list[Orphan]:
    """Select the orphans that are in no state; `go_on` are the contracts that machines keep."""
    if not before.orphans:
        return []
    try:
        read = _refresh_log(current().market(patient=False)).recent()
    except StackError as error:
        current().say(f"holdings: leftovers cannot be distinguished from own machines ({error})")
        return []
    if read.get(before.scope.path) != before.looked_at:
        return []
    if any(str(id_) not in read for id_ in before.siblings):
        return []
    return [one for one in before.orphans if str(one.id) not in {*read, *go_on}]


def _end(orphan: Orphan) -> None:
    context = current()
    progress = context.progress("holdings")
    progress.say(f"destroying instance {orphan.id}, which carries {orphan.label}")
    Terminator(context.market(), context.clock, progress).terminate(
        orphan.id, orphan.dollars_per_hour
    )


def _refresh_log(api: VastApi) -> RefreshLog:
    return RefreshLog(api.shared(FILE_NAME), current().clock)


def _left_over(orphan: Orphan) -> str:
    return (
        f"instance {orphan.id} (${orphan.dollars_per_hour:.2f}/h) carries the label "
        f"{orphan.label} and is in no state: an `up` that was cut off has left it over, and "
        "`pulumi up` ends it unless it goes on with it, or one that runs just now is renting it"
    )
