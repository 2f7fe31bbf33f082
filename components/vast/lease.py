"""`StackLease`: created before any rental, destroyed after all of them, and then sweeps.

A crash between a rent call and the state that should remember it leaves a contract that only its
label connects with the stack. The lease's `delete` ends whatever still carries the stack's label.
"""

from __future__ import annotations

import pulumi
from pulumi import dynamic

from components.clock import SystemClock
from components.progress import Progress, to_terminal
from components.provider import Properties, Provider, changed
from components.vast.api import connect
from components.vast.rental import Deadlines, Rental


class LeaseProvider(Provider):
    """CRUD of `StackLease`."""

    def diff(self, _id: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """The prefix is the lease: another one is another lease."""
        keys = changed(olds, news, ["label_prefix"])
        return dynamic.DiffResult(changes=bool(keys), replaces=keys)

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Take the lease; costs nothing and calls nobody."""
        return dynamic.CreateResult(str(props["label_prefix"]), dict(props))

    def read(self, id_: str, props: Properties) -> dynamic.ReadResult:
        """The lease stands as long as the stack does."""
        return dynamic.ReadResult(id_, props)

    def delete(self, _id: str, props: Properties) -> None:
        """Destroy every contract that still carries the stack's label; fail if one stays."""
        clock = SystemClock()
        progress = Progress("lease", clock, to_terminal)
        Rental(connect(), clock, progress, Deadlines()).sweep(str(props["label_prefix"]))


class StackLease(dynamic.Resource, module="vast", name="Lease"):
    """The promise that `pulumi destroy` leaves nothing billed under the stack's label."""

    label_prefix: pulumi.Output[str]

    def __init__(
        self, name: str, *, label_prefix: str, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        """Sweep what begins with `label_prefix` (`<project>/<stack>/`) when destroyed."""
        super().__init__(LeaseProvider(), name, {"label_prefix": label_prefix}, opts)
