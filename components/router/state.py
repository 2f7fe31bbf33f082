"""A router in the state: what is asked for, and what serves at its computer. Pure.

The only place that reads or writes the property bag of `Router`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

from components.core.property_bag import (
    BagReader,
    by_name,
    contains_unknowns,
    contract_id,
    flag,
    number,
    text,
    whole,
)
from components.router.inputs import KeyDigest

SECRET = ("signer", "stack_key", "client_certificate")
"""Properties that Pulumi encrypts."""

OUTPUTS = (
    "where",
    "version",
    "digest",
    "leaf",
    "folder",
    "listen",
    "threads",
    "connections",
    "owner",
    "supervisor",
    "key_digests",
    "problem",
)

ROLLOUT_MINUTES = 24 * 60.0
"""By how much longer a member takes a replaced key than the router, at least.

Members take the new key first, and the router may follow hours later. Whoever the router lets in
has to be let in by the member as well, so the router ends a replaced key before any member does.
"""

Supervisor = Literal["systemd", "systemd-user", "nobody"]
"""Who starts the router again when it dies: the system's units, a user's units, nobody."""

LostRouter = Literal["refuse", "go-on"]


@dataclasses.dataclass(frozen=True)
class WantedMember:
    """A machine that shall be a member; what a preview does not know is empty as its type is."""

    contract: str
    """The contract's id, in digits."""
    address: str
    port: int
    unknown: frozenset[str] = frozenset()

    @classmethod
    def from_bag(cls, bag: Mapping[str, Any]) -> WantedMember:
        """Read one entry of `members`.

        Raises:
            StateUnreadable: naming a property that is missing or none of its kind.
        """
        reader = BagReader(bag)
        return cls(
            reader.need("contract", contract_id, ""),
            reader.need("address", text, ""),
            reader.need("port", whole, 0),
            reader.unknown,
        )

    def to_bag(self) -> dict[str, Any]:
        """Write what `from_bag` reads."""
        return {"contract": self.contract, "address": self.address, "port": self.port}


@dataclasses.dataclass(frozen=True)
class Signer:
    """The authorities of the stack, as `Authority` has them in its state; all PEM."""

    key: str = dataclasses.field(repr=False)
    newest_certificate: str
    former_key: str = dataclasses.field(default="", repr=False)
    former_authority: str = ""
    former_until: float = 0.0

    @classmethod
    def from_bag(cls, bag: Mapping[str, Any]) -> Signer:
        """Read the property `signer`.

        Raises:
            StateUnreadable: naming a property that is missing or none of its kind.
        """
        reader = BagReader(bag)
        return cls(
            reader.need("key", text, ""),
            reader.need("newest_certificate", text, ""),
            reader.get("former_key", text) or "",
            reader.get("former_authority", text) or "",
            reader.get("former_until", number) or 0.0,
        )

    def to_bag(self) -> dict[str, Any]:
        """Write what `from_bag` reads."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RouterRequest:
    """What is asked for."""

    label: str
    """`<scope><name of the resource>`: two routers of one computer differ in it."""
    host: str
    """Empty for this computer, or `user@host`."""
    address: str
    """What clients call."""
    port: int
    routing: str
    members: tuple[WantedMember, ...]
    authorities: str
    """PEM of the stack's authorities, which clients and the router trust."""
    signer: Signer = dataclasses.field(repr=False)
    client_certificate: str = dataclasses.field(repr=False)
    """PEM of certificate and key that the router shows; empty where none is asked for."""
    stack_key: str = dataclasses.field(repr=False)
    stack_key_digest: str
    key_scope: str
    key_generation: int
    key_grace_minutes: float
    client_certificates: bool
    lost_router: LostRouter
    metrics_key_digest: str = ""
    """Of the key that opens the counters alone; empty where the stack asks for none."""
    unknown: frozenset[str] = frozenset()
    """Names of what a preview does not know: those fields are empty as their type is."""

    @classmethod
    def from_bag(cls, bag: Mapping[str, Any]) -> RouterRequest:
        """Read it out of a property bag of any release.

        Raises:
            StateUnreadable: naming a property that is missing or none of its kind.
        """
        reader = BagReader({name: value for name, value in bag.items() if name != "members"})
        members, known = _members_from_bag(bag)
        request = cls(
            label=reader.need("label", text, ""),
            host=reader.get("host", text) or "",
            address=reader.need("address", text, ""),
            port=reader.need("port", whole, 0),
            routing=reader.need("routing", text, ""),
            members=members,
            authorities=reader.need("authorities", text, ""),
            signer=reader.need("signer", Signer.from_bag, Signer("", "")),
            client_certificate=reader.get("client_certificate", text) or "",
            stack_key=reader.need("stack_key", text, ""),
            stack_key_digest=reader.need("stack_key_digest", text, ""),
            key_scope=reader.need("key_scope", text, ""),
            key_generation=reader.need("key_generation", whole, 0),
            key_grace_minutes=reader.need("key_grace_minutes", number, 0.0),
            client_certificates=reader.need("client_certificates", flag, False),
            lost_router=reader.need("lost_router", _lost_router, "refuse"),
            metrics_key_digest=reader.get("metrics_key_digest", text) or "",
        )
        unknown = reader.unknown if known else reader.unknown | {"members"}
        return dataclasses.replace(request, unknown=unknown)

    def to_bag(self) -> dict[str, Any]:
        """Write what `from_bag` reads; what is not known is left out."""
        own = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in self.unknown | {"unknown", "members", "signer"}
        }
        if not self.metrics_key_digest:
            # As in states from older releases.
            own.pop("metrics_key_digest", None)
        return {
            **own,
            "members": [member.to_bag() for member in self.members],
            "signer": self.signer.to_bag(),
        }

    def named_as(self, before: RouterRequest | None) -> RouterRequest:
        """Keep the label that a router was made with, so that it stays in its folder.

        A stack that is renamed goes on with the same process, at the same port.
        """
        if before is None or before.host != self.host:
            return self
        return dataclasses.replace(self, label=before.label)

    @property
    def where(self) -> str:
        """The router's computer, for people."""
        return self.host or "this computer"

    @property
    def contracts(self) -> frozenset[str]:
        """The members' contracts, as far as they are known."""
        return frozenset(member.contract for member in self.members if member.contract)


def url_of(address: str, port: int) -> str:
    """Where clients reach a router, without `/v1`."""
    return f"https://[{address}]:{port}" if ":" in address else f"https://{address}:{port}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RouterState:
    """A router that was proven."""

    request: RouterRequest
    version: str
    """Of HAProxy, as it says it."""
    digest: str
    """SHA-256 of its files without private keys; it names their folder there."""
    leaf: str
    """PEM of its own certificate."""
    folder: str
    """Where its files lie at its computer."""
    listen: str
    """The address that it binds."""
    threads: int
    connections: int = 2048
    """Of clients at once."""
    owner: str
    """A random text that lies in its folder too: another one is another state's router."""
    supervisor: Supervisor
    key_digests: tuple[KeyDigest, ...]
    metrics_digests: tuple[KeyDigest, ...] = ()
    """Of keys that open the counters alone."""
    problem: str = ""
    """What a refresh found wrong, or what an `up` could not tell it; empty for nothing."""

    @classmethod
    def from_bag(cls, bag: Mapping[str, Any]) -> RouterState:
        """Read it out of a property bag of any release.

        Raises:
            StateUnreadable: naming a property that is missing or none of its kind.
        """
        reader = BagReader(bag)
        return cls(
            request=RouterRequest.from_bag(bag),
            version=reader.need("version", text, ""),
            digest=reader.need("digest", text, ""),
            leaf=reader.need("leaf", text, ""),
            folder=reader.need("folder", text, ""),
            listen=reader.need("listen", text, ""),
            threads=reader.need("threads", whole, 1),
            connections=reader.get("connections", whole) or 2048,
            owner=reader.need("owner", text, ""),
            supervisor=reader.need("supervisor", _supervisor, "nobody"),
            key_digests=reader.need("key_digests", _key_digests, ()),
            metrics_digests=reader.get("metrics_digests", _key_digests) or (),
            problem=reader.get("problem", text) or "",
        )

    def to_bag(self) -> dict[str, Any]:
        """Write what `from_bag` reads, and what only people read."""
        own = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in {"request", "key_digests", "metrics_digests"}
        }
        metrics = {"metrics_digests": _ends(self.metrics_digests)} if self.metrics_digests else {}
        request = self.request
        return {
            **request.to_bag(),
            **own,
            "key_digests": _ends(self.key_digests),
            **metrics,
            "where": request.where,
            "endpoint_url": f"{url_of(request.address, request.port)}/v1",
            "ca_certificate": request.authorities,
        }


def _members_from_bag(bag: Mapping[str, Any]) -> tuple[tuple[WantedMember, ...], bool]:
    """Read the members as far as a preview knows them, and say whether it knows them all."""
    found = bag.get("members")
    if found is not None and not isinstance(found, list | tuple) and contains_unknowns(found):
        return (), False
    # An entry that is not known at all is a machine that is rented first.
    entries = [
        {} if contains_unknowns([one]) and not isinstance(one, dict) else one for one in found or ()
    ]
    members = tuple(
        WantedMember.from_bag(entry)
        if entry
        else WantedMember("", "", 0, frozenset({"contract", "address", "port"}))
        for entry in entries
    )
    return members, not any(member.unknown for member in members)


def _lost_router(value: Any) -> LostRouter:
    found: LostRouter = get_args(LostRouter)[get_args(LostRouter).index(value)]
    return found


def _supervisor(value: Any) -> Supervisor:
    found: Supervisor = get_args(Supervisor)[get_args(Supervisor).index(value)]
    return found


def _ends(keys: tuple[KeyDigest, ...]) -> dict[str, float]:
    return {key.digest: float(key.ends or 0) for key in keys}


def _key_digests(value: Any) -> tuple[KeyDigest, ...]:
    ends = by_name(number)(value)
    return tuple(KeyDigest(digest=digest, ends=int(end) or None) for digest, end in ends.items())
