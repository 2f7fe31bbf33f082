"""`ApiKey`: the key from which a stack's machines derive theirs (`machine_key.py`)."""

from __future__ import annotations

import secrets
from typing import Any

import pulumi
from pulumi import dynamic

from components.core.property_bag import Properties
from components.resources.context import current
from components.resources.provider import Provider
from components.vllm import api_key_state
from components.vllm.api_key_state import ApiKeyInputs, ApiKeyState

KEY_BYTES = 24
"""As the recipe's `openssl rand -hex 24`."""


class ApiKeyProvider(Provider):
    """CRUD of `ApiKey`. A new key is an update, so that the server can take both."""

    def diff(self, _id: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """Another generation means another key; so does the end of a shared key."""
        before, after = ApiKeyInputs.from_bag(olds), ApiKeyInputs.from_bag(news)
        if api_key_state.ends_sharing(before, after):
            current().progress("api key").say(
                "hosts have seen this stack's key: a new one is made for machines that are rented "
                "from now on, and a machine that serves keeps its key"
            )
        return dynamic.DiffResult(changes=before != after)

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Make the first key."""
        state = api_key_state.made(ApiKeyInputs.from_bag(props), secrets.token_hex(KEY_BYTES))
        return dynamic.CreateResult("api-key", state.to_bag())

    def read(self, id_: str, props: Properties) -> dynamic.ReadResult:
        """Nothing outside the state to read."""
        return dynamic.ReadResult(id_, props)

    def update(self, _id: str, olds: Properties, news: Properties) -> dynamic.UpdateResult:
        """Make the next key if one is needed."""
        before, wanted = ApiKeyState.from_bag(olds), ApiKeyInputs.from_bag(news)
        key, now = secrets.token_hex(KEY_BYTES), current().clock.epoch()
        state = api_key_state.updated(before, wanted, key, now)
        return dynamic.UpdateResult(state.to_bag())

    def delete(self, _id: str, _props: Properties) -> None:
        """The state forgets it; the server that took it has ended already."""


class ApiKey(dynamic.Resource, module="vllm", name="ApiKey"):
    """24 random bytes, which no host sees unless the key is shared."""

    api_key: pulumi.Output[str]
    """Secret."""

    digest: pulumi.Output[str]
    """SHA-256 of the key, hex."""

    previous_digest: pulumi.Output[str]
    """Digest of a key of the same generation that machines took unchanged; they keep it. Empty if
    there is none.
    """

    former_keys: pulumi.Output[list[dict[str, Any]] | None]
    """Secret; replaced keys, with `fleet` alone."""

    def __init__(
        self,
        name: str,
        *,
        generation: int,
        shared: bool,
        fleet: bool = False,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Make a key; a higher `generation`, or the end of `shared`, makes another key.

        With `fleet`, clients show it to a router, and replaced keys are kept for their grace.
        """
        self.is_of_fleet = fleet
        former = api_key_state.OF_A_FLEET if fleet else ()
        secret = pulumi.ResourceOptions(additional_secret_outputs=[*api_key_state.SECRET, *former])
        inputs = ApiKeyInputs(generation, shared, fleet).to_bag()
        super().__init__(
            ApiKeyProvider(),
            name,
            {**inputs, **dict.fromkeys([*api_key_state.OUTPUTS, *former])},
            pulumi.ResourceOptions.merge(opts, secret),
        )
