"""A machine that was rented, passed its check and turned out unfit: marked where it is billed.

The mark is the contract's label, `<project>/<stack>/<resource>/unfit-<why>-<nonce>`. It outlives
the process that put it there and needs no state; whatever sweeps by the stack's or the resource's
label still finds the contract.
"""

from __future__ import annotations

from typing import Protocol

from components.core.errors import StackError
from components.vast.api.models import Instance

_MARK = "unfit-"


class Labels(Protocol):
    """The calls of `VastApi` that marking makes."""

    def instance(self, instance_id: int) -> Instance | None:
        """See `VastApi.instance`."""

    def set_label(self, instance_id: int, label: str) -> None:
        """See `VastApi.set_label`."""


def why_unfit(label: str) -> str:
    """Read why a contract was marked, in words; empty if it is not marked."""
    nonce = label.rsplit("/", 1)[-1]
    if not nonce.startswith(_MARK):
        return ""
    return nonce.removeprefix(_MARK).rsplit("-", 1)[0].replace("_", " ")


def marked(label: str, why: str) -> str:
    """Return the label that says so; `why` is a word such as `download_slow`."""
    resource, _, nonce = label.rpartition("/")
    return f"{resource}/{_MARK}{why}-{nonce}"


def mark(labels: Labels, instance_id: int, why: str) -> str:
    """Mark a contract, and say what that leads to or why it could not be done."""
    try:
        found = labels.instance(instance_id)
        if found is None:
            return f"instance {instance_id} is gone already"
        if not why_unfit(found.label):
            labels.set_label(instance_id, marked(found.label, why))
    except StackError as error:
        return (
            f"instance {instance_id} could not be marked unfit ({error}) and is billed on: "
            "`pulumi up` tries it again, `pulumi destroy` ends it"
        )
    return (
        f"instance {instance_id} is marked unfit and costs ${found.dollars_per_hour:.2f}/h until "
        "the next `pulumi up`, which ends it and rents another machine, or `pulumi destroy`"
    )
