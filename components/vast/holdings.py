"""`Holdings`: which machines are the stack's, so that what is left over beside them is ended.

A machine finds what an `up` that was cut off has rented under its own name. But where it is
replaced create-first, its successor has another name, and after other settings, a rollback, a
renamed stack or another SSH key nobody asks for that name again: the contract would be in no state
and billed until the stack goes. This resource comes after the machine, keeps the ids of all that
were the stack's, and ends what else carries the stack's label.
"""

from __future__ import annotations

import pulumi
from pulumi import dynamic

from components.clock import SystemClock
from components.errors import StackError
from components.progress import Progress, to_terminal
from components.provider import Properties, Provider, changed
from components.vast.api import VastApi, connect
from components.vast.ending import Ending
from components.vast.instance import VastInstance
from components.vast.lease import FRESH, StackLease
from components.vast.owner import owner_in, told_apart
from components.vast.rent_note import SUFFIX, still_to_come
from components.vast.wire import Instance

IDENTITY = ("label_prefix", "public_key")
"""Inputs by which a stack's contracts are told from others."""


class HoldingsProvider(Provider):
    """CRUD of `Holdings`. Calls nobody but for the list, and to end what is left over."""

    def diff(self, _id: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """Another machine, another name, or something left over."""
        inputs = changed(olds, news, ["instance_id", *IDENTITY])
        return dynamic.DiffResult(changes=bool(inputs or olds.get("strays")), replaces=[])

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Begin to count, at once with what is left over if no machine can be in the state yet.

        A stack of an older release may have one beside the new one, which serves: what is there
        by now is taken for its own.
        """
        held = {int(props["instance_id"])}
        if props.get("counted"):
            return dynamic.CreateResult("holdings", _swept(props, {}, held))
        held |= {one.id for one in _own(connect(), props)}
        return dynamic.CreateResult("holdings", {**props, "held": sorted(held), "strays": []})

    def read(self, id_: str, props: Properties) -> dynamic.ReadResult:
        """Look for what carries the stack's label and never was the stack's."""
        try:
            contracts = _own(connect(patient=False), props)
        except StackError as error:
            to_terminal(f"holdings: whether anything is left over is not known ({error})")
            return dynamic.ReadResult(id_, props)
        held = [one for one in contracts if one.id in _held(props)]
        # A second one of the same name is told by the machine's own refresh.
        names = {_resource(one) for one in held}
        strays = [one for one in contracts if one not in held and _resource(one) not in names]
        for stray in strays:
            to_terminal(_left_over(stray))
        return dynamic.ReadResult(id_, {**props, "strays": [stray.id for stray in strays]})

    def update(self, _id: str, olds: Properties, news: Properties) -> dynamic.UpdateResult:
        """Count the machine, and end what is none of the stack's."""
        held = _held(olds) | {int(news["instance_id"])}
        return dynamic.UpdateResult(_swept(news, olds, held))

    def delete(self, _id: str, _props: Properties) -> None:
        """The machine goes by itself, and what is left over with the lease."""


class Holdings(dynamic.Resource, module="vast", name="Holdings"):
    """The ids of the machines that are, or were, a stack's."""

    def __init__(
        self,
        name: str,
        *,
        instance: VastInstance,
        lease: StackLease,
        public_key: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Count `instance`; what carries the label of `lease` beside it is left over."""
        inputs = {
            # The id, not the output: it stays known in a preview unless the machine is replaced.
            "instance_id": instance.id,
            "label_prefix": lease.label_prefix,
            "public_key": public_key,
            "counted": lease.counted,
            "held": None,
            "strays": None,
        }
        super().__init__(HoldingsProvider(), name, inputs, opts)


def _swept(props: Properties, before: Properties, held: set[int]) -> Properties:
    """End what is none of `held`, under the label and the SSH key of before as well.

    A machine works by now, so what cannot be ended is told, and the next refresh finds it.
    """
    strays: list[int] = []
    for named in _identities(before, props):
        try:
            _sweep(named, held)
        except StackError as error:
            to_terminal(f"holdings: what is left over could not be ended: {error}")
            strays = [int(id_) for id_ in before.get("strays") or []]
    return {**props, "held": sorted(held), "strays": strays}


def _identities(before: Properties, props: Properties) -> list[Properties]:
    """Under what the stack's contracts can stand: a renamed stack had another label."""
    if not before or not changed(before, props, IDENTITY):
        return [props]
    return [before, props]


def _sweep(props: Properties, held: set[int]) -> None:
    api, clock = connect(), SystemClock()
    prefix = str(props["label_prefix"])
    awaited = still_to_come(api.shared_files(SUFFIX), prefix, clock)
    Ending(api, clock, Progress("holdings", clock, to_terminal)).sweep(
        prefix, owner=owner_in(props), keep=held, awaited=awaited
    )


def _own(api: VastApi, props: Properties) -> list[Instance]:
    mine, _ = told_apart(api.instances(FRESH), str(props["label_prefix"]), owner_in(props))
    return mine


def _held(props: Properties) -> set[int]:
    return {int(id_) for id_ in props.get("held") or []}


def _resource(contract: Instance) -> str:
    return contract.label.rpartition("/")[0]


def _left_over(stray: Instance) -> str:
    return (
        f"instance {stray.id} (${stray.dollars_per_hour:.2f}/h, {stray.label}) carries this "
        "stack's label and is in no state: unless an `up` rents it just now, one that was cut off "
        "has left it over, and the next `pulumi up` ends it"
    )
