"""Give the end of a machine to its own watch and to the market, which must never act first."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from components.core.errors import StackError
from components.core.progress import Progress
from components.machine.agent_answers import moment
from components.machine.ssh_types import FOLDER, HostAddress
from components.vast.errors import LeftRunning
from components.vast.instance_state import InstanceInputs, InstanceState
from components.vast.lifecycle import auto_shutdown, market_end
from components.vast.lifecycle.auto_shutdown import AutoShutdown
from components.vast.lifecycle.context import Context, MachineClient, progress_of
from components.vast.lifecycle.diff import lacks_market_end
from components.vast.lifecycle.market_end import FirstEnd, MarketEnd, MarketJob
from components.vast.lifecycle.remote_machine import RemoteMachine
from components.vast.rental.boot import Rented

if TYPE_CHECKING:
    from components.vast.api.client import VastApi


def first_end(api: VastApi, inputs: InstanceInputs, context: Context) -> FirstEnd | None:
    """Return the market's end of a machine while it boots, which may take all of its time."""
    wanted, clock, seconds = inputs.leash, context.clock, inputs.boot_minutes * 60
    if not wanted.market_end:
        return None

    def starts_at() -> float:
        return market_end.wanted(wanted, wanted.ends_at(clock.epoch() + seconds))

    return FirstEnd(api, progress_of(context), starts_at)


def tell_new_machine(
    machine: RemoteMachine, rented: Rented, wanted: AutoShutdown, api_url: str, context: Context
) -> float:
    """Tell a machine that was just rented or adopted how long it may live; return its end.

    An adopted machine may have received another limit when it was rented. So it receives the new
    limit in any case, even if it may live for ever. Its watch would otherwise keep the limit from
    its start script.

    Raises:
        LeftRunning: if the machine does not take the limit. The machine is in no state yet; the
            next `up` adopts it.
    """
    instance = rented.instance
    try:
        host = machine.client(instance)
        return _tell(host, wanted, api_url, context, always=rented.adopted)
    except StackError as error:
        raise LeftRunning(
            f"instance {instance.id} works and costs ${instance.dollars_per_hour:.2f}/h, and did "
            f"not take its time to live ({error}): run `pulumi up` to go on with it or "
            f"`pulumi destroy` to end it, or `vastai destroy instance {instance.id} -y`"
        ) from None


def arm_new_machine(
    api: VastApi, rented: Rented, wanted: AutoShutdown, ends_at: float, progress: Progress
) -> MarketJob:
    """Schedule the market's end of a new or newly adopted machine, if settings ask for it.

    Raises:
        LeftRunning: if the market does not take it. The machine is in no state yet; the next `up`
            adopts it.
    """
    starts_at, instance = market_end.wanted(wanted, ends_at), rented.instance
    own = MarketEnd(api, progress, instance.id)
    if not starts_at:
        if rented.adopted:
            # An earlier try, with other settings, may have scheduled an end.
            _disarm(own, progress)
        return market_end.NONE
    try:
        return own.arm(starts_at)
    except StackError as error:
        raise LeftRunning(
            f"instance {instance.id} works and costs ${instance.dollars_per_hour:.2f}/h, and "
            f"{error}; it ends itself all the same if its host lets it: run `pulumi up` to try "
            "again or, after that, to go on without, or `pulumi destroy`"
        ) from None


@dataclasses.dataclass(frozen=True)
class EndChange:
    """How a machine's end is changed. Moments are seconds since 1970."""

    latest: float
    """When it ends by the new rule at the latest; 0 for never."""
    market_first: Literal["disarm", "disarm unknown", "forget", "look", "arm", "keep"]
    """What the market has to do before the machine acts. `disarm unknown`: the state knows of no
    job, but an `up` that failed to read it back may have left one."""
    arm_from: float
    """When the market's job starts if `market_first` is `arm`, else 0."""
    tells_machine: bool


def plan_end(old: InstanceState, wanted: AutoShutdown, now: float) -> EndChange:
    """Decide how the end of a machine is changed, so that the market never comes first. Pure."""
    before, ends_at, job = old.inputs.leash, old.ends_itself_at, old.market_job
    # The machine started by now at the latest.
    latest = wanted.ends_at(before.began(ends_at) or now)
    is_later = not latest or latest > ends_at
    tells_machine = before.of_the_host() != wanted.of_the_host()
    if not market_end.wanted(wanted, latest):
        if before.market_end or job.number:
            return EndChange(latest, "disarm", 0.0, tells_machine)
        may_be_unknown = is_later and bool(ends_at)
        return EndChange(
            latest, "disarm unknown" if may_be_unknown else "forget", 0.0, tells_machine
        )
    if not ends_at:
        # The machine lives for ever until its watch has the end, so the watch comes first. But the
        # market has to answer before that.
        return EndChange(latest, "look", 0.0, tells_machine)
    if is_later or not job.number:
        starts_at = market_end.wanted(wanted, max(latest, ends_at))
        return EndChange(latest, "arm", starts_at, tells_machine)
    return EndChange(latest, "keep", 0.0, tells_machine)


def change_end(
    instance_id: int, old: InstanceState, new: InstanceState, context: Context
) -> InstanceState:
    """Give machine and market the new end.

    `new` has the new inputs, and the machine's address of this moment.

    Raises:
        MarketEndRefused, KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if the market refuses
            or does not confirm what must hold first. Nothing has changed then.
    """
    progress, wanted = progress_of(context), new.inputs.leash
    market = MarketEnd(context.market(), progress, instance_id)
    plan = plan_end(old, wanted, context.clock.epoch())
    job = _market_first(plan, market, old.market_job, progress)
    ends_at = old.ends_itself_at
    if plan.tells_machine:
        try:
            with _host(new, context) as host:
                told = _tell(host, wanted, context.market().url, context, always=True)
        except StackError:
            if job.number and not old.market_job.number:
                # No state would know of a job that is left.
                _disarm(market, progress)
            raise
        # A host's word may bring its end forward, and not put it off.
        ends_at = min(told, plan.latest)
    starts_at = market_end.wanted(wanted, ends_at)
    if starts_at and abs(job.starts_at - starts_at) >= 1:
        try:
            job = market.arm(starts_at)
        except StackError as error:
            progress.say(f"{error}; until then the market ends it later, or not at all")
    return dataclasses.replace(new, ends_itself_at=ends_at, market_job=job)


def read_back(api: VastApi, state: InstanceState, context: Context) -> MarketJob:
    """Read the market's end of a machine that should have one; report a difference."""
    instance_id = state.observed.instance_id
    if not market_end.wanted(state.inputs.leash, state.ends_itself_at):
        return state.market_job
    try:
        found = MarketEnd(api, progress_of(context), instance_id).look()
    except StackError as error:
        context.say(f"whether the market still ends instance {instance_id} is not known ({error})")
        return state.market_job
    if lacks_market_end(dataclasses.replace(state, market_job=found), state.inputs):
        context.say(
            f"the market has no end for instance {instance_id}, or another one than it was given "
            "(marketEnd): the next `pulumi up` gives it again"
        )
    return found


def disarm_what_is_gone(api: VastApi, instance_id: int, job: MarketJob, progress: Progress) -> None:
    """Take the market's job away when its machine is gone; what is left of it does no harm."""
    if job.number:
        _disarm(MarketEnd(api, progress, instance_id), progress)


def _market_first(
    plan: EndChange, market: MarketEnd, known: MarketJob, progress: Progress
) -> MarketJob:
    """Let the market act before the machine learns its new end.

    Raises:
        MarketEndRefused: if the market does not take it, or does not let it go.
        KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if the market does not say what it has.
    """
    match plan.market_first:
        case "disarm":
            return market.disarm()
        case "disarm unknown":
            return _disarm_unknown(market, progress)
        case "forget":
            return market_end.NONE
        case "look":
            return market.look()
        case "arm":
            return market.arm(plan.arm_from)
        case "keep":
            return known


def _disarm_unknown(market: MarketEnd, progress: Progress) -> MarketJob:
    """Remove a job that an earlier `up` may have left when it failed to read the job back."""
    try:
        found = market.look()
    except StackError as error:
        progress.say(f"whether the market ends the machine is not known ({error})")
        return market_end.NONE
    return market.disarm() if found.number else market_end.NONE


def _disarm(end: MarketEnd, progress: Progress) -> None:
    """Take the market's end of a machine away; a failure is reported and stops nothing."""
    try:
        end.disarm()
    except StackError as error:
        progress.say(str(error))


def _tell(
    host: MachineClient,
    wanted: AutoShutdown,
    api_url: str,
    context: Context,
    *,
    always: bool = False,
) -> float:
    """Push the limit to a machine's own watch; return when its time is over, 0 for never.

    Nothing restarts. A machine without a previous and a new limit is left alone, unless `always`. A
    host that reports a start in the future does not postpone its end.
    """
    if not (wanted or always):
        return 0.0
    progress = progress_of(context)
    host.put(auto_shutdown.pushed(wanted, api_url))
    script = f'sh "$HOME/{FOLDER}/{auto_shutdown.SCRIPT_NAME}"'
    printed = host.run(f"{script} start && {script} status").stdout
    status = dict(line.partition("=")[::2] for line in printed.splitlines())
    progress.say(f"the machine {auto_shutdown.describe(wanted)}")
    if wanted and "key" not in status:
        progress.say("but it has no key of its own (CONTAINER_API_KEY): it cannot end itself")
    first_start = moment(status.get("first_start", ""))
    now = context.clock.epoch()
    return wanted.ends_at(now if first_start is None else min(first_start, now))


def _host(state: InstanceState, context: Context) -> MachineClient:
    """Return the client of a machine of the state, held to its recorded host key."""
    address = HostAddress(state.observed.public_ip, state.observed.ssh_port)
    return context.host(address, state.inputs.private_key, known_host_key=state.host_key or None)
