"""What is at a router's computer, and what speaks against a router there. Pure.

The computer is the user's own. Its text is held to its form all the same, since it ends in files
and sentences.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import get_args

from components.core.display import clipped, shown
from components.machine.addresses import address as address_in
from components.machine.addresses import is_loopback, with_port
from components.router.inputs import LONGEST_FOLDER
from components.router.scripts import ROUTERS, answers
from components.router.state import RouterRequest, Supervisor

OLDEST = (2, 6)
"""The oldest HAProxy that takes the files, and the one that they were tried with."""

MOST_THREADS = 64

MOST_CONNECTIONS, LEAST_CONNECTIONS = 2048, 128
"""Of clients at once."""

FILES_OF_ONE, OTHER_FILES = 4, 500
"""Of a connection, and of the process itself: HAProxy 2.6 asked for 8423 files for 2048
connections, with one member. Each member adds a few."""

ELSEWHERE = (
    "nothing of the stack's router is on this computer: another one has it, or its folder is gone"
)

_FOLDER = re.compile(r"(/[A-Za-z0-9_.+@-]+)+")
_OF_SS = re.compile(
    r"\[?(\*|[0-9a-f.:]+)(?:%[A-Za-z0-9_.-]{1,15})?\]?(?:%[A-Za-z0-9_.-]{1,15})?:([0-9]{1,5})"
)
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True)
class Listener:
    """A socket that takes connections; of all addresses where `address` is empty."""

    address: str
    port: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What a computer says of itself, and of the router there."""

    program: str
    """HAProxy's path; empty if there is none."""
    version: str
    """As HAProxy says it; empty if it does not start."""
    has_openssl: bool
    threads: int
    """As many as it has cores."""
    open_files: int | None
    """How many files its process may open; None for no limit that is known."""
    lowest_port: int
    """The lowest port that its user may listen at; 0 for any, or if nobody can tell."""
    is_writable: bool
    """Whether its user can make or change the folder."""
    supervisor: Supervisor
    """Who would start a router again."""
    lingers: bool
    """Whether its user's units outlive the user's last login."""
    addresses: frozenset[str]
    listeners: tuple[Listener, ...]
    folder: str
    is_alive: bool
    is_watched: bool
    """Whether the one that lives is a unit of systemd."""
    owner: str
    stack: frozenset[str]
    good: str
    """The version that was proven last; empty for none."""
    bind: Listener | None
    """Where that configuration listens."""
    members: tuple[str, ...]
    """The contracts in that configuration."""
    files: Mapping[str, str]
    """SHA-256 by name, of the version that was asked for."""
    same: frozenset[str]
    """`haproxy.cfg` if it is that version's; `router.pem` if it is that version's, with the key."""

    @property
    def supervises(self) -> Supervisor:
        """Who starts the router that lives again."""
        return self.supervisor if self.is_watched else "nobody"


def read(printed: str) -> Facts:
    """Read what the script `facts` prints; what is none of its kind counts as missing."""
    found = answers(printed)

    def first(name: str) -> str:
        return next(iter(found.get(name, [])), "")

    cores, files, lowest = first("cores"), first("files"), first("lowest")
    kind = first("supervisor")
    names = tuple(one for one in found.get("member", []) if re.fullmatch(r"[1-9][0-9]{0,15}", one))
    version = re.match(r"HA-?Proxy version ([0-9][A-Za-z0-9.+~-]{0,60})", first("version"))
    return Facts(
        program=first("haproxy") if first("haproxy").startswith("/") else "",
        version=version[1] if version else "",
        has_openssl=bool(first("openssl")),
        threads=min(max(int(cores), 1), MOST_THREADS) if re.fullmatch(r"\d{1,4}", cores) else 1,
        open_files=int(files) if re.fullmatch(r"[0-9]{1,12}", files) else None,
        lowest_port=int(lowest) if re.fullmatch(r"[0-9]{1,5}", lowest) else 0,
        is_writable=first("writable") != "no",
        supervisor=next((one for one in get_args(Supervisor) if one == kind), "nobody"),
        lingers=first("linger") == "yes",
        addresses=frozenset(address_in(text.partition("/")[0]) for text in found.get("address", []))
        - {""},
        listeners=tuple(filter(None, map(listener, found.get("listens", [])))),
        folder=first("folder"),
        is_alive=first("alive") == "yes",
        is_watched=first("watched") == "yes",
        owner=first("owner"),
        stack=frozenset(first("stack").split()),
        good=_digest(first("good")),
        bind=_bind(first("bind")),
        members=names,
        files=dict(_file(text) for text in found.get("file", []) if " " in text),
        same=frozenset(found.get("same", [])),
    )


def refusal(
    facts: Facts,
    request: RouterRequest,
    before: RouterRequest | None,
    *,
    owner: str | None,
    is_here: bool,
    named: str = "",
) -> str:
    """Say what speaks against a router there; empty for nothing.

    `before` is what was asked for so far, and None for a new router. `owner` is the state's, empty
    for a new router, and None if it is not known. `is_here` says that it is this computer. `named`
    is the program that `VASTVLLM_HAPROXY` names instead of the one on the `PATH`, if it does.
    """
    missing = _program_missing(facts, request.where, named)
    return missing or next(filter(None, _refusals(facts, request, before, owner, is_here)), "")


def connections(facts: Facts) -> int:
    """How many connections of clients fit into the files that the process may open.

    Each takes a file on both sides of both stages. HAProxy does not start with too few of them.
    """
    if facts.open_files is None:
        return MOST_CONNECTIONS
    return min((facts.open_files - OTHER_FILES) // FILES_OF_ONE, MOST_CONNECTIONS)


def is_elsewhere(facts: Facts, request: RouterRequest) -> bool:
    """Whether a router that was made on "this computer" was made on another one."""
    return not request.host and not facts.owner and not facts.is_alive


def address_warning(facts: Facts, request: RouterRequest) -> str:
    """Say that clients may not reach an address; empty where an interface has it."""
    if is_loopback(request.address) or request.address in facts.addresses or not facts.addresses:
        return ""
    return (
        f"no interface of {request.where} has `routerAddress` {request.address}: `up` fails after "
        "the machines are rented, unless that address is translated to one of that computer's"
    )


def listens_on(facts: Facts, address: str) -> str:
    """Choose the address that is bound so that `address` is reached, and little else.

    An address that no interface has is translated on the way there: then all are bound.
    """
    if is_loopback(address) or address in facts.addresses:
        return address
    return "::" if ":" in address else "0.0.0.0"  # noqa: S104  (TLS and keys guard it)


def listener(text: str) -> Listener | None:
    """Read a listening socket as Linux has it in `/proc/net/tcp`, or as `ss` or netstat prints it.

    BSD's netstat has a dot before the port; `ss` has a colon, and brackets around version six.
    """
    if match := re.fullmatch(r"([0-9A-F]{8}|[0-9A-F]{32}):([0-9A-F]{4})", text):
        return Listener(_without_wildcard(_from_words(match[1])), int(match[2], 16))
    if match := re.fullmatch(r"(\*|[0-9a-fA-F.:]+)(?:%[a-z0-9]+)?\.([0-9]{1,5})", text):
        return Listener(_without_wildcard(address_in(match[1])), int(match[2]))
    if match := _OF_SS.fullmatch(text):
        return Listener(_without_wildcard(_unmapped(match[1])), int(match[2]))
    return None


def _refusals(
    facts: Facts,
    request: RouterRequest,
    before: RouterRequest | None,
    owner: str | None,
    is_here: bool,
) -> Iterator[str]:
    where = request.where
    if is_loopback(request.address) and not is_here:
        yield (
            f"`routerAddress` {request.address} is reached from {where} alone: set the address by "
            "which clients reach that computer"
        )
    if not facts.has_openssl:
        yield f"there is no `openssl` at {where}, which makes the router's key"
    if connections(facts) < LEAST_CONNECTIONS:
        yield (
            f"a process at {where} may open {facts.open_files} files, and the router needs "
            f"{LEAST_CONNECTIONS * FILES_OF_ONE + OTHER_FILES}: raise the limit (`ulimit -Hn`)"
        )
    yield _folder_unusable(facts, where)
    if request.port < facts.lowest_port:
        yield (
            f"the user at {where} may not listen at ports below {facts.lowest_port}: set "
            "`routerPort` to a higher one"
        )
    stays = before is not None and before.host == request.host
    if stays and request.lost_router != "go-on" and is_elsewhere(facts, request):
        yield f"{ELSEWHERE}; run this there, or set `lostRouter` to `go-on` to start one here"
    yield _other_owner(facts, request, owner)
    yield _port_taken(facts, request, before)


def _program_missing(facts: Facts, where: str, named: str) -> str:
    if not facts.program and named:
        return (
            f"`VASTVLLM_HAPROXY` names {clipped(named, 200)!r}, and there is no such program at "
            f"{where}: correct it, or take the variable away (`unset VASTVLLM_HAPROXY`)"
        )
    if not facts.program:
        return (
            f"there is no HAProxy at {where}: install 2.6 or newer there "
            "(`sudo apt-get install haproxy`)"
        )
    if not facts.version:
        return f"`{shown(facts.program)} -v` at {where} does not say which HAProxy it is"
    if tuple(map(int, re.findall(r"\d+", facts.version)[:2])) < OLDEST:
        return f"HAProxy at {where} is {facts.version}, and 2.6 or newer is needed"
    return ""


def _folder_unusable(facts: Facts, where: str) -> str:
    if not _FOLDER.fullmatch(facts.folder) or len(facts.folder) > LONGEST_FOLDER:
        return (
            f"the router's folder at {where} would be {clipped(facts.folder, 200)!r}: set "
            f"`{ROUTERS}` there to a folder of at most {LONGEST_FOLDER - 20} letters, digits, `/`, "
            "`.`, `_` and `-`"
        )
    if not facts.is_writable:
        return f"nothing can be written to {facts.folder} at {where}: set `{ROUTERS}` there"
    return ""


def _other_owner(facts: Facts, request: RouterRequest, owner: str | None) -> str:
    if owner is None or not facts.is_alive or facts.owner in {"", owner}:
        return ""
    if not owner and facts.stack & stack_marks(request.authorities):
        # An `up` that was cut off has left it; the next one takes it over.
        return ""
    return (
        f"a router of another stack with the same name runs at {request.where}, in "
        f"{facts.folder}: destroy that stack first, or take another stack name"
    )


def stack_marks(authorities: str) -> frozenset[str]:
    """Name a stack by its authorities; two states of one name share none."""
    from components.tls import certificates  # noqa: PLC0415  (not for who only reads a state)

    return frozenset(certificates.fingerprints(authorities)) if authorities else frozenset()


def _port_taken(facts: Facts, request: RouterRequest, before: RouterRequest | None) -> str:
    wanted = Listener(_without_wildcard(listens_on(facts, request.address)), request.port)
    # Its file may have been changed by hand, and a router that is taken over has no state.
    own = {facts.bind.port if facts.bind else None, before.port if before else None}
    if facts.is_alive and request.port in own:
        return ""
    if not any(_collides(one, wanted) for one in facts.listeners):
        return ""
    return (
        f"another program listens at {with_port(request.address, request.port)} of "
        f"{request.where}: end it, or set `routerPort` to another port"
    )


def _collides(one: Listener, other: Listener) -> bool:
    return one.port == other.port and (
        not one.address or not other.address or one.address == other.address
    )


def _from_words(digits: str) -> str:
    """Linux writes an address as words of 32 bits, each with its lowest byte first."""
    data = b"".join(bytes.fromhex(digits[at : at + 8])[::-1] for at in range(0, len(digits), 8))
    return _unmapped(str(ipaddress.ip_address(data)))


def _unmapped(text: str) -> str:
    """Give an address in its one spelling, of version four where it is one; empty for none."""
    found = address_in(text)
    mapped = ipaddress.IPv6Address(found).ipv4_mapped if ":" in found else None
    return str(mapped) if mapped else found


def _without_wildcard(address: str) -> str:
    return "" if address in {"0.0.0.0", "::"} else address  # noqa: S104  (compared alone)


def _bind(text: str) -> Listener | None:
    match = re.fullmatch(r"ipv[46]@\[?([0-9a-f.:]+)\]?:([0-9]{1,5})", text)
    return Listener(_without_wildcard(match[1]), int(match[2])) if match else None


def _digest(text: str) -> str:
    return text if _DIGEST.fullmatch(text) else ""


def _file(text: str) -> tuple[str, str]:
    digest, _, name = text.partition(" ")
    return name, digest
