"""A stack's own SSH key in the state. Pure.

The only place that reads or writes the property bag of `SshKey`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from components.core.property_bag import BagReader, text

SECRET = ("private_key",)
"""Properties that Pulumi encrypts."""

OUTPUTS = ("public_key", "private_key")


@dataclasses.dataclass(frozen=True)
class SshKeyInputs:
    """What a key is made for."""

    comment: str
    """The last word of its public line."""

    @classmethod
    def from_bag(cls, bag: Mapping[str, Any]) -> SshKeyInputs:
        """Read it out of a property bag of any release.

        Raises:
            StateUnreadable: if it is missing or no text.
        """
        return cls(BagReader(bag).need("comment", text, ""))


@dataclasses.dataclass(frozen=True)
class SshKeyState:
    """An ed25519 pair that was made; `SshKey` says in which formats."""

    inputs: SshKeyInputs
    public_key: str
    private_key: str = dataclasses.field(repr=False)

    def to_bag(self) -> dict[str, Any]:
        """Write inputs and outputs."""
        return {
            "comment": self.inputs.comment,
            "public_key": self.public_key,
            "private_key": self.private_key,
        }
