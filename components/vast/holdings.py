"""`Holdings`: sees what an `up` that was cut off has left under another name than the machine's.

A machine finds what was rented under its own name. But where it is replaced create-first, its
successor has another name, and after other settings, a rollback, a renamed stack or another SSH
key nobody asks for that name again: the contract would be in no state, and billed until the stack
goes. This resource comes after the machine. Its refresh lists what carries the stack's label; what
that same refresh has read as a machine of the state, and what has ever been the stack's, is none of
its business; the rest it ends in an update.

It never ends what may be in the state: not while it is made, since it may be made anew beside a
machine that serves, and not by a refresh of another computer or of single resources.
"""

from __future__ import annotations

from typing import Any

import pulumi
from pulumi import dynamic

from components.core.errors import StackError
from components.core.property_bag import Properties, changed
from components.resources.context import current
from components.resources.instance import VastInstance
from components.resources.provider import Provider
from components.vast.api.client import VastApi
from components.vast.api.models import Instance
from components.vast.ending import Ending
from components.vast.lease import FRESH, StackLease
from components.vast.owner import is_own, owner_in, resource_of
from components.vast.refresh_log import NOTE, InTheState

INPUTS = ("instance_id", "label_prefix", "public_key")


class HoldingsProvider(Provider):
    """CRUD of `Holdings`."""

    def diff(self, _id: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """Another machine or name, or something left over, which is told."""
        doomed = _doomed(olds, news)
        for stray in doomed:
            current().say(_left_over(stray))
        return dynamic.DiffResult(changes=bool(changed(olds, news, INPUTS) or doomed), replaces=[])

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Begin with the machine that there is; calls nobody."""
        held = [int(props["instance_id"])]
        return dynamic.CreateResult("holdings", {**props, **_found([], []), "held": held})

    def read(self, id_: str, props: Properties) -> dynamic.ReadResult:
        """Look for what carries the stack's label; whether it is in the state `diff` knows."""
        try:
            found = _look(current().market(patient=False), props)
        except StackError as error:
            current().say(f"holdings: whether anything is left over is not known ({error})")
            return dynamic.ReadResult(id_, props)
        return dynamic.ReadResult(id_, {**props, **found})

    def update(self, _id: str, olds: Properties, news: Properties) -> dynamic.UpdateResult:
        """Note the machine, and end what is left over.

        What cannot be ended is told and stays noted, for the next `up`: a machine works by now.
        """
        stuck = []
        for stray in _doomed(olds, news):
            try:
                _end(stray)
            except StackError as error:
                current().say(f"holdings: what is left over could not be ended: {error}")
                stuck.append(stray)
        held = sorted(_held(olds) | {int(news["instance_id"])})
        return dynamic.UpdateResult({**news, **_found(stuck, []), "held": held})

    def delete(self, _id: str, _props: Properties) -> None:
        """The machine goes by itself, and what is left over with the lease."""


class Holdings(dynamic.Resource, module="vast", name="Holdings"):
    """The machines that are, or were, a stack's, and what is left over beside them."""

    def __init__(
        self,
        name: str,
        *,
        instance: VastInstance,
        lease: StackLease,
        public_key: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Note `instance`; what carries the label of `lease` beside it may be left over."""
        inputs = {
            # The id, not the output: it stays known in a preview unless the machine is replaced.
            "instance_id": instance.id,
            "label_prefix": lease.label_prefix,
            "public_key": public_key,
        }
        outputs = dict.fromkeys(["held", "strays", "beside", "looked_at"])
        super().__init__(HoldingsProvider(), name, {**inputs, **outputs}, opts)


def _look(api: VastApi, props: Properties) -> Properties:
    """Find what is not known as the stack's; a refresh that finds nothing changes nothing."""
    contracts = api.instances(FRESH)
    held = [one for one in contracts if one.id in _held(props)]
    # A second one of the same name is told by the machine's own refresh.
    names = {resource_of(one.label) for one in held}
    known = {int(stray["id"]) for stray in props.get("strays") or []}
    strays = [
        _noted(one)
        for one in contracts
        if one.id in known or (_is_ours(one, props) and resource_of(one.label) not in names)
    ]
    if not strays:
        return _found([], [])
    looked_at = _in_the_state(api).note(str(props["label_prefix"]))
    return {**_found(strays, [one.id for one in held]), "looked_at": looked_at}


def _found(strays: list[Properties], beside: list[int]) -> Properties:
    return {"strays": strays, "beside": beside, "looked_at": 0.0}


def _is_ours(contract: Instance, props: Properties) -> bool:
    under = contract.label.startswith(str(props["label_prefix"]))
    return under and contract.id not in _held(props) and is_own(contract.label, owner_in(props))


def _doomed(olds: Properties, news: Properties) -> list[dict[str, Any]]:
    """Of what was found, that which is in no state and is not what the machine goes on with."""
    strays = olds.get("strays") or []
    if not strays:
        return []
    try:
        read = _in_the_state(current().market(patient=False)).lately()
    except StackError as error:
        current().say(f"holdings: what is left over cannot be told from the stack's own ({error})")
        return []
    if read.get(str(olds["label_prefix"])) != olds.get("looked_at"):
        return []
    if any(str(int(id_)) not in read for id_ in olds.get("beside") or []):
        return []
    goes_on = str(news.get("instance_id"))
    return [one for one in strays if str(int(one["id"])) not in {*read, goes_on}]


def _end(stray: Properties) -> None:
    context = current()
    progress = context.progress("holdings")
    progress.say(f"destroying instance {int(stray['id'])}, which carries {stray['label']}")
    ending = Ending(context.market(), context.clock, progress)
    ending.end(int(stray["id"]), float(stray["dollars_per_hour"]))


def _in_the_state(api: VastApi) -> InTheState:
    return InTheState(api.shared(NOTE), current().clock)


def _held(props: Properties) -> set[int]:
    return {int(id_) for id_ in props.get("held") or []}


def _noted(contract: Instance) -> dict[str, Any]:
    return {
        "id": contract.id,
        "label": contract.label,
        "dollars_per_hour": contract.dollars_per_hour,
    }


def _left_over(stray: Properties) -> str:
    return (
        f"instance {int(stray['id'])} (${float(stray['dollars_per_hour']):.2f}/h) carries the "
        f"label {stray['label']} and is in no state: an `up` that was cut off has left it over, "
        "and `pulumi up` ends it unless it goes on with it, or one that runs just now is renting it"
    )
