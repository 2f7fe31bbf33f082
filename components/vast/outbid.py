"""What becomes of an interruptible machine that was taken away: wait, bid more, or rent another.

The market gives a machine that was outbid the states of one that its owner stopped: `exited`, and
intended, current and next state `stopped` (marketplace-facts, 1). This project never stops a
machine. So a stopped interruptible machine was outbid, unless its bid still wins: then the market
took it for a tenant on demand, or somebody stopped it by hand, and it is started again.

Renting another one is limited in tries and money within a day. What was lost is noted in the
state of the stack's lease, which outlives machines and processes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Protocol

from components.core.clock import Clock
from components.core.progress import Progress, duration
from components.vast.api.locked_file import LockedJsonFile
from components.vast.api.models import Instance
from components.vast.errors import StillOutbid
from components.vast.labels import is_labelled

DAY = 86_400.0

POLL = 3.0
"""Seconds between two looks at a machine that waits for its GPUs."""

LOSSES = "losses.json"
"""Name of the note's file in the account's shared folder; see `LossNote`."""

Losses = dict[str, dict[str, float]]
"""By contract: when it was found outbid (`at`, seconds since 1970), and what it had cost ($)."""

When = Literal["wait", "rebid", "rerent"]

Step = Literal["wait", "rebid", "rerent", "stuck"]
"""What the next `up` does; `stuck` waits too, because the limits of renting anew are reached."""


class Contracts(Protocol):
    """The call of `VastApi` that waiting makes."""

    def instances(self, max_age: float = 0.0) -> list[Instance]:
        """See `VastApi.instances`."""


@dataclasses.dataclass(frozen=True)
class Policy:
    """What a stack wants done about a machine that was taken away."""

    when: When = "rerent"
    tries: int = 3
    """Machines lost within a day that are replaced."""
    dollars: float = 10.0
    """What they may have cost together."""

    @classmethod
    def from_bag(cls, bag: Mapping[str, Any]) -> Policy:
        """Read a property bag."""
        return cls(bag["when"], int(bag["tries"]), float(bag["dollars"]))

    def to_bag(self) -> dict[str, Any]:
        """Write a property bag."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class MarketState:
    """What a contract's states and its bid say of a stop. Prices are $/h for the GPUs alone."""

    interruptible: bool
    actual_status: str
    intended_status: str
    current_state: str
    next_state: str
    bid: float
    """0 if it is not known."""
    min_bid: float

    @classmethod
    def of(cls, instance: Instance) -> MarketState:
        """Read a row of the market."""
        return cls(
            instance.interruptible,
            instance.actual_status,
            instance.intended_status,
            instance.current_state,
            instance.next_state,
            instance.bid,
            instance.min_bid,
        )

    @property
    def is_stopped(self) -> bool:
        """Whether an interruptible machine is stopped, by the market or by hand.

        A container that crashed or reboots is `exited` as well, but its contract runs on. The
        status of the container itself may lag for minutes.
        """
        if not self.interruptible or self.actual_status in {"offline", "unknown"}:
            return False
        if self.intended_status == "stopped":
            return self.next_state == "stopped"
        # To run, and without its GPUs: as older clients remember it, or started and queued.
        queued = self.current_state == "stopped" and self.next_state == "running"
        waits = self.actual_status == "stopped" or (self.actual_status == "exited" and queued)
        return self.intended_status == "running" and waits

    @property
    def is_stopping(self) -> bool:
        """Whether it may be stopped at the next look: the intended state is ahead by a tick."""
        wanted = {self.intended_status, self.next_state}
        return self.interruptible and not self.is_stopped and "stopped" in wanted

    @property
    def is_outbid(self) -> bool:
        """Whether it is stopped and its bid does not win any more."""
        return self.is_stopped and not self.still_wins

    @property
    def still_wins(self) -> bool:
        """Whether its bid reaches what wins now; one that is not known does not."""
        return bool(self.bid) and self.bid >= self.min_bid


class LossNote:
    """Losses that were acted on, kept on this computer until the lease's next refresh.

    The lease and the machine are refreshed at the same time. A machine that is taken away between
    the two looks is replaced without the lease having counted it, and is gone at the next refresh.
    """

    def __init__(self, file: LockedJsonFile, clock: Clock) -> None:
        """Keep the note in `file`, by `clock`."""
        self._file = file
        self._clock = clock

    def add(self, label_prefix: str, contract: str, loss: Mapping[str, Any]) -> None:
        """Note what was lost for a resource, by its `label_prefix` (`<project>/<stack>/<name>/`).

        Raises:
            NoSharedFolder: if it cannot be written.
        """
        with self._file.lock() as content:
            young = {
                known: noted
                for known, noted in content.values.items()
                if self._clock.epoch() - float(noted["at"]) < DAY
            }
            content.values = {**young, contract: {**loss, "stack": label_prefix}}
            content.save()

    def of(self, prefix: str, endpoint: str = "") -> Losses:
        """Return what was noted for an endpoint; see `labels.is_labelled`.

        Raises:
            NoSharedFolder: if it cannot be read.
        """
        with self._file.lock() as content:
            return {
                contract: {"at": float(noted["at"]), "dollars": float(noted["dollars"])}
                for contract, noted in content.values.items()
                if _is_of(str(noted.get("stack")), prefix, endpoint)
            }


def _is_of(noted: str, prefix: str, endpoint: str) -> bool:
    # A note from an older release names the stack alone, which had one endpoint.
    return noted == prefix or is_labelled(noted, prefix, endpoint)


def noted(losses: Mapping[str, Mapping[str, Any]], mine: Iterable[Instance], now: float) -> Losses:
    """Add which of `mine` are outbid to what was lost, each once; forget what is a day old.

    `mine` were looked at twice (`second_look.py`): a moment's state is no loss.
    """
    known = {
        contract: {"at": float(loss["at"]), "dollars": float(loss["dollars"])}
        for contract, loss in losses.items()
        if now - float(loss["at"]) < DAY
    }
    for one in mine:
        if MarketState.of(one).is_outbid and str(one.id) not in known:
            # A contract may have no start yet: it has cost nothing then.
            hours = max(0.0, now - (one.started_at or now)) / 3600
            known[str(one.id)] = {"at": now, "dollars": round(hours * one.dollars_per_hour, 2)}
    return known


def next_step(policy: Policy, losses: Mapping[str, Mapping[str, Any]]) -> Step:
    """Decide what is done about a machine that is among `losses`."""
    if policy.when == "rerent" and used_up(policy, losses):
        return "stuck"
    return policy.when


def used_up(policy: Policy, losses: Mapping[str, Mapping[str, Any]]) -> str:
    """Say which limit of renting anew is reached, or nothing."""
    dollars = sum(float(loss["dollars"]) for loss in losses.values())
    if len(losses) > policy.tries:
        return f"{len(losses)} machines were lost within a day and rerentTries is {policy.tries}"
    if dollars > policy.dollars:
        return (
            f"machines lost within a day cost up to ${dollars:.2f} and rerentDollars is "
            f"{policy.dollars:.2f}"
        )
    return ""


def in_words(
    policy: Policy, losses: Mapping[str, Mapping[str, Any]], bid: float | None, floor: float
) -> str:
    """Say what the next `up` does; `bid` ($/h) is what `rebid` would bid, None above the cap."""
    match next_step(policy, losses):
        case "rerent":
            left = policy.tries - len(losses)
            return (
                "the next `pulumi up` ends it and rents another machine (whenOutbid is rerent; "
                f"after that {max(0, left)} more within a day)"
            )
        case "rebid" if bid is not None:
            return (
                f"the next `pulumi up` raises the bid to ${bid:.3f}/h for its GPUs (whenOutbid is "
                "rebid) and waits until it runs"
            )
        case "rebid":
            return (
                f"it takes ${floor:.3f}/h for its GPUs to win it back, which maxDollarsPerHour "
                "does not allow: raise that, or set whenOutbid to rerent or wait"
            )
        case "wait":
            return "the next `pulumi up` keeps it and waits for its GPUs (whenOutbid is wait)"
        case _:
            return (
                f"no other machine is rented by itself ({used_up(policy, losses)}): raise that, or "
                "maxDollarsPerHour, set contract to on-demand, or `pulumi destroy`"
            )


def wait_until_back(
    contracts: Contracts,
    clock: Clock,
    progress: Progress,
    instance_id: int,
    *,
    ports: Iterable[str],
    seconds: float,
) -> Instance:
    """Return the machine when it runs again with its `ports` mapped.

    Raises:
        StillOutbid: if it does not within `seconds`, with what it costs meanwhile.
        Interrupted: somebody asked to end.
    """
    wanted = set(ports)
    deadline = clock.monotonic() + seconds
    while True:
        found = [one for one in contracts.instances(POLL) if one.id == instance_id]
        for one in found:
            state = MarketState.of(one)
            runs = one.actual_status == "running" and not (state.is_stopped or state.is_stopping)
            if runs and wanted <= set(one.ports):
                progress.say(f"instance {instance_id} has its GPUs back")
                return one
        if not found or clock.monotonic() >= deadline:
            raise StillOutbid(
                f"instance {instance_id} did not get its GPUs back within {duration(seconds)}; "
                f"{_meanwhile(found)}; run `pulumi up` again later, set whenOutbid to rebid or "
                "rerent, take another machine by `pulumi up --replace` with its URN, or "
                "`pulumi destroy`"
            )
        progress.go_on(f"the wait for the GPUs of instance {instance_id}", _meanwhile(found))
        progress.waiting(f"instance {instance_id} waits for its GPUs; {_meanwhile(found)}")
        clock.sleep(POLL)


def _meanwhile(found: list[Instance]) -> str:
    if not found:
        return "it is not listed any more"
    return f"its disk is billed on at ${found[0].storage_dollars_per_hour:.3f}/h"
