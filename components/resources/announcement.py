"""Telling whoever routes the traffic: a command of the user's own, run when an endpoint is proven.

Pulumi writes a stack's outputs at the very end of an update, after it has deleted what is no longer
declared: too late for clients to leave an endpoint before it goes. What must know earlier, such as
a gateway's configuration or a DNS record, is told here, between the smoke test and the drain.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi
from pulumi_command import local

from components.resources.server import VllmServer

RUN = "exec sh components/own_environment.sh announce"
"""What pulumi-command runs, and quotes if it fails: in a form that Pulumi's masking of secrets does
not find, so the user's own command comes in by the environment. Relative to the project."""


def announce(
    name: str,
    command: str,
    *,
    server: VllmServer,
    smoke_report: pulumi.Output[Mapping[str, Any]],
    opts: pulumi.ResourceOptions | None = None,
) -> local.Command:
    """Run `command` with `ENDPOINT_URL`, `ENDPOINT_KEY`, `ENDPOINT_MODEL`, `ENDPOINT_CERTIFICATE`.

    Of the caller's variables it gets those by which a shell works, and `ANNOUNCE_*`: see
    `own_environment.sh`.

    It runs whenever one of them, or the command itself, changes, after the smoke test; if it fails,
    so does the update, with what the command wrote, and what served before goes on.
    """
    proven = pulumi.Output.all(server.endpoint_url, smoke_report).apply(lambda known: known[0])
    return local.Command(
        name,
        create=RUN,
        update=RUN,
        environment={
            # A token may stand in it.
            "ANNOUNCE_COMMAND": pulumi.Output.secret(command),
            "ENDPOINT_URL": proven,
            "ENDPOINT_KEY": server.api_key,
            "ENDPOINT_MODEL": server.model,
            "ENDPOINT_CERTIFICATE": server.ca_certificate,
        },
        add_previous_output_in_env=False,
        logging=local.Logging.STDERR,
        opts=opts,
    )
