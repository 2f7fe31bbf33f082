"""The end of a rented machine, and what is noted of it for the next one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from components.core.errors import StackError
from components.core.property_bag import BagReader, StateUnreadable, by_name, number, text, whole
from components.vast.api.account import KnownAccount, hold_to
from components.vast.lifecycle import shutdown_times
from components.vast.lifecycle.context import Context, progress_of
from components.vast.lifecycle.create import rent_journal
from components.vast.lifecycle.market_end import NONE, MarketJob
from components.vast.lifecycle.preemption import PREEMPTIONS_FILE, PreemptionLog
from components.vast.quarantine import quarantine_reason
from components.vast.rental.termination import Terminator

if TYPE_CHECKING:
    from components.vast.api.client import VastApi


T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class LeavingInstance:
    """What is known of a machine that ends. Whatever its state lacks, the bill has to end."""

    account_id: int = 0
    """Vast's account that it was rented on; 0 if that is not known."""
    label_prefix: str = ""
    machine_id: int = 0
    carried_label: str = ""
    dollars_per_hour: float = 0.0
    losses: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    """See `preemption.Preemptions`."""
    market_job: MarketJob = NONE

    @classmethod
    def from_bag(cls, bag: Mapping[str, Any]) -> LeavingInstance:
        """Read it out of a state of any release; what cannot be read counts as not known.

        Raises:
            StateUnreadable: if the account is no number. In another account the machine would look
                gone.
        """
        reader = BagReader(bag)

        def known(name: str, read: Callable[[Any], T], otherwise: T) -> T:
            try:
                found = reader.get(name, read)
            except StateUnreadable:
                return otherwise
            return otherwise if found is None else found

        return cls(
            account_id=reader.get("account_id", whole) or 0,
            label_prefix=known("label_prefix", text, ""),
            machine_id=known("machine_id", whole, 0),
            carried_label=known("carried_label", text, ""),
            dollars_per_hour=known("hourly_cost", number, 0.0),
            losses=known("losses", by_name(by_name(number)), {}),
            market_job=MarketJob(
                known("market_job", whole, 0), known("market_ends_at", number, 0.0)
            ),
        )


def delete(instance_id: int, state: LeavingInstance, context: Context) -> None:
    """End the contract and read back that it is gone.

    Raises:
        WrongAccount: if the key is of another account than the machine.
        StillBilled, KeyRefused: if the contract is not proven gone.
    """
    api, progress = context.market(), progress_of(context)
    hold_to(KnownAccount(api), state.account_id, f"instance {instance_id}")
    _note_loss(api, instance_id, state, context)
    why = quarantine_reason(state.carried_label)
    if why and state.label_prefix:
        with rent_journal(api, state.label_prefix, context).locked() as entry:
            entry.exclude(state.machine_id, why)
    progress.say(f"destroying instance {instance_id}")
    Terminator(api, context.clock, progress).terminate(instance_id, state.dollars_per_hour)
    progress.say(f"instance {instance_id} is gone and costs nothing any more")
    shutdown_times.disarm_what_is_gone(api, instance_id, state.market_job, progress)


def _note_loss(api: VastApi, instance_id: int, state: LeavingInstance, context: Context) -> None:
    """Note that a machine which was outbid goes: the stack's count may not have it yet."""
    loss = state.losses.get(str(instance_id))
    if not loss:
        return
    try:
        note = PreemptionLog(api.shared(PREEMPTIONS_FILE), context.clock)
        note.add(state.label_prefix, str(instance_id), loss)
    except StackError as error:
        progress_of(context).say(f"that instance {instance_id} was outbid is not noted ({error})")
