"""Whether a router serves its files, as clients see it: asked with a wrong and the right key."""

from __future__ import annotations

from collections.abc import Mapping

from components.router.access import Access
from components.router.asking import RouterClient
from components.router.state import RouterRequest, RouterState, url_of

QUIET_SECONDS = 3.0
"""In which a router that does not serve yet is nothing to speak of."""

STEADY = 3
"""Good answers one after the other. In a reload, both workers take connections for a moment."""

WRONG_KEY = "no-key-of-this-stack"

OK, UNAUTHORIZED = 200, 401


def client_of(state: RouterState, access: Access) -> RouterClient:
    """Give the client that asks a router as clients do."""
    request = state.request
    url = url_of(request.address, request.port)
    return access.ask(url, request.authorities, request.client_certificate)


def unproven(state: RouterState, access: Access) -> str:
    """Ask a router as clients do until it serves its files; say what is wrong after that time."""
    client, clock = client_of(state, access), access.clock
    started, steady = clock.monotonic(), 0
    while True:
        why = wrong(client, state)
        steady = 0 if why else steady + 1
        if steady == STEADY:
            return ""
        if why and (none := _reaches_none(client, state)):
            return none
        waited = clock.monotonic() - started
        if why and waited >= access.limits.proof:
            return why
        if why:
            access.progress.go_on("the proof of the router")
        if why and waited >= QUIET_SECONDS:
            access.progress.waiting(f"not yet: {why}")
        clock.sleep(access.limits.look)


def serves(state: RouterState, digest: str, access: Access) -> bool:
    """Wait for a router to serve the files with a digest, and say whether it does."""
    client, clock = client_of(state, access), access.clock
    deadline, steady = clock.monotonic() + access.limits.back, 0
    while steady < STEADY:
        if clock.monotonic() >= deadline:
            return False
        is_served = client.version(state.request.stack_key) == digest
        steady = steady + 1 if is_served else 0
        clock.sleep(access.limits.look)
    return True


def not_reached_by(state: RouterState, access: Access) -> list[str]:
    """Say which members the router does not reach, once it has looked at each."""
    client, clock = client_of(state, access), access.clock
    deadline = clock.monotonic() + access.limits.checks
    while True:
        found = client.members(state.request.stack_key)
        if state.request.contracts <= found.keys() or clock.monotonic() >= deadline:
            return not_reached(found, state.request)
        clock.sleep(access.limits.look)


def not_reached(found: Mapping[str, str], request: RouterRequest) -> list[str]:
    """Say which members the router does not reach; `found` is what `members` gives. Pure."""
    return [
        f"it sends nothing to i{contract}: the machine {why}, seen from {request.where}"
        for contract, why in sorted(found.items())
        if why and contract in request.contracts
    ]


def wrong(client: RouterClient, state: RouterState) -> str:
    """Say what a router answers otherwise than it should just now; empty for nothing.

    It is asked on one connection: what names the new files also answers for the keys.
    """
    with client.on_one_connection() as one:
        return _wrong(one, state)


def _wrong(client: RouterClient, state: RouterState) -> str:
    request = state.request
    where = f"at {url_of(request.address, request.port)}"
    health = client.status_of("/health", None)
    if isinstance(health, str):
        return f"the router {where} {health}"
    if client.version(request.stack_key) != state.digest:
        return f"the router {where} does not serve its new files"
    asked = (
        (health, OK, "`/health`"),
        (client.status_of("/v1/models", WRONG_KEY), UNAUTHORIZED, "a wrong key"),
        (client.status_of("/v1/models", request.stack_key), OK, "the stack's key"),
    )
    for found, expected, what in asked:
        if found != expected:
            answer = f"gets {found}" if isinstance(found, int) else found
            return f"{what} {where} {answer} instead of {expected}"
    return ""


def _reaches_none(client: RouterClient, state: RouterState) -> str:
    """Say that no member is reached, if each was looked at: then nobody has to wait longer."""
    request = state.request
    if client.version(request.stack_key) != state.digest:
        return ""
    found = client.members(request.stack_key)
    if not request.contracts <= found.keys() or not all(found[one] for one in request.contracts):
        return ""
    reasons = (f"i{one} {found[one]}" for one in sorted(request.contracts))
    return f"it reaches none of its machines: {', '.join(reasons)}"
