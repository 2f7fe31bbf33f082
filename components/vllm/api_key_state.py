"""The stack's key in the state, and when another one is made. Pure.

The only place that reads or writes the property bag of `ApiKey`. A state that an older release
wrote is read as this release would have written it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from components.core.keys import digest
from components.core.property_bag import BagReader, flag, number, text, whole

SECRET = ("api_key",)
"""Properties that Pulumi encrypts."""

OUTPUTS = ("api_key", "digest", "previous_digest")

OF_A_FLEET = ("former_keys",)
"""One more output, which is a secret too, where a router stands in front of machines."""

MOST_FORMER = 8
"""Replaced keys that are kept; a router keeps no more either."""


class FormerKey(NamedTuple):
    """A key that clients of a router had, and may have for its grace."""

    key: str
    replaced_at: float
    """Seconds since 1970."""


@dataclasses.dataclass(frozen=True)
class ApiKeyInputs:
    """What the settings say of the key."""

    generation: int
    """A higher one asks for another key."""
    shared: bool
    """Whether machines take the stack's key itself, as in older releases."""
    fleet: bool = dataclasses.field(default=False, compare=False)
    """Whether clients show the key to a router. A change of that alone makes no difference."""

    @classmethod
    def from_bag(cls, bag: Mapping[str, Any]) -> ApiKeyInputs:
        """Read them out of a property bag of any release.

        Raises:
            StateUnreadable: naming a property that is missing or none of its kind.
        """
        reader = BagReader({"shared": True, **bag})
        return cls(
            reader.need("generation", whole, 0),
            reader.need("shared", flag, False),
            reader.get("fleet", flag) or False,
        )

    def to_bag(self) -> dict[str, Any]:
        """Write what `from_bag` reads."""
        own = {"generation": self.generation, "shared": self.shared}
        return {**own, "fleet": True} if self.fleet else own


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
    former_keys: tuple[FormerKey, ...] = dataclasses.field(default=(), repr=False)
    """Keys that this one has replaced behind a router, the oldest first."""

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
            reader.get("former_keys", former_from_bag) or (),
        )

    def to_bag(self) -> dict[str, Any]:
        """Write what `from_bag` reads."""
        own = {"api_key": self.api_key, "digest": self.digest}
        previous = {} if self.previous_digest is None else {"previous_digest": self.previous_digest}
        former = {"former_keys": former_to_bag(self.former_keys)} if self.former_keys else {}
        return {**self.inputs.to_bag(), **own, **previous, **former}


def ends_sharing(olds: ApiKeyInputs, news: ApiKeyInputs) -> bool:
    """Whether hosts have seen the key and must not see it any more, in the same generation."""
    return olds.generation == news.generation and olds.shared and not news.shared


def made(inputs: ApiKeyInputs, key: str) -> ApiKeyState:
    """Take `key`, which nobody has seen, as the stack's first one."""
    return ApiKeyState(inputs, key, digest(key), "")


def updated(olds: ApiKeyState, news: ApiKeyInputs, key: str, now: float) -> ApiKeyState:
    """Take `key`, which nobody has seen, if another one is needed; else keep the existing one.

    A server stops taking the replaced key in its own update. Behind a router, a machine that is
    rented later takes it for the rest of its grace too. `now` is in seconds since 1970.
    """
    if olds.inputs.generation != news.generation:
        former = (*olds.former_keys, FormerKey(olds.api_key, now))[-MOST_FORMER:]
        return dataclasses.replace(made(news, key), former_keys=former if news.fleet else ())
    if ends_sharing(olds.inputs, news):
        # Whoever knows the stack's key knows the key of each machine. Hosts know this stack's key.
        return dataclasses.replace(made(news, key), previous_digest=olds.digest)
    return dataclasses.replace(olds, inputs=news)


def former_from_bag(value: Any) -> tuple[FormerKey, ...]:
    """Read what `former_to_bag` gives."""
    return tuple(FormerKey(text(one["key"]), number(one["replaced_at"])) for one in value)


def former_to_bag(keys: tuple[FormerKey, ...]) -> list[dict[str, Any]]:
    """Write replaced keys for a property bag."""
    return [key._asdict() for key in keys]
