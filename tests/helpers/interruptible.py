"""A provider whose `create` waits until Pulumi's provider process is asked to end."""

from __future__ import annotations

from pulumi import dynamic

from components.core.property_bag import Properties
from components.resources.context import current
from components.resources.provider import Provider


class WaitingProvider(Provider):
    """Says that it waits, and waits."""

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Wait for ever, by the context's clock."""
        del props
        progress = current().progress("test")
        progress.say("waits")
        while True:
            progress.go_on("the wait", "run `pulumi up` again")
            current().clock.sleep(0.05)
