"""The quarantine of a machine that passed its check and turned out unfit: a mark in its label.

The label becomes `<project>/<stack>/<resource>/unfit-<why>-<digest>`. The mark outlives the process
that wrote it and needs no state. A sweep by the label of stack, endpoint or resource still finds
the contract.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.core.errors import StackError

if TYPE_CHECKING:
    from components.vast.api.instances_api import InstancesApi

_MARK = "unfit-"


def quarantine_reason(label: str) -> str:
    """Read why a contract is in quarantine, in words; empty if it is not."""
    last = label.rsplit("/", 1)[-1]
    if not last.startswith(_MARK):
        return ""
    return last.removeprefix(_MARK).rsplit("-", 1)[0].replace("_", " ")


def quarantine_label(label: str, why: str) -> str:
    """Return the label of the same contract in quarantine; `why` is a word (`download_slow`)."""
    resource, _, last = label.rpartition("/")
    return f"{resource}/{_MARK}{why}-{last}"


def quarantine(api: InstancesApi, instance_id: int, why: str) -> str:
    """Put a contract in quarantine; return a sentence on the consequence, or on why it failed."""
    try:
        found = api.instance(instance_id)
        if found is None:
            return f"instance {instance_id} is gone already"
        if not quarantine_reason(found.label):
            api.set_label(instance_id, quarantine_label(found.label, why))
    except StackError as error:
        return (
            f"instance {instance_id} could not be marked unfit ({error}) and is billed on: "
            "`pulumi up` tries it again, `pulumi destroy` ends it"
        )
    return (
        f"instance {instance_id} is marked unfit and costs ${found.dollars_per_hour:.2f}/h until "
        "the next `pulumi up`, which ends it and rents another machine, or `pulumi destroy`"
    )
