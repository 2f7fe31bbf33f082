"""One machine's certificate in the state, where a stack has several machines. Pure.

The only place that reads or writes the property bag of `MachineCertificate`. The authorities' keys
are among its inputs. They are not kept beside what was signed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from components.core.property_bag import BagReader, contains_unknowns, text
from components.machine.authority_state import (
    RequestedKey,
    Requester,
    authorities_from_bag,
    leaf_for,
)
from components.tls import authorities as rules
from components.tls import certificates
from components.tls.authorities import Authorities

SIGNER = "signer"
"""The input with the authorities, a secret."""


@dataclasses.dataclass(frozen=True)
class CertificateInputs:
    """A machine, and who signs for it."""

    requester: Requester
    authorities: Authorities | None
    """None if a preview does not know them."""
    unknown: frozenset[str] = frozenset()
    """Names of the machine's properties that a preview does not know."""

    @classmethod
    def from_bag(cls, bag: Mapping[str, Any]) -> CertificateInputs:
        """Read the inputs of this release.

        Raises:
            StateUnreadable: naming a property that is missing or none of its kind.
        """
        reader = BagReader(bag)
        requester = Requester.from_bag(reader)
        signer = bag.get(SIGNER)
        authorities = None if contains_unknowns(signer) else authorities_from_bag(signer or {})
        return cls(requester, authorities, reader.unknown)


@dataclasses.dataclass(frozen=True)
class CertificateState:
    """What was signed, and for whom."""

    requester: Requester
    leaf: str
    """PEM."""

    @classmethod
    def from_bag(cls, bag: Mapping[str, Any]) -> CertificateState:
        """Read it.

        Raises:
            StateUnreadable: naming a property that is missing or none of its kind.
        """
        reader = BagReader(bag)
        return cls(Requester.from_bag(reader), reader.need("leaf", text, ""))

    def to_bag(self) -> dict[str, Any]:
        """Write what `from_bag` reads."""
        return {**self.requester.to_bag(), "leaf": self.leaf}

    def warnings(self, now: float) -> list[str]:
        """Say what ends soon."""
        return rules.leaf_warnings(self.leaf, now)


def is_due(olds: CertificateState, news: CertificateInputs, now: float) -> bool:
    """Whether something is to be signed.

    That is so for another machine, before its certificate ends, and once another authority signs.
    """
    if news.unknown or news.authorities is None or olds.requester.named != news.requester.named:
        return True
    signs = news.authorities.signing(now).certificate
    return rules.ends_soon(olds.leaf, now) or not certificates.signer(olds.leaf, signs)


def sign(inputs: CertificateInputs, requested_key: RequestedKey, now: float) -> CertificateState:
    """Sign for a machine, which `requested_key` asks; `now` in seconds since 1970."""
    assert inputs.authorities is not None  # noqa: S101  (outside of a preview all is known)
    return CertificateState(
        inputs.requester, leaf_for(inputs.requester, inputs.authorities, requested_key, now)
    )
