"""A router over its life: what a refresh finds, and its end. Over clients."""

from __future__ import annotations

import dataclasses
import hashlib

from components.core.errors import StackError
from components.machine.addresses import with_port
from components.machine.own_computer import ComputerUnreachable
from components.router import config, scripts
from components.router.access import Access
from components.router.bundle import written
from components.router.facts import ELSEWHERE, Facts, is_elsewhere
from components.router.proof import client_of, not_reached
from components.router.state import RouterState
from components.tls import authorities as rules


def refreshed(state: RouterState, access: Access) -> RouterState:
    """Look at a router: whether it lives, with its own files and members.

    A computer that cannot be reached leaves the state as it is.
    """
    for warning in rules.leaf_warnings(state.leaf, access.clock.epoch(), "the router's"):
        access.progress.say(warning)
    try:
        found = access.look(state.request, state.digest)
    except ComputerUnreachable as error:
        access.progress.say(f"whether it serves is not known: {error}")
        return state
    if is_elsewhere(found, state.request):
        access.progress.say(f"whether it serves is not known: {ELSEWHERE}")
        return state
    problem = problem_of(state, found)
    if problem:
        access.progress.say(f"{problem}; `pulumi up` mends it")
    else:
        client = client_of(state, access)
        for line in not_reached(client.members(state.request.stack_key), state.request):
            access.progress.say(line)
    # What an `up` could not tell the router stays until one can.
    kept = state.problem if not problem and state.problem.startswith(NOT_TOLD) else problem
    return dataclasses.replace(state, problem=kept, version=found.version or state.version)


NOT_TOLD = "it was not told"
"""How a problem begins that no look can find."""


def problem_of(state: RouterState, found: Facts) -> str:
    """Say what is wrong with a router; empty for nothing. Pure."""
    request = state.request
    if found.owner and found.owner != state.owner:
        return f"another state's router is in its folder at {request.where}"
    if not found.is_alive:
        return f"it does not run at {request.where}"
    if set(found.members) != request.contracts:
        has, wants = _named(found.members), _named(request.contracts)
        return f"it has other members: {has} instead of {wants}"
    if state.supervisor != "nobody" and found.supervises == "nobody":
        return "systemd does not start it again any more"
    changed = sorted(_changed(state, found))
    if changed:
        return f"its files were changed: {', '.join(changed)}"
    return ""


def end(state: RouterState, access: Access) -> None:
    """Stop a router within one deadline. Never fails: what is behind it has to go."""
    request = state.request
    address = with_port(request.address, request.port)
    there = f"it may still listen at {address} of {request.where}"
    by_hand = f"end it there by hand, and remove {state.folder}"
    try:
        computer = access.connect(request.host)
        printed = computer.run(
            scripts.end(request.label, state.owner, patience=access.limits.stop),
            timeout=access.limits.end,
        ).stdout
    except (StackError, OSError, ValueError) as error:
        access.progress.say(f"it could not be stopped: {error}; {there}: {by_hand}")
        return
    did = next(iter(scripts.answers(printed).get("did", [])), "")
    if did == "kept":
        access.progress.say(f"{state.folder} at {request.where} is another state's now, and stays")
    elif did == "gone" and not request.host:
        access.progress.say(f"{ELSEWHERE}, and it may listen at {address} there")
    elif did not in {"stopped", "gone"}:
        access.progress.say(f"it could not be stopped: {there}; {by_hand}")


def _changed(state: RouterState, found: Facts) -> set[str]:
    """Name the files that are not what the state says."""
    asked = written(state)
    changed = {
        name
        for name, text in asked.files.items()
        if found.files.get(name) != hashlib.sha256(_ended(text).encode()).hexdigest()
    }
    if asked.digest != state.digest:
        # Another release has written them in another way: only their names can be compared.
        changed = set(asked.files) - set(found.files)
    return changed | ({config.CONFIGURATION, config.CERTIFICATE} - found.same)


def _ended(text: str) -> str:
    return text if text.endswith("\n") else f"{text}\n"


def _named(contracts: object) -> str:
    names = sorted(f"i{one}" for one in contracts)  # type: ignore[attr-defined]
    return ", ".join(names) or "none"
