"""The stack's key in the state, and when another one is made. Pure.

The only place that reads or writes the property bag of `ApiKey`. A state that an older release
wrote is read as this release would have written it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from components.core.keys import digest
from components.core.property_bag import BagReader, flag, text, whole

SECRET = ("api_key",)
"""Properties that Pulumi encrypts."""

OUTPUTS = ("api_key", "digest", "previous_digest")


@dataclasses.dataclass(frozen=True)
class ApiKeyInputs:
    """What the settings say of the key."""

    generation: int
    """A higher one asks for another key."""
    shared: bool
    """Whether machines take the stack's key itself, as in older releases."""

    @classmethod
    def from_bag(cls, bag: Mapping[str, Any]) -> ApiKeyInputs:
        """Read them out of a property bag of any release.

        Raises:
            StateUnreadable: naming a property that is missing or none of its kind.
        """
        reader = BagReader({"shared": True, **bag})
        return cls(reader.need("generation", whole, 0), reader.need("shared", flag, False))

    def to_bag(self) -> dict[str, Any]:
        """Write what `from_bag` reads."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class ApiKeyState:
    """A key that was made."""

    inputs: ApiKeyInputs
    api_key: str = dataclasses.field(repr=False)
    digest: str
    """SHA-256, hex."""
    previous_digest: str | None
    """Digest of a key of the same generation that machines took unchanged. Empty without such a
    key, and None in a state from an older release.
    """

    @classmethod
    def from_bag(cls, bag: Mapping[str, Any]) -> ApiKeyState:
        """Read it out of a property bag of any release.

        Raises:
            StateUnreadable: naming a property that is missing or none of its kind.
        """
        reader = BagReader(bag)
        return cls(
            ApiKeyInputs.from_bag(bag),
            reader.need("api_key", text, ""),
            reader.need("digest", text, ""),
            reader.get("previous_digest", text),
        )

    def to_bag(self) -> dict[str, Any]:
        """Write what `from_bag` reads."""
        own = {"api_key": self.api_key, "digest": self.digest}
        previous = {} if self.previous_digest is None else {"previous_digest": self.previous_digest}
        return {**self.inputs.to_bag(), **own, **previous}


def ends_sharing(olds: ApiKeyInputs, news: ApiKeyInputs) -> bool:
    """Whether hosts have seen the key and must not see it any more, in the same generation."""
    return olds.generation == news.generation and olds.shared and not news.shared


def made(inputs: ApiKeyInputs, key: str) -> ApiKeyState:
    """Take `key`, which nobody has seen, as the stack's first one."""
    return ApiKeyState(inputs, key, digest(key), "")


def updated(olds: ApiKeyState, news: ApiKeyInputs, key: str) -> ApiKeyState:
    """Take `key`, which nobody has seen, if another one is needed; else keep the existing one.

    A server stops taking the replaced key in its own update.
    """
    if olds.inputs.generation != news.generation:
        return made(news, key)
    if ends_sharing(olds.inputs, news):
        # Whoever knows the stack's key knows the key of each machine. Hosts know this stack's key.
        return dataclasses.replace(made(news, key), previous_digest=olds.digest)
    return dataclasses.replace(olds, inputs=news)
