"""What a router is made of: members, keys, and where it listens. Pure.

Each value becomes a word in a file that HAProxy reads. A value that is none of its type is refused
here, so none can end its word, its line or its quotes.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from components.machine.addresses import address
from components.router.routes import Gate

LONGEST_FOLDER = 70
"""Characters. A socket's path has at most 103 bytes on macOS. A member's name takes 23 of them, and
HAProxy keeps ten for a name of its own while it opens the socket."""

MOST_MEMBERS = 128


def _address(text: str) -> str:
    read = address(text)
    if not read:
        raise ValueError("that is no IP address")
    return read


Address = Annotated[str, AfterValidator(_address)]
Port = Annotated[int, Field(ge=1, le=65535)]
Contract = Annotated[int, Field(ge=1, le=2**53 - 1)]
"""A contract's id as Vast gives it, in JSON."""

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Scope = Annotated[
    str, StringConstraints(pattern=r"^vast-vllm/[A-Za-z0-9_.-]{1,100}/[A-Za-z0-9_.-]{1,100}/$")
]
"""What `components.core.keys.scope_of` gives for names that Pulumi takes."""

Folder = Annotated[
    str, StringConstraints(pattern=r"^(/[A-Za-z0-9_.+@-]+)+$", max_length=LONGEST_FOLDER)
]


Version = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64})?$")]


class _Checked(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Member(_Checked):
    """A machine whose server is proven."""

    contract: Contract
    address: Address
    port: Port
    """Where its server is reached from outside."""
    state: Literal["serving", "draining"] = "serving"
    """A draining one gets no new request."""
    scope: Scope | None = None
    """Of a member of another stack, which takes the same key of clients; None for this stack's."""


class RouterAddress(_Checked):
    """Where clients reach a router."""

    listen: Address
    port: Port


class KeyDigest(_Checked):
    """A key of clients."""

    digest: Digest
    """SHA-256 of the key, lower-case hex."""
    ends: Annotated[int, Field(ge=0, le=10**12 - 1)] | None = None
    """The second since 1970 from which on it is refused; None for one that does not end."""


class RouterInputs(_Checked):
    """Everything that the router's files are rendered of."""

    listen: Address
    """Where clients connect; `0.0.0.0` or `::` for all addresses of the computer."""
    port: Port
    folder: Folder
    """Where the files and sockets lie on the router's computer; nobody else may enter it."""
    version: Version = ""
    """Names these files: they lie in a folder of that name in `folder`, and the router says it to
    who has a key. Empty for files that lie in `folder` itself, and have no name."""
    scope: Scope
    """Whose keys they are."""
    members: Annotated[tuple[Member, ...], Field(min_length=1, max_length=MOST_MEMBERS)]
    key_digests: Annotated[tuple[KeyDigest, ...], Field(min_length=1, max_length=64)]
    metrics_digests: Annotated[tuple[KeyDigest, ...], Field(max_length=64)] = ()
    """Of keys that open the router's counters and nothing else."""
    gate: Gate
    routing: Literal["conversation", "least-connections"] = "conversation"
    """`conversation`: its requests go to one member, whose cache has its beginning."""
    client_certificates: bool = False
    """Whether clients, and so the router to its members, show a certificate of the authority."""
    threads: Annotated[int, Field(ge=1, le=64)] = 1
    connections: Annotated[int, Field(ge=1, le=100_000)] = 2048
    """Clients' connections at once; more of them wait."""
    check_milliseconds: Annotated[int, Field(ge=50, le=60_000)] = 1000
    """From one health check of a member to the next."""
    old_worker_seconds: Annotated[int, Field(ge=1, le=86_400)] = 1800
    """How long answers that began before a reload may go on."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        contracts = [member.contract for member in self.members]
        digests = [key.digest for key in (*self.key_digests, *self.metrics_digests)]
        if len(set(contracts)) < len(contracts):
            raise ValueError("a contract is named twice")
        if len(set(digests)) < len(digests):
            raise ValueError("a key is named twice")
        return self
