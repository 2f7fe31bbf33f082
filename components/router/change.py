"""What an update does to a router, in words, and whether there is anything to do. Pure."""

from __future__ import annotations

import dataclasses

from components.router.bundle import written
from components.router.keys import is_due
from components.router.state import RouterRequest, RouterState, WantedMember


@dataclasses.dataclass(frozen=True)
class Change:
    """What follows from a state and what is asked for."""

    is_any: bool
    replaces: tuple[str, ...] = ()
    """Properties whose change makes another router: its computer."""
    message: str = ""


def change(state: RouterState, wanted: RouterRequest, now: float) -> Change:
    """Compare; `now` in seconds since 1970."""
    before, wanted = state.request, wanted.named_as(state.request)
    if before.host != wanted.host:
        message = f"it moves from {before.where} to {wanted.where}"
        return Change(True, ("host",), message)
    words = [*_reasons(state, wanted, now), *membership(before, wanted)]
    differs = bool(wanted.unknown) or before != wanted or bool(words) or _renders_anew(state)
    return Change(differs, message="; ".join(words))


def membership(before: RouterRequest, wanted: RouterRequest) -> list[str]:
    """Say who joins, who leaves and who moves."""
    olds = {one.contract: one for one in before.members}
    news = {one.contract: one for one in wanted.members if one.contract}
    unnamed = len(wanted.members) - len(news)
    joining = [_described(one) for contract, one in news.items() if contract not in olds]
    joining += [f"{unnamed} that {'is' if unnamed == 1 else 'are'} rented first"] * bool(unnamed)
    leaving = [f"i{contract}" for contract in olds if contract not in news]
    moving = [
        f"i{contract} to {news[contract].address}:{news[contract].port}"
        for contract, one in olds.items()
        if contract in news and not news[contract].unknown and news[contract] != one
    ]
    words = []
    if joining:
        words.append(f"joins: {', '.join(joining)}")
    if leaving:
        words.append(f"{'may leave' if unnamed else 'leaves'}: {', '.join(leaving)}")
    if moving:
        words.append(f"moves: {', '.join(moving)}")
    return words


def leaving(before: RouterRequest, wanted: RouterRequest) -> list[str]:
    """Contracts that are members, and shall not be."""
    return sorted(before.contracts - wanted.contracts, key=int)


def _reasons(state: RouterState, wanted: RouterRequest, now: float) -> list[str]:
    before, reasons = state.request, []
    if state.problem:
        reasons.append(state.problem)
    if (before.address, before.port) != (wanted.address, wanted.port):
        reasons.append(
            f"clients reach it at {wanted.address}:{wanted.port} instead of "
            f"{before.address}:{before.port}"
        )
    if before.routing != wanted.routing:
        reasons.append(f"it routes by {wanted.routing} instead of {before.routing}")
    if _has_another_key(before, wanted):
        minutes = f"{wanted.key_grace_minutes:g}"
        reasons.append(f"it takes another key, and the replaced one for {minutes} minutes more")
    if "signer" not in wanted.unknown and is_due(state.leaf, wanted, now):
        reasons.append("its certificate is renewed")
    return reasons


def _has_another_key(before: RouterRequest, wanted: RouterRequest) -> bool:
    """A preview that makes another key does not know it; its generation says it then."""
    if "stack_key_digest" in wanted.unknown:
        return before.key_generation != wanted.key_generation
    return before.stack_key_digest != wanted.stack_key_digest


def _renders_anew(state: RouterState) -> bool:
    """Whether this release writes other files of the same state."""
    # A key whose time is over is refused without another file.
    return written(state).digest != state.digest


def _described(member: WantedMember) -> str:
    return (
        f"i{member.contract} ({member.address}:{member.port})"
        if member.address
        else (f"i{member.contract}")
    )
