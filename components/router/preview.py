"""What a preview says of a router, and refuses before a machine is rented for it."""

from __future__ import annotations

from pydantic import ValidationError

from components.machine.own_computer import HOST, ComputerUnreachable
from components.router import facts, scripts
from components.router.access import Access, preflight
from components.router.errors import RouterRefused
from components.router.inputs import RouterAddress
from components.router.state import RouterRequest


def preview(before: RouterRequest | None, wanted: RouterRequest, access: Access) -> list[str]:
    """Say what a person has to know of a router that is made or changed.

    Its computer is asked only then. `before` is None for a new router.

    Raises:
        RouterRefused: it cannot run there.
        ComputerUnreachable: nobody can tell, and machines would be rented for it.
    """
    _refuse(wanted)
    wanted = wanted.named_as(before)
    if before == wanted and not wanted.unknown:
        return []
    # At another computer it is another router.
    same = before if before is not None and before.host == wanted.host else None
    try:
        found = preflight(wanted, same, "" if same is None else None, access)
    except (ComputerUnreachable, RouterRefused) as error:
        if same is None or wanted.lost_router != "go-on":
            raise
        return [f"{error}; `lostRouter` lets the `up` go on"]
    lines = [
        facts.address_warning(found, wanted),
        scripts.supervision(found.supervisor, lingers=found.lingers, where=wanted.where),
    ]
    return [line for line in lines if line]


def _refuse(wanted: RouterRequest) -> None:
    """Refuse what no computer can serve."""
    if wanted.host and not HOST.fullmatch(wanted.host):
        raise RouterRefused(f"`routerHost` {wanted.host!r} is not `user@host`")
    try:
        RouterAddress(listen=wanted.address, port=wanted.port)
    except ValidationError:
        raise RouterRefused(
            f"`routerAddress` {wanted.address!r} and `routerPort` {wanted.port} are no IP address "
            "and port"
        ) from None
