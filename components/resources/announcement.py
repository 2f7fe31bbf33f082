"""The announcement of a proven endpoint to a gateway or a DNS, by a command of the user's own.

Pulumi writes a stack's outputs at the very end of an update, after its deletions. That is too late
for clients to leave an endpoint before it goes. So a gateway's configuration or a DNS record is
changed here, between the smoke test and the drain.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi
from pulumi_command import local

from components.resources.served import Served

RUN = "exec sh components/own_environment.sh announce"
"""What pulumi-command runs, relative to the project, and quotes if it fails. Pulumi would not mask
a secret in that quote, so the user's own command is passed in the environment.
"""


def announce(
    name: str,
    command: str,
    *,
    served: Served,
    smoke_report: pulumi.Output[Mapping[str, Any]],
    opts: pulumi.ResourceOptions | None = None,
) -> local.Command:
    """Run `command` with `ENDPOINT_URL`, `ENDPOINT_KEY`, `ENDPOINT_MODEL`, `ENDPOINT_CERTIFICATE`.

    Of the caller's variables it gets those that a shell needs, and `ANNOUNCE_*`: see
    `own_environment.sh`.

    It runs after the smoke test, whenever a variable or the command itself changes. If it fails,
    the update fails with the command's output, and the previous endpoint goes on.
    """
    proven = pulumi.Output.all(served.endpoint_url, smoke_report).apply(lambda known: known[0])
    return local.Command(
        name,
        create=RUN,
        update=RUN,
        environment={
            # The command may contain a token.
            "ANNOUNCE_COMMAND": pulumi.Output.secret(command),
            "ENDPOINT_URL": proven,
            "ENDPOINT_KEY": served.api_key,
            "ENDPOINT_MODEL": served.model,
            "ENDPOINT_CERTIFICATE": served.ca_certificate,
        },
        add_previous_output_in_env=False,
        logging=local.Logging.STDERR,
        opts=opts,
    )
