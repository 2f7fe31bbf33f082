"""What becomes of an interruptible machine that was taken away: wait, bid more, or rent another.

A stopped machine whose bid still wins is started again (`contract_state.py`). Renting another one
is limited in tries and money within a day. Preemptions are recorded in the state of the stack's
finalizer, which outlives machines and processes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from components.core.clock import Clock
from components.core.progress import Progress, duration
from components.vast.contract_state import MarketState
from components.vast.errors import StillOutbid
from components.vast.labels import is_labelled

if TYPE_CHECKING:
    from components.vast.api.instances_api import InstancesApi
    from components.vast.api.locked_file import LockedJsonFile
    from components.vast.api.models import Instance

DAY = 86_400.0

POLL = 3.0
"""Seconds between two looks at a machine that waits for its GPUs."""

PREEMPTIONS_FILE = "losses.json"
"""Name in the account's shared folder; see `PreemptionLog`."""

Preemptions = dict[str, dict[str, float]]
"""By contract: when it was found outbid (`at`, seconds since 1970), and what it had cost ($)."""

Recorded = Mapping[str, Mapping[str, Any]]
"""Preemptions as a state has them."""

When = Literal["wait", "rebid", "rerent"]

Step = Literal["wait", "rebid", "rerent", "stuck"]
"""What the next `up` does; `stuck` waits too, because the limits of renting anew are reached."""


@dataclasses.dataclass(frozen=True)
class PreemptionPolicy:
    """What a stack wants done about a machine that was taken away."""

    when: When = "rerent"
    tries: int = 3
    """Machines lost within a day that are replaced."""
    dollars: float = 10.0
    """What they may have cost together."""

    @classmethod
    def from_bag(cls, bag: Mapping[str, Any]) -> PreemptionPolicy:
        """Read a property bag."""
        return cls(bag["when"], int(bag["tries"]), float(bag["dollars"]))

    def to_bag(self) -> dict[str, Any]:
        """Write a property bag."""
        return dataclasses.asdict(self)


class PreemptionLog:
    """Preemptions that were acted on, kept on this computer until the stack's next refresh.

    The finalizer and the machine are refreshed at the same time. A machine may be lost between the
    two looks. Then it is replaced before the finalizer has counted it, and is gone at the next
    refresh.
    """

    def __init__(self, file: LockedJsonFile, clock: Clock) -> None:
        """Keep the log in `file`, by `clock`."""
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

    def of(self, prefix: str, endpoint: str = "") -> Preemptions:
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


def record_preemptions(losses: Recorded, mine: Iterable[Instance], now: float) -> Preemptions:
    """Add which of `mine` are outbid to `losses`, each once; forget what is a day old.

    The status of `mine` is confirmed (`status_confirm.py`): a moment's state is no loss.
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


def next_step(policy: PreemptionPolicy, losses: Recorded) -> Step:
    """Decide what is done about a machine that is among `losses`."""
    if policy.when == "rerent" and limit_reached(policy, losses):
        return "stuck"
    return policy.when


def limit_reached(policy: PreemptionPolicy, losses: Recorded) -> str:
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


def describe_next_step(
    policy: PreemptionPolicy,
    losses: Recorded,
    bid: float | None,
    floor: float,
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
                f"no other machine is rented by itself ({limit_reached(policy, losses)}): raise "
                "that, or maxDollarsPerHour, set contract to on-demand, or `pulumi destroy`"
            )


def wait_until_back(
    api: InstancesApi,
    clock: Clock,
    progress: Progress,
    instance_id: int,
    *,
    ports: Iterable[str],
    seconds: float,
) -> Instance:
    """Return the machine when it runs again with its `ports` mapped.

    Raises:
        StillOutbid: if the machine does not run within `seconds`, with its cost meanwhile.
        Interrupted: somebody asked to end.
    """
    wanted = set(ports)
    deadline = clock.monotonic() + seconds
    while True:
        found = [one for one in api.instances(POLL) if one.id == instance_id]
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
