"""`ApiKey`: the key that a stack's machines have theirs of (`machine_key.py`)."""

from __future__ import annotations

import secrets

import pulumi
from pulumi import dynamic

from components.core.property_bag import Properties, changed
from components.resources.context import current
from components.resources.provider import Provider
from components.vllm.machine_key import digest

KEY_BYTES = 24
"""As the recipe's `openssl rand -hex 24`."""


class ApiKeyProvider(Provider):
    """CRUD of `ApiKey`. A new key is an update, so that the server can take both."""

    def diff(self, _id: str, olds: Properties, news: Properties) -> dynamic.DiffResult:
        """Another generation means another key, and so does the end of a shared one."""
        risen = bool(changed(olds, news, ["generation"]))
        ends_sharing = _is_shared(olds) and not _is_shared(news)
        if ends_sharing and not risen:
            current().progress("api key").say(
                "hosts have seen this stack's key: a new one is made for machines that are rented "
                "from now on, and a machine that serves keeps its key"
            )
        return dynamic.DiffResult(changes=risen or _is_shared(olds) != _is_shared(news))

    def create(self, props: Properties) -> dynamic.CreateResult:
        """Make the first key."""
        return dynamic.CreateResult("api-key", _with_new_key(props))

    def read(self, id_: str, props: Properties) -> dynamic.ReadResult:
        """Nothing outside the state to read."""
        return dynamic.ReadResult(id_, props)

    def update(self, _id: str, olds: Properties, news: Properties) -> dynamic.UpdateResult:
        """Make the next key; the server stops taking the old one in its own update."""
        if changed(olds, news, ["generation"]):
            return dynamic.UpdateResult(_with_new_key(news))
        if _is_shared(olds) and not _is_shared(news):
            # Whoever knows the stack's key knows the key of each machine: hosts do, of this one.
            return dynamic.UpdateResult(_with_new_key(news, previous=str(olds["digest"])))
        kept = {key: olds.get(key) for key in ("api_key", "digest", "previous_digest")}
        return dynamic.UpdateResult({**news, **kept})

    def delete(self, _id: str, _props: Properties) -> None:
        """The state forgets it; the server that took it is gone before."""


class ApiKey(dynamic.Resource, module="vllm", name="ApiKey"):
    """24 random bytes, which no host sees unless the key is shared."""

    api_key: pulumi.Output[str]
    """Secret."""

    digest: pulumi.Output[str]
    """SHA-256 of the key, hex."""

    previous_digest: pulumi.Output[str]
    """Of a key of the same generation that machines have taken themselves: those that have it keep
    it. Empty if there is none."""

    def __init__(
        self,
        name: str,
        *,
        generation: int,
        shared: bool,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Make a key; a higher `generation` makes another one, and so does `shared` that ends."""
        secret = pulumi.ResourceOptions(additional_secret_outputs=["api_key"])
        inputs = {"generation": generation, "shared": shared}
        outputs = dict.fromkeys(["api_key", "digest", "previous_digest"])
        super().__init__(
            ApiKeyProvider(),
            name,
            {**inputs, **outputs},
            pulumi.ResourceOptions.merge(opts, secret),
        )


def _is_shared(props: Properties) -> bool:
    """Whether machines take the stack's key itself, as all did with older releases.

    Also of inputs: a refresh comes by with those that an older release has recorded.
    """
    return bool(props.get("shared", True))


def _with_new_key(props: Properties, previous: str = "") -> Properties:
    key = secrets.token_hex(KEY_BYTES)
    return {**props, "api_key": key, "digest": digest(key), "previous_digest": previous}
