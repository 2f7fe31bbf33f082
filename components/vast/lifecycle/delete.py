"""The end of a rented machine, and what is noted of it for the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.core.errors import StackError
from components.vast.api.account import hold_to
from components.vast.instance_state import InstanceState
from components.vast.lifecycle import shutdown_times
from components.vast.lifecycle.context import Context, progress_of
from components.vast.lifecycle.create import rent_journal
from components.vast.lifecycle.preemption import PREEMPTIONS_FILE, PreemptionLog
from components.vast.quarantine import quarantine_reason
from components.vast.rental.termination import Terminator

if TYPE_CHECKING:
    from components.vast.api.client import VastApi


def delete(instance_id: int, state: InstanceState, context: Context) -> None:
    """End the contract and read back that it is gone.

    Raises:
        WrongAccount: if the key is of another account than the machine.
        StillBilled, KeyRefused: if the contract is not proven gone.
    """
    api, progress = context.market(), progress_of(context)
    hold_to(api, state.account_id, f"instance {instance_id}")
    _note_loss(api, instance_id, state, context)
    why = quarantine_reason(state.observed.carried_label)
    if why:
        with rent_journal(api, state.inputs.label_prefix, context).locked() as entry:
            entry.exclude(state.observed.machine_id, why)
    progress.say(f"destroying instance {instance_id}")
    Terminator(api, context.clock, progress).terminate(instance_id, state.observed.hourly_cost)
    progress.say(f"instance {instance_id} is gone and costs nothing any more")
    shutdown_times.disarm_what_is_gone(api, instance_id, state.market_job, progress)


def _note_loss(api: VastApi, instance_id: int, state: InstanceState, context: Context) -> None:
    """Note that a machine which was outbid goes: the stack's count may not have it yet."""
    loss = state.inputs.losses.get(str(instance_id))
    if not loss:
        return
    try:
        note = PreemptionLog(api.shared(PREEMPTIONS_FILE), context.clock)
        note.add(state.inputs.label_prefix, str(instance_id), loss)
    except StackError as error:
        progress_of(context).say(f"that instance {instance_id} was outbid is not noted ({error})")
