"""What is done about a machine that stays: inputs it takes over, and what a refresh found."""

from __future__ import annotations

import dataclasses
from typing import Literal

from components.vast.api.models import PriceAsked
from components.vast.errors import StillOutbid
from components.vast.instance_state import InstanceInputs, InstanceState, Observed
from components.vast.lifecycle import shutdown_times
from components.vast.lifecycle.context import Context, progress_of
from components.vast.lifecycle.contract_expiry import accepts
from components.vast.lifecycle.diff import lacks_market_end, next_step
from components.vast.lifecycle.preemption import describe_next_step, wait_until_back
from components.vast.market.ranking import choose_bid, hourly_cap
from components.vast.rental.termination import Terminator


@dataclasses.dataclass(frozen=True)
class Steps:
    """What an update does, in this order."""

    restores_label: bool
    ends_strays: bool
    renames: bool
    """Whether stack, project or resource have another name."""
    gpus: Literal["", "win back", "start"]
    """What is done about a machine that is stopped."""
    accepts: PriceAsked | None
    """The higher price that is accepted."""
    changes_end: bool


def steps(old: InstanceState, new: InstanceInputs) -> Steps:
    """Decide what an update does. Pure."""
    state = old.observed.market_state
    stopped: Literal["", "start"] = "start" if state.is_stopped else ""
    return Steps(
        restores_label=old.observed.carried_label != old.label,
        ends_strays=bool(old.strays),
        renames=old.inputs.label_prefix != new.label_prefix,
        gpus="win back" if state.is_outbid else stopped,
        accepts=old.price_asked if accepts(old.term(new.cap), new.term) else None,
        changes_end=old.inputs.leash != new.leash or lacks_market_end(old, new),
    )


def winning_bid(instance_id: int, old: InstanceState, new: InstanceInputs) -> float | None:
    """Decide what is bid for the GPUs of a machine that was outbid, in $/h; None to wait. Pure.

    Raises:
        StillOutbid: if the rule's limits are reached, or the cap allows no bid that wins.
    """
    floor = old.observed.min_bid
    price = choose_bid(floor, old.observed.storage_per_hour, hourly_cap(new.need))
    step = next_step(new)
    if step == "stuck" or (step == "rebid" and price is None):
        words = describe_next_step(new.outbid_policy, new.losses, price, floor)
        raise StillOutbid(f"instance {instance_id} was outbid and is kept: {words}")
    return price if step == "rebid" else None


def new_label(old_label: str, label_prefix: str) -> str:
    """Return a contract's label under another name of its stack, project or resource. Pure."""
    return f"{label_prefix}{old_label.rpartition('/')[2]}"


def update(
    instance_id: int, old: InstanceState, new: InstanceInputs, context: Context
) -> InstanceState:
    """Take over the inputs that change nothing about the machine, and mend what a refresh found.

    Raises:
        StillOutbid: a machine that was stopped, and is to be kept, does not run again.
        StackError: the market refuses a step or cannot be reached; the steps before it were taken.
    """
    todo = steps(old, new)
    state = dataclasses.replace(old, inputs=new)
    if todo.restores_label:
        state = _label(instance_id, state, old.label, "putting the label {} back on {}", context)
    if todo.ends_strays:
        state = _end_strays(instance_id, old, state, context)
    if todo.renames:
        label = new_label(old.label, new.label_prefix)
        state = _label(instance_id, state, label, "{1} gets the label {0}", context)
    if todo.gpus == "win back":
        state = _win_back(instance_id, old, state, context)
    elif todo.gpus == "start":
        state = _start(instance_id, state, context)
    if todo.accepts is not None:
        state = _accept(instance_id, todo.accepts, state, context)
    if todo.changes_end:
        state = shutdown_times.change_end(instance_id, old, state, context)
    return state


def _label(
    instance_id: int, state: InstanceState, label: str, sentence: str, context: Context
) -> InstanceState:
    progress_of(context).say(sentence.format(label, f"instance {instance_id}"))
    context.market().set_label(instance_id, label)
    observed = dataclasses.replace(state.observed, carried_label=label)
    return dataclasses.replace(state, label=label, observed=observed)


def _end_strays(
    instance_id: int, old: InstanceState, state: InstanceState, context: Context
) -> InstanceState:
    """End other contracts of the resource, under the name that it had until now."""
    terminator = Terminator(context.market(), context.clock, progress_of(context))
    terminator.sweep(old.inputs.label_prefix, owner=old.inputs.owner, keep=instance_id)
    return dataclasses.replace(state, strays=())


def _win_back(
    instance_id: int, old: InstanceState, state: InstanceState, context: Context
) -> InstanceState:
    """Wait for a machine's GPUs, with a higher bid if that is the rule."""
    bid = winning_bid(instance_id, old, state.inputs)
    if bid is not None:
        progress_of(context).say(f"bidding ${bid:.3f}/h for the GPUs of instance {instance_id}")
        context.market().set_bid(instance_id, bid)
    return _back(instance_id, state, context)


def _start(instance_id: int, state: InstanceState, context: Context) -> InstanceState:
    """Start a machine that the market or somebody stopped, though its bid wins.

    Raises:
        StillOutbid: if others have its GPUs and the rule is not to wait, or if it does not run.
    """
    progress_of(context).say(
        f"instance {instance_id} was stopped, by the market or by hand, and its bid wins: "
        "starting it"
    )
    if not context.market().start(instance_id) and state.inputs.outbid_policy.when != "wait":
        raise StillOutbid(
            f"instance {instance_id} is stopped though its bid wins: a tenant on demand has its "
            "GPUs, and it starts by itself when that tenant goes; it was not counted as outbid and "
            "nothing was destroyed; run `pulumi up` again later, take another machine by "
            "`pulumi up --replace` with its URN, or `pulumi destroy`"
        )
    return _back(instance_id, state, context)


def _back(instance_id: int, state: InstanceState, context: Context) -> InstanceState:
    """Wait until a stopped machine runs again, and look at it then."""
    inputs = state.inputs
    back = wait_until_back(
        context.market(),
        context.clock,
        progress_of(context),
        instance_id,
        ports=inputs.ports,
        seconds=inputs.boot_minutes * 60,
    )
    observed = Observed.of(back, inputs.served, state.observed)
    return dataclasses.replace(state, observed=observed)


def _accept(
    instance_id: int, asked: PriceAsked, state: InstanceState, context: Context
) -> InstanceState:
    """Take the price that the host asks for, and read the contract again."""
    api = context.market()
    progress_of(context).say(
        f"accepting ${asked.dollars_per_hour:.2f}/h for the GPUs of instance {instance_id}"
    )
    api.accept_price(asked)
    live = api.instance(instance_id)
    observed = Observed.of(live, state.inputs.served, state.observed) if live else state.observed
    return dataclasses.replace(state, price_asked=None, observed=observed)
