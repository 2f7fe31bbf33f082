"""What clients call: the server of one machine, or the router in front of several."""

from __future__ import annotations

import dataclasses
from typing import Self

import pulumi

from components.resources.server import VllmServer


@dataclasses.dataclass(frozen=True)
class Served:
    """One address of the OpenAI API, with what it takes to call it."""

    endpoint_url: pulumi.Output[str]
    """With `/v1`."""
    api_key: pulumi.Output[str]
    """Secret."""
    ca_certificate: pulumi.Output[str]
    """PEM to pin; empty without TLS."""
    model: pulumi.Output[str]
    """The name that it is served under."""
    resource: pulumi.Resource
    """Who serves."""

    @classmethod
    def by(cls, server: VllmServer) -> Self:
        """One machine's server."""
        return cls(server.endpoint_url, server.api_key, server.ca_certificate, server.model, server)
