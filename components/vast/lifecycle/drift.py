"""What became of a machine since it was recorded, and what the next `pulumi up` does, in words.

Pure. Prices, ports and labels drift under a machine that goes on; one that is lost is replaced.
"""

from __future__ import annotations

from components.vast.api.models import LOST, Instance
from components.vast.contract_state import MarketState
from components.vast.instance_state import SSH_PORT, InstanceState
from components.vast.lifecycle import auto_shutdown
from components.vast.lifecycle.preemption import describe_next_step
from components.vast.market.ranking import choose_bid
from components.vast.quarantine import quarantine_reason

REPLACES = "the next `pulumi up` ends it and rents another machine"


def is_lost(status: str, intended_status: str) -> bool:
    """Whether a machine has to be replaced; one that reboots or loads comes back by itself."""
    return status in LOST or intended_status == "stopped"


def gone(state: InstanceState, now: float) -> str:
    """Say that a contract is not there any more, and why if that can be known."""
    observed = state.observed
    why = auto_shutdown.why_gone(
        state.inputs.leash, state.ends_itself_at, observed.contract_ends_at, now
    )
    return (
        f"instance {observed.instance_id} is gone: neither its own page nor the list knows it, and "
        f"its ${observed.hourly_cost:.2f}/h are not billed any more: {why}; the next `pulumi up` "
        "rents another machine"
    )


def drift(state: InstanceState, live: Instance, strays: list[Instance], now: float) -> list[str]:
    """Name each difference in a sentence; empty if all is as it was.

    `state` counts this machine among its losses if it is outbid. `now` is in seconds since 1970.
    """
    sentences = [
        _state(state, live),
        _address(state, live),
        _price(state, live),
        _label(state, live),
        _overdue(auto_shutdown.overdue_since(state.ends_itself_at, now), live),
        *(_orphan(stray, live) for stray in strays),
    ]
    return [f"instance {live.id} {sentence}" for sentence in sentences if sentence]


def _state(recorded: InstanceState, live: Instance) -> str:
    status = live.actual_status or "queued"
    disk = f"its disk is billed on at ${live.storage_dollars_per_hour:.3f}/h"
    if live.actual_status == "running" and live.intended_status != "stopped":
        return "" if recorded.observed.status == "running" else "runs again"
    if live.actual_status in {"offline", "unknown"}:
        return (
            f"has lost its host ({status}): nobody can reach it, its contract of "
            f"${live.dollars_per_hour:.2f}/h stands and bills its disk whenever the host is back; "
            f"{REPLACES}"
        )
    market_state = MarketState.of(live)
    if market_state.is_outbid:
        cap = recorded.inputs.cap
        storage = live.storage_dollars_per_hour
        bid = None if cap is None else choose_bid(live.min_bid, storage, cap)
        then = describe_next_step(
            recorded.inputs.outbid_policy, recorded.inputs.losses, bid, live.min_bid
        )
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


def _address(recorded: InstanceState, live: Instance) -> str:
    """Compare what is reached from outside; a machine that does not run has no ports at all."""
    if not live.ports:
        return ""
    last = recorded.observed
    before = (last.public_ip, last.ssh_port, last.host_port)
    now = (
        live.public_ip,
        live.ports.get(SSH_PORT, last.ssh_port),
        live.ports.get(recorded.inputs.served, last.host_port),
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


def _price(recorded: InstanceState, live: Instance) -> str:
    before, now = round(recorded.observed.hourly_cost, 4), round(live.dollars_per_hour, 4)
    if before == now or not now:
        return ""
    cap = recorded.inputs.cap
    above = f", which is above the cap of ${cap:.2f}/h" if cap is not None and now > cap else ""
    return (
        f"costs ${now:.2f}/h instead of ${before:.2f}/h{above}; the next `pulumi up` keeps it, "
        "`pulumi up --replace` with its URN takes another machine"
    )


def _label(recorded: InstanceState, live: Instance) -> str:
    why = quarantine_reason(live.label)
    if why:
        return (
            f"was marked unfit ({why}) when its server did not come up and costs "
            f"${live.dollars_per_hour:.2f}/h; {REPLACES}"
        )
    if live.label == recorded.label:
        return ""
    return (
        f"carries the label {live.label!r} instead of {recorded.label!r}, by which it would be "
        "found if the state were lost; the next `pulumi up` puts the label back"
    )


def _overdue(since: float, live: Instance) -> str:
    if not since:
        return ""
    ought = f"ought to have ended itself at {auto_shutdown.moment(since)} (timeToLiveHours)"
    if live.actual_status == "running":
        return (
            f"{ought} and costs ${live.dollars_per_hour:.2f}/h: its own watch failed or its clock "
            "is wrong; `pulumi destroy` ends it, and a longer timeToLiveHours keeps it"
        )
    return (
        f"{ought}, which a machine that does not run cannot do: its disk is billed on at "
        f"${live.storage_dollars_per_hour:.3f}/h until `pulumi destroy` or an `up` ends it"
    )


def _orphan(stray: Instance, live: Instance) -> str:
    return (
        f"is not alone: instance {stray.id} carries a label of the same resource and costs "
        f"${stray.dollars_per_hour:.2f}/h; the next `pulumi up` ends it and keeps {live.id}"
    )
