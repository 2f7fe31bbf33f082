"""`ApiKey`: what a client of the endpoint shows. The rented host only ever sees its digest."""

from __future__ import annotations

import hashlib
import secrets

import pulumi
from pulumi import dynamic

from components.provider import Properties, Provider, changed

KEY_BYTES = 24
"""As the recipe's `openssl rand -hex 24`."""


def digest(key: str) -> str:
    """SHA-256 of a key in hex: safe to show, since 192 random bits cannot be guessed from it."""
    return hashlib.sha256(key.encode()).hexdigest()


class ApiKeyProvider(Provider):
    """CRUD of `ApiKey`. A new generation is an update, so that the server can take both."""

    def diff(self, _id: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """Another generation means another key."""
        return dynamic.DiffResult(changes=bool(changed(olds, news, ["generation"])))

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Make the first key."""
        return dynamic.CreateResult("api-key", _with_new_key(props))

    def read(self, id_: str, props: Properties) -> dynamic.ReadResult:
        """Nothing outside the state to read."""
        return dynamic.ReadResult(id_, props)

    def update(self, _id: str, _olds: Properties, news: Properties) -> dynamic.UpdateResult:
        """Make the next key; the server stops taking the old one in its own update."""
        return dynamic.UpdateResult(_with_new_key(news))

    def delete(self, _id: str, _props: Properties) -> None:
        """The state forgets it; the server that took it is gone before."""


class ApiKey(dynamic.Resource, module="vllm", name="ApiKey"):
    """A bearer key of 24 random bytes."""

    api_key: pulumi.Output[str]
    """Secret."""

    digest: pulumi.Output[str]
    """SHA-256 of the key, hex; what the host keeps."""

    def __init__(
        self, name: str, *, generation: int, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        """Make a key; a higher `generation` makes another one."""
        secret = pulumi.ResourceOptions(additional_secret_outputs=["api_key"])
        super().__init__(
            ApiKeyProvider(),
            name,
            {"generation": generation, "api_key": None, "digest": None},
            pulumi.ResourceOptions.merge(opts, secret),
        )


def _with_new_key(props: Properties) -> Properties:
    key = secrets.token_hex(KEY_BYTES)
    return {**props, "api_key": key, "digest": digest(key)}
