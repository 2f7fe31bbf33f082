"""Everything that lies in a router's folder, under the name of its content. Pure.

The name covers keys, members, certificates and settings, and this release's way to write them. So
two names are equal exactly if nothing has to be written.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping

from components.router import config
from components.router.inputs import KeyDigest, Member, RouterInputs
from components.router.routes import Gate, own_gate
from components.router.state import RouterRequest, RouterState

LEAF = "leaf.pem"
"""The router's certificate. Its key is added there, to `config.CERTIFICATE`."""


@dataclasses.dataclass(frozen=True)
class Bundle:
    """The files of one version."""

    digest: str
    files: Mapping[str, str] = dataclasses.field(repr=False)
    """By name; `config.CLIENT` has a secret."""


@dataclasses.dataclass(frozen=True)
class Place:
    """What the router's computer decides."""

    folder: str
    listen: str
    threads: int
    connections: int
    """Of clients at once."""


def bundle(
    request: RouterRequest,
    place: Place,
    keys: tuple[KeyDigest, ...],
    leaf: str,
    gate: Gate | None = None,
    *,
    metrics: tuple[KeyDigest, ...] = (),
) -> Bundle:
    """Write the files of a router; all of `request` has to be known.

    Raises:
        ValueError: if a value cannot stand in a file.
    """
    inputs = RouterInputs(
        listen=place.listen,
        port=request.port,
        folder=place.folder,
        scope=request.key_scope,
        members=tuple(
            Member(contract=int(one.contract), address=one.address, port=one.port)
            for one in request.members
        ),
        key_digests=keys,
        metrics_digests=metrics,
        gate=gate or own_gate(),
        routing="conversation" if request.routing == "conversation" else "least-connections",
        client_certificates=request.client_certificates,
        threads=place.threads,
        connections=place.connections,
    )
    others = {config.AUTHORITY: request.authorities, LEAF: leaf}
    if request.client_certificates:
        others[config.CLIENT] = request.client_certificate
    content = json.dumps({**config.render(inputs), **others}, sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()
    named = config.render(inputs.model_copy(update={"version": digest}))
    return Bundle(digest, {**named, **others})


def written(state: RouterState) -> Bundle:
    """Write the files of a router by its own request, as this release writes them."""
    return bundle(
        state.request,
        place_of(state),
        state.key_digests,
        state.leaf,
        metrics=state.metrics_digests,
    )


def place_of(state: RouterState) -> Place:
    """Where a router lies."""
    return Place(state.folder, state.listen, state.threads, state.connections)
