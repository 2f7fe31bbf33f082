"""A rental's life as a pure state machine over emulated time, and what each second of it costs.

`advance` carries a contract to a moment: it passes every change that falls due on the way at its
own time, charges each stretch by what was true in it, and names what the host has to do. Nothing
here waits, reads a clock or touches a process.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from emulator import images
from emulator.contract_types import RUNNING, STOPPED, Charge, Contract, Effect, Phase, Step
from emulator.market import DAY, HOUR

SCHEDULING = 1.0
"""Emulated seconds for which a new contract can be missing from reads (actual_status null)."""
CREATING = 2.0
STARTING = 2.0
STOPPING = 2.0
REBOOTING = 5.0
DESTROYING = 2.0
PREPARING = 10.0
"""Emulated seconds that a host takes beside the image's pull."""
LOADED = 1.0
"""Of a pull, the last emulated seconds, in which the image is said to be loaded."""
BILLED_AFTER_END = 120.0
"""Emulated seconds for which GPUs are billed on after a container was destroyed (measured: two
minutes in the middle, up to five)."""
KEPT_AFTER_END = 2 * DAY
"""How long a host keeps the disk of a contract that ended, or of an account without credit."""

FATAL_STATUS_MSG = (
    "Error response from daemon: failed to create task for container: failed to create shim task: "
    "OCI runtime create failed: could not apply required modification to OCI specification: error "
    "modifying OCI spec: failed to inject CDI devices: unresolvable CDI devices nvidia.com/gpu=0\n"
)


def open_contract(contract: Contract, now: float) -> Step:
    """Begin the life of a contract that was just rented."""
    opened = replace(contract, phase=Phase.NEW, due=now + SCHEDULING, charged_until=now)
    return Step(opened, (Effect.PREPARE,))


def advance(contract: Contract, now: float) -> Step:
    """Carry `contract` to `now`, change by change, each at the moment at which it falls due."""
    effects: list[Effect] = []
    charges: list[Charge] = []
    while contract.phase is not Phase.GONE:
        moment = _next_change(contract)
        horizon = now if moment is None else min(now, max(moment, contract.charged_until))
        contract, owed = _charge(contract, horizon)
        charges += owed
        if moment is None or moment > now:
            break
        step = _change(contract, horizon)
        contract = step.contract
        effects += step.effects
        charges += step.charges
    return Step(contract, tuple(effects), tuple(charges))


def stop(contract: Contract, now: float) -> Contract:
    """Ask for `stopped`: the GPUs go back to the market once the container is down."""
    wanted = replace(contract, intended=STOPPED, start_queued=False)
    if contract.phase in (Phase.STOPPED, Phase.DESTROYING, Phase.GONE, Phase.STOPPING):
        return wanted
    return replace(wanted, phase=Phase.STOPPING, due=now + STOPPING)


def start(contract: Contract, now: float, *, gpus_free: bool) -> Contract:
    """Ask for `running`. Without free GPUs the start stays queued and may happen much later."""
    wanted = replace(contract, intended=RUNNING)
    if contract.ended or contract.phase not in (Phase.STOPPED, Phase.EXITED):
        return wanted
    if not gpus_free:
        return replace(wanted, start_queued=True)
    begun = replace(wanted, start_queued=False, reads_stopped=False, parked=False)
    if contract.pulled_bytes < contract.image_bytes:
        return _load(begun, now)
    return replace(begun, phase=Phase.STARTING, due=now + STARTING, status_msg=None)


def reboot(contract: Contract, now: float) -> Step:
    """Docker stop and start: the GPUs and the disk stay."""
    if contract.phase not in (Phase.RUNNING, Phase.EXITED):
        return Step(contract)
    moved = replace(contract, phase=Phase.REBOOTING, due=now + REBOOTING, intended=RUNNING)
    return Step(moved, (Effect.KILL,))


def recycle(contract: Contract, now: float) -> Step:
    """Pull the image anew and make the container again in place: its disk content is lost."""
    if contract.phase not in (Phase.RUNNING, Phase.EXITED, Phase.FAILED):
        return Step(contract)
    moved = replace(
        contract, phase=Phase.RECYCLING, due=now + REBOOTING, intended=RUNNING, pulled_bytes=0.0
    )
    return Step(moved, (Effect.KILL, Effect.WIPE))


def outbid(
    contract: Contract,
    now: float,
    *,
    floor: float,
    seconds: float | None = None,
    older: bool = False,
) -> Step:
    """Take the GPUs from an interruptible contract; its disk stays billed.

    As it was measured in 2026, it then reads as one that its owner stopped: `exited`, and intended,
    current and next state `stopped`, with the message that it had; the intended state is ahead by
    a tick. With `older` it is to run and reads `stopped`, as older clients remember it.
    It starts by itself when its bid wins again. `floor` is the $/h that the next bid has to reach;
    after `seconds` it is the old one again.
    """
    falls_at = None if seconds is None else now + seconds
    beaten = replace(
        contract,
        later_floor=contract.min_bid,
        floor_falls_at=falls_at,
        min_bid=floor,
        start_queued=True,
        reads_stopped=older,
    )
    if not older:
        return Step(replace(beaten, phase=Phase.STOPPING, due=now + STOPPING, intended=STOPPED))
    stopped = replace(
        beaten,
        phase=Phase.STOPPED,
        due=falls_at,
        running_since=None,
        ports={},
        status_msg=f"outbid at {now:.0f}\n",
    )
    return Step(stopped, (Effect.KILL,))


def container_exits(contract: Contract, now: float, *, seconds: float | None) -> Step:
    """Let the container end: its contract runs on, and after `seconds` the container does again."""
    moved = replace(
        contract,
        phase=Phase.EXITED,
        due=None if seconds is None else now + seconds,
        running_since=None,
    )
    return Step(moved, (Effect.KILL,))


def host_lost(contract: Contract, now: float, *, seconds: float) -> Step:
    """Take the host off the network for `seconds`; nothing is billed until it is back."""
    return Step(replace(contract, offline_until=now + seconds), (Effect.KILL,))


def destroy(contract: Contract, now: float) -> Contract:
    """End the contract; it stays listed for a moment, as the real one does."""
    if contract.phase in (Phase.DESTROYING, Phase.GONE):
        return contract
    return replace(
        contract,
        phase=Phase.DESTROYING,
        due=now + DESTROYING,
        intended=STOPPED,
        start_queued=False,
    )


def exited(contract: Contract, now: float) -> Contract:
    """The container's main process (runtype args) ended by itself."""
    charged, _ = _charge(contract, now)
    return replace(
        charged, phase=Phase.EXITED, due=None, running_since=None, status_msg="container exited\n"
    )


def actual_status(contract: Contract) -> str | None:
    """Return the API's actual_status: null, created, loading, running, exited, ..."""
    if contract.offline_until is not None:
        return "offline"
    shown: dict[Phase, str | None] = {
        Phase.NEW: None,
        Phase.CREATED: "created",
        Phase.LOADING: "loading",
        Phase.STARTING: "exited",  # the docs: it may read `exited` for some time after a start
        Phase.RUNNING: "running",
        Phase.STOPPING: "running" if contract.container_up else "loading",
        Phase.STOPPED: "stopped" if contract.reads_stopped else "exited",
        Phase.EXITED: "exited",
        Phase.REBOOTING: "rebooting",
        Phase.RECYCLING: "recycling",
        Phase.FAILED: str(contract.faults.get("fatal_status", {}).get("status", "created")),
        Phase.DESTROYING: "exited",
        Phase.GONE: None,
    }
    return shown[contract.phase]


def _next_change(contract: Contract) -> float | None:
    moments = [contract.due, contract.offline_until]
    if contract.ended:
        moments.append(contract.end_date + KEPT_AFTER_END)
    else:
        moments.append(contract.end_date)
    if contract.phase is Phase.DESTROYING:
        return contract.due
    return min((moment for moment in moments if moment is not None), default=None)


def _change(contract: Contract, now: float) -> Step:
    if contract.phase is not Phase.DESTROYING:
        if contract.offline_until is not None and contract.offline_until <= now:
            back = replace(contract, offline_until=None)
            return Step(back, (Effect.START,) if back.container_up else ())
        if contract.ended and contract.end_date + KEPT_AFTER_END <= now:
            return Step(destroy(contract, now))
        if not contract.ended and contract.end_date <= now:
            return Step(stop(replace(contract, ended=True), now))
    return _PHASE_ENDS[contract.phase](contract, now)


def _scheduled(contract: Contract, now: float) -> Step:
    if contract.parked:
        return Step(replace(contract, phase=Phase.STOPPED, due=None))
    return Step(replace(contract, phase=Phase.CREATED, due=now + CREATING))


def _created(contract: Contract, now: float) -> Step:
    if contract.intended == STOPPED:
        return Step(stop(contract, now))
    if "fatal_status" in contract.faults:
        return Step(_fail(contract, contract.faults["fatal_status"], FATAL_STATUS_MSG))
    if "image_denied" in contract.faults:
        denied = (
            f"Error response from daemon: pull access denied for {contract.image}, repository does "
            "not exist or may require 'docker login'\n"
        )
        return Step(_fail(contract, contract.faults["image_denied"], denied))
    if images.is_unknown(contract.image):
        unknown = (
            f"Error response from daemon: manifest for {contract.image} not found: manifest "
            "unknown: manifest unknown\n"
        )
        return Step(_fail(contract, {}, unknown))
    return Step(_load(contract, now))


def _load(contract: Contract, now: float) -> Contract:
    stuck = contract.faults.get("stuck_loading")
    until = None if stuck is not None else now + contract.pull_seconds - LOADED
    pulling = f"Pulling from {contract.image.partition(':')[0]}\n"
    said = pulling if stuck is None else str(stuck.get("msg", pulling))
    return replace(contract, phase=Phase.LOADING, due=until, status_msg=said)


def _loaded(contract: Contract, now: float) -> Step:
    """The image is there: it is said so for a moment, and then the container starts."""
    said = f"Successfully loaded {contract.image}\n"
    if contract.status_msg == said:
        return _up(contract, now)
    there = replace(contract, pulled_bytes=contract.image_bytes)
    return Step(replace(there, status_msg=said, due=now + LOADED))


def _up(contract: Contract, now: float) -> Step:
    family = contract.runtype.split("_")[0].split()[0]
    moved = replace(
        contract,
        phase=Phase.RUNNING,
        due=None,
        running_since=now,
        status_msg=f"success, running {contract.image}/{family}\n",
    )
    return Step(moved, (Effect.START,))


def _down(contract: Contract, now: float) -> Step:
    falls_at = contract.floor_falls_at
    due = None if falls_at is None else max(now, falls_at)
    moved = replace(contract, phase=Phase.STOPPED, due=due, running_since=None, ports={})
    return Step(moved, (Effect.KILL,))


def _cheap_again(contract: Contract, now: float) -> Step:
    del now
    floor = contract.min_bid if contract.later_floor is None else contract.later_floor
    return Step(replace(contract, due=None, floor_falls_at=None, min_bid=floor))


def _recycled(contract: Contract, now: float) -> Step:
    return Step(_load(replace(contract, ports={}), now))


def _destroyed(contract: Contract, now: float) -> Step:
    moved = replace(contract, phase=Phase.GONE, due=None, running_since=None, ports={})
    return Step(moved, (Effect.KILL, Effect.REMOVE), _tail(contract, now))


def _tail(contract: Contract, now: float) -> tuple[Charge, ...]:
    """What is billed for the GPUs of a container that ran when it was destroyed.

    At one moment, since the next tenant of the same label may be billed by then.
    """
    if contract.running_since is None or contract.offline_until is not None:
        return ()
    amount = BILLED_AFTER_END * contract.gpu_per_hour / HOUR
    return (Charge(contract.id, "gpu", now, now, BILLED_AFTER_END, amount),)


def _fail(contract: Contract, params: dict[str, Any], text: str) -> Contract:
    return replace(
        contract,
        phase=Phase.FAILED,
        due=None,
        intended=STOPPED,
        status_msg=str(params.get("msg", text)),
    )


_PHASE_ENDS = {
    Phase.NEW: _scheduled,
    Phase.CREATED: _created,
    Phase.LOADING: _loaded,
    Phase.STARTING: _up,
    Phase.STOPPING: _down,
    Phase.STOPPED: _cheap_again,
    Phase.EXITED: _up,
    Phase.REBOOTING: _up,
    Phase.RECYCLING: _recycled,
    Phase.DESTROYING: _destroyed,
}


def _charge(contract: Contract, until: float) -> tuple[Contract, list[Charge]]:
    """Charge the stretch from the last charge to `until`, in which nothing changed."""
    since = contract.charged_until
    seconds = until - since
    if seconds <= 0:
        return contract, []
    charged = replace(contract, charged_until=until)
    if contract.offline_until is not None:
        return charged, []
    owed = [_by_time(contract, "disk", since, until, contract.storage_per_hour)]
    if contract.phase in (Phase.RUNNING, Phase.STOPPING) and contract.running_since is not None:
        owed.append(_by_time(contract, "gpu", since, until, contract.gpu_per_hour))
    if contract.phase is Phase.LOADING and contract.pulled_bytes < contract.image_bytes:
        rate = contract.image_bytes / (contract.pull_seconds - LOADED)
        pulled = min(contract.image_bytes - contract.pulled_bytes, rate * seconds)
        charged = replace(charged, pulled_bytes=contract.pulled_bytes + pulled)
        owed.append(traffic_charge(contract, "bwd", pulled, since, until))
    return charged, owed


def traffic_charge(
    contract: Contract, kind: str, count: float, since: float, until: float
) -> Charge:
    """Charge `count` bytes in direction `kind` (bwd down, bwu up) at the contract's price."""
    price = contract.inet_down_cost if kind == "bwd" else contract.inet_up_cost
    return Charge(contract.id, kind, since, until, count, count / 1e9 * price)


def _by_time(contract: Contract, kind: str, since: float, until: float, per_hour: float) -> Charge:
    seconds = until - since
    return Charge(contract.id, kind, since, until, seconds, seconds * per_hour / HOUR)
