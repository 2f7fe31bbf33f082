"""A stack's authorities in the state, and what they have signed for its machine. Pure.

The only place that reads or writes the property bag of `Authority`. With one machine it signs for
that machine too. With several, each machine's certificate is a resource of its own (see
`certificate_state.py`), to which the authorities' keys are handed as a secret.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from components.core.property_bag import BagReader, contract_id, flag, number, text, whole
from components.machine.remote_host import RemoteHost
from components.tls import authorities as rules
from components.tls import certificates
from components.tls.authorities import Authorities, Authority, Signed

RequestedKey = Callable[["Requester"], certificates.PublicKey]
"""Asks a machine for its server's public key."""

SIGNER = ("key", "newest_certificate", "former_key", "former_authority", "former_until")
"""Properties that whoever signs in the authority's name needs."""


@dataclasses.dataclass(frozen=True)
class Requester:
    """A machine that is vouched for."""

    instance_id: str
    """The contract's id, in digits."""
    host: RemoteHost

    @classmethod
    def from_bag(cls, reader: BagReader) -> Requester:
        """Read it.

        Raises:
            StateUnreadable: naming a property that is missing or none of its kind.
        """
        return cls(reader.need("instance_id", contract_id, ""), RemoteHost.from_bag(reader))

    def to_bag(self) -> dict[str, Any]:
        """Write what `from_bag` reads."""
        return {"instance_id": self.instance_id, **self.host.to_bag()}

    @property
    def named(self) -> tuple[str, str]:
        """What its certificate follows from; how it is reached is none of it."""
        return self.instance_id, self.host.address.ip


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuthorityInputs:
    """Whom the stack's authority vouches for."""

    requester: Requester | None = None
    """The stack's one machine; None where each of several has a certificate of its own."""
    tls: bool
    generation: int
    """A higher one asks for the next authority."""
    client_certificates: bool | None
    """Whether clients get one too; None in a state from an older release."""
    unknown: frozenset[str] = frozenset()
    """Names of what a preview does not know: those fields are empty as their type is."""

    @classmethod
    def from_bag(cls, bag: Mapping[str, Any]) -> AuthorityInputs:
        """Read them out of a property bag of any release.

        Raises:
            StateUnreadable: naming a property that is missing or none of its kind.
        """
        reader = BagReader(bag)
        has_machine = bag.get("instance_id") is not None
        return cls(
            requester=Requester.from_bag(reader) if has_machine else None,
            tls=reader.need("tls", flag, False),
            generation=reader.need("generation", whole, 0),
            client_certificates=reader.get("client_certificates", flag),
            # The last of them, since it tells of all that was read.
            unknown=reader.unknown,
        )

    def to_bag(self) -> dict[str, Any]:
        """Write what `from_bag` reads; what is None or not known is left out."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del own["requester"], own["unknown"]
        bag = {**own, **(self.requester.to_bag() if self.requester else {})}
        return {
            name: value
            for name, value in bag.items()
            if value is not None and name not in self.unknown
        }


@dataclasses.dataclass(frozen=True)
class AuthorityState:
    """What a stack's clients trust, and what was signed."""

    inputs: AuthorityInputs
    authorities: Authorities
    signed: Signed

    @classmethod
    def from_bag(cls, bag: Mapping[str, Any]) -> AuthorityState:
        """Read it out of a property bag of any release.

        Raises:
            StateUnreadable: naming a property that is missing or none of its kind.
        """
        reader = BagReader(bag)
        return cls(
            AuthorityInputs.from_bag(bag),
            authorities_from_bag(bag),
            Signed(reader.get("leaf", text) or "", reader.get("client_certificate", text) or ""),
        )

    def to_bag(self) -> dict[str, Any]:
        """Write what `from_bag` reads, and what clients pin."""
        newest, former = self.authorities.newest, self.authorities.former
        return {
            **self.inputs.to_bag(),
            "key": newest.key,
            "newest_certificate": newest.certificate,
            "former_key": former.key if former else "",
            "former_authority": former.certificate if former else "",
            "former_until": self.authorities.former_until if former else 0.0,
            "certificate": self.authorities.trusted(),
            "leaf": self.signed.leaf,
            "client_certificate": self.signed.client_certificate,
        }

    def has_signed_for(self, instance_id: str) -> bool:
        """Whether that machine has a certificate."""
        asked = self.inputs.requester
        return asked is not None and asked.instance_id == instance_id and bool(self.signed.leaf)


def authorities_from_bag(bag: Mapping[str, Any]) -> Authorities:
    """Read the authorities with their keys, out of the properties in `SIGNER`.

    Raises:
        StateUnreadable: naming a property that is missing or none of its kind.
    """
    reader = BagReader(bag)
    newest = Authority(reader.need("key", text, ""), reader.need("newest_certificate", text, ""))
    former = None
    if former_key := reader.get("former_key", text):
        former = Authority(former_key, reader.need("former_authority", text, ""))
    return Authorities(newest, former, reader.get("former_until", number) or 0.0)


def needs_signing(olds: AuthorityState, news: AuthorityInputs, now: float) -> bool:
    """Whether something is to be signed: for another machine, or before a certificate ends."""
    return _signed_for(olds.inputs) != _signed_for(news) or rules.is_due(
        olds.authorities, olds.signed, now
    )


def sign(
    inputs: AuthorityInputs,
    olds: AuthorityState | None,
    authorities: Authorities,
    requested_key: RequestedKey,
    now: float,
) -> AuthorityState:
    """Sign what is asked for; `requested_key` asks the machine, with `tls` alone.

    `olds` is what was signed so far, or None; `now` in seconds since 1970.
    """
    leaf = client = ""
    if inputs.client_certificates:
        is_kept = olds is not None and olds.inputs.generation == inputs.generation
        kept = olds.signed.client_certificate if olds is not None and is_kept else ""
        client = rules.client_identity(authorities, kept, now)
    if inputs.tls and inputs.requester:
        leaf = leaf_for(inputs.requester, authorities, requested_key, now)
    return AuthorityState(inputs, authorities, Signed(leaf, client))


def leaf_for(
    requester: Requester, authorities: Authorities, requested_key: RequestedKey, now: float
) -> str:
    """Sign a machine's certificate (PEM) for the key that `requested_key` gets from it."""
    signing = authorities.signing(now)
    return certificates.machine_certificate(
        signing.key,
        signing.certificate,
        requested_key(requester),
        ip=requester.host.address.ip,
        instance_id=int(requester.instance_id),
        now=now,
    )


def _signed_for(inputs: AuthorityInputs) -> tuple[object, ...]:
    """Give the inputs that another certificate follows from."""
    named = inputs.requester.named if inputs.requester else None
    return (named, inputs.tls, inputs.generation, inputs.client_certificates)
