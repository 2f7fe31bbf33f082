"""Where a command is, told by what it has asked of the account and left on the rented host.

A moment is named, not timed: the account's request log and the files in the container say when it
has come. `OF_UP`, `OF_REPLACING` and `OF_DESTROY` name every moment of a command at which somebody
could die, and `uncovered` finds a call that none of them strikes at; the others name what is
different where a machine is replaced for another reason, or beside the old one.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from components.router.config import CONFIGURATION
from tests.faults.world import Running, World
from tests.helpers.polling import eventually

WITHIN = 120.0
"""Seconds in which a moment comes, counted from the one before."""

LOOK_EVERY = 0.05
"""Seconds between two looks: each is a call or two to an emulator that has others to answer."""


@dataclasses.dataclass(frozen=True)
class Sight:
    """What is to be seen, at one look, of a command that began after call number `since`."""

    world: World
    since: int

    @functools.cached_property
    def calls(self) -> list[dict[str, Any]]:
        """Its calls so far, those that reached the account."""
        return self.world.account.requests(self.since)

    @functools.cached_property
    def alive(self) -> list[dict[str, Any]]:
        """The stack's contracts, the newest one last."""
        return self.world.account.alive()

    def new(self) -> dict[str, Any] | None:
        """The contract that it has rented, if it lives."""
        rented = any(_is_rent(row) for row in self.calls)
        return self.alive[-1] if rented and self.alive else None

    def file(self, name: str, *, oldest: bool = False) -> Path | None:
        """A file below the HOME of the newest container, or of the oldest."""
        if not self.alive:
            return None
        id_ = self.alive[0 if oldest else -1]["id"]
        place = self.world.account.home / "containers" / str(id_) / "root" / name
        return place if place.exists() else None


Seen = Callable[[Sight], bool]


def _called(method: str, part: str) -> Seen:
    return lambda sight: any(_is(call, method, part) for call in sight.calls)


def _looked_after(method: str, part: str) -> Seen:
    def seen(sight: Sight) -> bool:
        calls = sight.calls
        first = next((i for i, one in enumerate(calls) if _is(one, method, part)), None)
        return first is not None and any(_is_look(one) for one in calls[first + 1 :])

    return seen


def _on_the_new_host(name: str, text: str = "") -> Seen:
    def seen(sight: Sight) -> bool:
        if sight.new() is None:
            return False
        file = sight.file(name)
        return file is not None and (not text or text in file.read_text(errors="replace"))

    return seen


def _runs(sight: Sight) -> bool:
    new = sight.new()
    return new is not None and new["actual_status"] == "running"


def _hosts(sight: Sight) -> list[Path]:
    """What was pushed to each host, by contract, the oldest first."""
    homes = sight.world.account.home / "containers"
    return [homes / str(one["id"]) / "root/serving" for one in sight.alive]


def _one_drains(sight: Sight) -> bool:
    """Whether a server has left the router, and none has the change yet."""
    return bool(_draining(_hosts(sight))) and not _changed(sight)


def _one_restarts(sight: Sight) -> bool:
    """Whether a server starts with the change, out of the router."""
    return bool(_draining(_changed(sight)))


def _the_next_drains(sight: Sight) -> bool:
    """Whether one has come back with the change, and another one has left."""
    changed = _changed(sight)
    others = [host for host in _hosts(sight) if host not in changed]
    return bool(changed) and not _draining(changed) and bool(_draining(others))


def _changed(sight: Sight) -> list[Path]:
    """The hosts that have the option which the last change asks for."""
    option = f"max-num-seqs: {sight.world.sequences}\n"
    return [host for host in _hosts(sight) if option in (host / "serve.yaml").read_text()]


def _draining(hosts: list[Path]) -> list[Path]:
    return [host for host in hosts if (host / "draining").exists()]


def _leaving_drains(sight: Sight) -> bool:
    """Whether a server has left the router for good; which one, its contract's number cannot say.

    Machines that were rented at once have their contracts in any order.
    """
    return bool(_draining(_hosts(sight)))


def _leaving_stops(sight: Sight) -> bool:
    return any((host / "state/stopped").exists() for host in _hosts(sight))


def _router_changes(sight: Sight) -> bool:
    """Whether the router's folder has a file that is newer than the command."""
    began = sight.world.stack.began
    return any(file.stat().st_mtime > began for file in sight.world.routers.rglob(CONFIGURATION))


def _rehearses(sight: Sight, *phases: str) -> bool:
    """Whether the newest host's rehearsal is in one of these phases, or past them."""
    file = None if sight.new() is None else sight.file("serving/state/rehearsal_phase")
    return file is not None and file.read_text().split()[0] in phases


def _rehearsal_begins(sight: Sight) -> bool:
    return _rehearses(sight, "running", *_OVER)


def _rehearsal_is_over(sight: Sight) -> bool:
    return _rehearses(sight, *_OVER)


def _stopped_before_its_end(sight: Sight) -> bool:
    return sight.file("serving/state/stopped", oldest=True) is not None


def _gone(sight: Sight) -> bool:
    return _called("DELETE", ONE)(sight) and not sight.alive


def _marked(sight: Sight) -> bool:
    """Its label is changed: no other call of this kind names a contract and nothing else."""
    return any(_is(call, "PUT", ONE) and not _is(call, "PUT", LOG) for call in sight.calls)


def _swept(sight: Sight) -> bool:
    """The list is asked for once more after the state has forgotten the instance."""
    return not sight.world.stack.instance_ids() and _is_look(sight.calls[-1])


LIST = "/api/v1/instances"
ONE = "/api/v0/instances/"
LOG = "/api/v0/instances/request_logs/"

_OVER = ("served", "ended", "failed")

MOMENTS: dict[str, Seen] = {
    "the look at what is there": _called("GET", LIST),
    "the mark": _marked,
    "the search": _called("POST", "/bundles"),
    "the look at the credit": _called("GET", "/users/current"),
    "the rent call": _called("PUT", "/asks/"),
    "the first look at it": _looked_after("PUT", "/asks/"),
    "its container runs": _runs,
    "the look at its log": _called("PUT", LOG),
    "its scripts are there": _on_the_new_host("serving/supervise.sh"),
    "its configuration is there": _on_the_new_host("serving/model.env"),
    "its supervisor runs": _on_the_new_host("serving/state/supervisor"),
    "its weights come": _on_the_new_host("huggingface"),
    "its rehearsal begins": _rehearsal_begins,
    "it holds the GPUs": _on_the_new_host("serving/rehearsal.log", "backend=nccl"),
    "its rehearsal is over": _rehearsal_is_over,
    "vLLM starts": _on_the_new_host("serving/vllm.log"),
    "vLLM is up": _on_the_new_host("serving/vllm.log", "Application startup complete"),
    "the old server stops": _stopped_before_its_end,
    "the destroy call": _called("DELETE", ONE),
    "the look behind it": _looked_after("DELETE", ONE),
    "the contract is gone": _gone,
    "the sweep": _swept,
    "the router changes": _router_changes,
    "the leaving one drains": _leaving_drains,
    "the leaving one stops": _leaving_stops,
    "one drains": _one_drains,
    "one restarts": _one_restarts,
    "the next drains": _the_next_drains,
}

OF_SCALE_OUT = (
    "the rent call",
    "its container runs",
    "its supervisor runs",
    "vLLM is up",
    "the router changes",
)
OF_SCALE_IN = (
    "the router changes",
    "the leaving one drains",
    "the leaving one stops",
    "the destroy call",
    "the look behind it",
)
OF_ROLLOUT = ("one drains", "one restarts", "the next drains")
OF_REPLACING_ALL = (
    "the rent call",
    "vLLM is up",
    "the router changes",
    "the leaving one drains",
    "the destroy call",
)

_FROM_RENT_ON = (
    "the rent call",
    "the first look at it",
    "its container runs",
    "the look at its log",
    "its scripts are there",
    "its configuration is there",
    "its supervisor runs",
    "its weights come",
    "vLLM starts",
    "vLLM is up",
)
_UP_TO_GONE = (
    "the old server stops",
    "the destroy call",
    "the look behind it",
    "the contract is gone",
)

_BEFORE = ("the look at what is there", "the search", "the look at the credit")

OF_UP = (*_BEFORE, *_FROM_RENT_ON)
OF_REPLACING = (*_BEFORE, *_UP_TO_GONE, *_FROM_RENT_ON)
OF_DESTROY = ("the look at what is there", *_UP_TO_GONE, "the sweep")
OF_CREATE_FIRST = (
    "the rent call",
    "its container runs",
    "its supervisor runs",
    "vLLM is up",
    "the old server stops",
    "the destroy call",
    "the look behind it",
)
OF_RERENTING = ("the destroy call", "the look behind it", "the rent call", "its supervisor runs")
OF_MARKING = ("the mark",)
OF_REHEARSING = ("its rehearsal begins", "it holds the GPUs", "its rehearsal is over")
OF_REFUSED = ("the rent call", "the destroy call", "the look behind it")

CALLS = {
    ("POST", "bundles"),
    ("GET", "users/current"),
    ("GET", "instances"),
    ("GET", "instances/pending-price-increases"),
    ("PUT", "asks"),
    ("PUT", "instances/request_logs"),
    ("DELETE", "instances"),
}
"""Every call that a moment is made of."""


def when(world: World, running: Running, moment: str, since: int) -> None:
    """Return as soon as a command that began after call number `since` is at this moment.

    Raises:
        AssertionError: if the command ended before.
    """
    seen = MOMENTS[moment]

    def look() -> bool:
        here = _is_at(Sight(world, since), seen)
        assert here or not running.ended(), f"it ended before {moment!r}:\n{running.output()}"
        return here

    eventually(look, within=WITHIN, every=LOOK_EVERY)


def uncovered(calls: list[dict[str, Any]]) -> list[str]:
    """Calls of an undisturbed run that no moment is made of."""
    return [
        f"{call['method']} {call['path']}"
        for call in calls
        # A log that was asked for lies at an address of its own, outside of the API.
        if call["path"].startswith("/api/") and (call["method"], _kind(call["path"])) not in CALLS
    ]


def _is_at(sight: Sight, seen: Seen) -> bool:
    try:
        return seen(sight)
    except (httpx.TransportError, OSError, ValueError, IndexError):
        return False  # in between the container went, or the state is being written


def _kind(path: str) -> str:
    """What a call is about, whichever version of the API and whichever number it names."""
    return "/".join(word for word in path.strip("/").split("/")[2:] if not word.isdigit())


def _is(call: dict[str, Any], method: str, part: str) -> bool:
    return bool(call["method"] == method and part in call["path"] and call["status"] < 400)


def _is_rent(call: dict[str, Any]) -> bool:
    return _is(call, "PUT", "/asks/")


def _is_look(call: dict[str, Any]) -> bool:
    return _is(call, "GET", "/instances")
