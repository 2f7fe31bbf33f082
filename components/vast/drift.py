"""What became of a machine since it was recorded, and what the next `pulumi up` does, in words.

Pure. Prices, ports and labels drift under a machine that goes on; one that is lost is replaced.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from components.core.property_bag import Properties
from components.vast import market, outbid
from components.vast.api.models import Instance
from components.vast.boot import LOST
from components.vast.lifecycle import auto_shutdown
from components.vast.unfit import why_unfit

REPLACES = "the next `pulumi up` ends it and rents another machine"


@dataclasses.dataclass(frozen=True)
class Recorded:
    """What the state knows of a machine."""

    status: str
    public_ip: str
    ssh_port: int
    host_port: int
    served: str
    """The container's port behind `host_port`, such as `8000/tcp`."""
    dollars_per_hour: float
    label: str
    """The one that it was rented with; empty in the state of an older release."""
    max_dollars_per_hour: float | None
    """The cap in $/h, if the state knows one."""
    policy: outbid.Policy = dataclasses.field(default_factory=outbid.Policy)
    losses: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    """Machines that were taken away within a day, this one among them."""
    overdue_since: float = 0.0
    """When it ought to have ended itself, in seconds since 1970; 0 if it ought not."""


def is_lost(status: str, intended_status: str) -> bool:
    """Whether a machine has to be replaced; one that reboots or loads comes back by itself."""
    return status in LOST or intended_status == "stopped"


def gone(instance_id: int, props: Properties, now: float) -> str:
    """Say that a contract is not there any more, and why if that can be known."""
    why = auto_shutdown.why_gone(
        auto_shutdown.Leash.read(props),
        float(props.get("ends_itself_at") or 0),
        float(props.get("contract_ends_at") or 0),
        now,
    )
    price = float(props.get("hourly_cost") or 0)
    return (
        f"instance {instance_id} is gone: neither its own page nor the list knows it, and its "
        f"${price:.2f}/h are not billed any more: {why}; the next `pulumi up` rents another machine"
    )


def drift(recorded: Recorded, live: Instance, strays: list[Instance]) -> list[str]:
    """Name each difference in a sentence; empty if all is as it was."""
    told = [
        _state(recorded, live),
        _address(recorded, live),
        _price(recorded, live),
        _label(recorded, live),
        _overdue(recorded, live),
        *(_stray(stray, live) for stray in strays),
    ]
    return [f"instance {live.id} {sentence}" for sentence in told if sentence]


def _state(recorded: Recorded, live: Instance) -> str:
    status = live.actual_status or "queued"
    disk = f"its disk is billed on at ${live.storage_dollars_per_hour:.3f}/h"
    if live.actual_status == "running" and live.intended_status != "stopped":
        return "" if recorded.status == "running" else "runs again"
    if live.actual_status in {"offline", "unknown"}:
        return (
            f"has lost its host ({status}): nobody can reach it, its contract of "
            f"${live.dollars_per_hour:.2f}/h stands and bills its disk whenever the host is back; "
            f"{REPLACES}"
        )
    market_state = outbid.MarketState.of(live)
    if market_state.is_outbid:
        cap = recorded.max_dollars_per_hour
        storage = live.storage_dollars_per_hour
        bid = None if cap is None else market.bid(live.min_bid, storage, cap)
        then = outbid.in_words(recorded.policy, recorded.losses, bid, live.min_bid)
        return (
            f"was outbid ({status}): an interruptible contract waits for its GPUs and {disk}; "
            f"{then}"
        )
    if market_state.is_stopped:
        return (
            f"is stopped ({status}), by the market or by hand: its bid of ${live.bid:.3f}/h still "
            f"reaches the ${live.min_bid:.3f}/h that wins, so it is not counted as outbid; {disk}; "
            "the next `pulumi up` keeps it, starts it and waits for it"
        )
    if is_lost(live.actual_status, live.intended_status):
        return (
            f"does not run ({status}, to be {live.intended_status or 'unknown'}) and {disk}: its "
            f"host stopped it, or somebody did, or the account has no credit; {REPLACES}"
        )
    return (
        f"is {status} and comes back by itself; the next `pulumi up` keeps it and waits until its "
        "server answers"
    )


def _address(recorded: Recorded, live: Instance) -> str:
    """Compare what is reached from outside; a machine that does not run has no ports at all."""
    if not live.ports:
        return ""
    before = (recorded.public_ip, recorded.ssh_port, recorded.host_port)
    now = (
        live.public_ip,
        live.ports.get("22/tcp", recorded.ssh_port),
        live.ports.get(recorded.served, recorded.host_port),
    )
    if before == now:
        return ""
    return (
        f"moved from {_place(before)} to {_place(now)}; the next `pulumi up` keeps it, and the "
        "endpoint's URL changes"
    )


def _place(address: tuple[str, int, int]) -> str:
    ip, ssh_port, host_port = address
    return f"{ip} (SSH {ssh_port}, server {host_port})"


def _price(recorded: Recorded, live: Instance) -> str:
    before, now = round(recorded.dollars_per_hour, 4), round(live.dollars_per_hour, 4)
    if before == now or not now:
        return ""
    cap = recorded.max_dollars_per_hour
    above = f", which is above the cap of ${cap:.2f}/h" if cap is not None and now > cap else ""
    return (
        f"costs ${now:.2f}/h instead of ${before:.2f}/h{above}; the next `pulumi up` keeps it, "
        "`pulumi up --replace` with its URN takes another machine"
    )


def _label(recorded: Recorded, live: Instance) -> str:
    why = why_unfit(live.label)
    if why:
        return (
            f"was marked unfit ({why}) when its server did not come up and costs "
            f"${live.dollars_per_hour:.2f}/h; {REPLACES}"
        )
    if not recorded.label or live.label == recorded.label:
        return ""
    return (
        f"carries the label {live.label!r} instead of {recorded.label!r}, by which it would be "
        "found if the state were lost; the next `pulumi up` puts the label back"
    )


def _overdue(recorded: Recorded, live: Instance) -> str:
    if not recorded.overdue_since:
        return ""
    end = auto_shutdown.moment(recorded.overdue_since)
    ought = f"ought to have ended itself at {end} (timeToLiveHours)"
    if live.actual_status == "running":
        return (
            f"{ought} and costs ${live.dollars_per_hour:.2f}/h: its own watch failed or its clock "
            "is wrong; `pulumi destroy` ends it, and a longer timeToLiveHours keeps it"
        )
    return (
        f"{ought}, which a machine that does not run cannot do: its disk is billed on at "
        f"${live.storage_dollars_per_hour:.3f}/h until `pulumi destroy` or an `up` ends it"
    )


def _stray(stray: Instance, live: Instance) -> str:
    return (
        f"is not alone: instance {stray.id} carries a label of the same resource and costs "
        f"${stray.dollars_per_hour:.2f}/h; the next `pulumi up` ends it and keeps {live.id}"
    )
