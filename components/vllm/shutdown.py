"""The end of a server: its clients leave if a successor has taken over, then it stops.

Whatever the host does, the shutdown ends in time and without an error, since the machine is billed
until its own end. If the host does not answer, the machine's end stops the server.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from components.core.bounded import OutOfTime
from components.core.errors import StackError
from components.core.interruption import Interrupted
from components.core.progress import duration
from components.vllm import rollout
from components.vllm.drain import QUIET, QUIET_BEHIND_ROUTER, SUCCEEDED, until_quiet
from components.vllm.server_access import (
    COMMAND_SECONDS,
    MACHINE_STAYS,
    ServerAccess,
    run,
    supervise,
)
from components.vllm.server_state import ServerState


def shut_down(state: ServerState, access: ServerAccess) -> None:
    """Stop a server if its host still answers.

    A server with a successor or siblings first waits until its clients have left. A refresh's
    finding does not count here, since it may be old.

    Raises:
        Interrupted: somebody asked to end while clients were waited for.
    """
    limits = access.limits
    minutes = state.inputs.drain_minutes or 0
    has_siblings = state.inputs.rollout is not None
    rollout.ended(state.inputs, access)
    if minutes or has_siblings:
        _attempt("asking clients to leave", limits.host_look, lambda: _drain(state, access), access)
        seconds = minutes * 60 + limits.answer + limits.look_every
        seconds += (rollout.LONGEST_LOOK + limits.answer) * has_siblings
        _attempt("the wait for its clients", seconds, lambda: _wait(state, access), access)
        access.progress.go_on("the end of the previous endpoint", MACHINE_STAYS)
    seconds = limits.host_look if state.is_ready else limits.host_look / 2
    if not _attempt("a look at its host", seconds, lambda: _reach(state, access), access):
        return
    seconds = limits.stop if state.is_ready else limits.host_look
    if _attempt("the stop", seconds, lambda: _stop(state, access), access):
        access.progress.say("stopped")


def _attempt(what: str, seconds: float, call: Callable[[], object], access: ServerAccess) -> bool:
    """Ask a server that ends for a step; return whether the host did it, and raise nothing."""
    progress = access.progress
    try:
        access.meanwhile(f"{what} goes on", call, seconds)
    except OutOfTime:
        progress.say(f"{what} was given up after {duration(seconds)}: its host goes anyway")
    except Interrupted:
        # The caller reports the interruption, and the host stays.
        return False
    except Exception as error:  # noqa: BLE001  (nothing that a host does may keep it from its end)
        words = str(error) if isinstance(error, StackError) else type(error).__name__
        progress.say(f"{what} failed, its host goes anyway ({words})")
    else:
        return True
    return False


def _drain(state: ServerState, access: ServerAccess) -> None:
    """Ask balancers and clients to leave the server."""
    with access.host(state.target) as host:
        run(host, supervise("drain"), timeout=COMMAND_SECONDS)


def _wait(state: ServerState, access: ServerAccess) -> None:
    """Wait until no client asks any more, for `drain_minutes` at most."""
    endpoint = access.endpoint(state.inputs, state.ca_certificate)
    why, quiet = SUCCEEDED, QUIET
    if state.inputs.rollout is not None:
        why, quiet = rollout.TAKEN_OVER, QUIET_BEHIND_ROUTER
        rollout.until_seen(endpoint, 404, rollout.LEAVES, access)
    longest = (state.inputs.drain_minutes or 0) * 60
    ask = functools.partial(endpoint.traffic, state.api_key)
    until_quiet(ask, longest, access.clock, access.progress, why=why, quiet=quiet)


def _reach(state: ServerState, access: ServerAccess) -> None:
    with access.host(state.target) as host:
        host.status()


def _stop(state: ServerState, access: ServerAccess) -> None:
    with access.host(state.target) as host:
        run(host, supervise("stop"), timeout=access.limits.stop)
