"""From inputs to a machine that works: adopted, gone on with, or rented."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING

from components.core.errors import StackError
from components.core.progress import Progress
from components.machine import first_contact
from components.vast.api.account import KnownAccount, account_of
from components.vast.api.payloads import RentRequest
from components.vast.boot_notes import BOOTS, BootNotes, MachineBoot
from components.vast.estimates import ESTIMATES, Estimate, Estimates
from components.vast.instance_state import InstanceInputs, InstanceState, Observed
from components.vast.lifecycle import shutdown_times
from components.vast.lifecycle.context import Context, progress_of
from components.vast.lifecycle.market_end import MarketJob
from components.vast.lifecycle.order import (
    criteria_for,
    deadlines_for,
    limits_for,
    order_for,
    proof_needed,
)
from components.vast.lifecycle.remote_machine import RemoteMachine
from components.vast.market.ranking import Candidate, hourly_cap
from components.vast.market.search import SEARCH_LIMIT
from components.vast.market.view import candidates
from components.vast.rental.adoption import adopt, find
from components.vast.rental.attempts import Attempt
from components.vast.rental.boot import Boot, Rented
from components.vast.rental.claims import Claims
from components.vast.rental.journal import SUFFIX, RentJournal
from components.vast.rental.provisioner import Provisioner

if TYPE_CHECKING:
    from components.vast.api.client import VastApi


def create(inputs: InstanceInputs, context: Context, download_share: float) -> InstanceState:
    """Adopt or rent a machine that works, or leave nothing billed.

    `download_share` is the part of the time to the first answer that the download may take.

    Raises:
        StackError: as `Provisioner.provision`, `Provisioner.adopt` and `adoption.adopt`;
            `LeftRunning` for a machine that works and does not take its end.
    """
    api, progress = context.market(), progress_of(context)
    order = order_for(inputs, api.url)
    with RemoteMachine(inputs, order.label, context, download_share) as machine:
        rented = _rented(api, inputs, order, machine, context)
        ends_at = shutdown_times.tell_new_machine(machine, rented, inputs.leash, api.url, context)
        job = shutdown_times.arm_new_machine(api, rented, inputs.leash, ends_at, progress)
    _note_estimate(api, rented, inputs, progress)
    made = state_of(inputs, order.label, rented, ends_at, job)
    _note_boot(api, made, context)
    return dataclasses.replace(made, account_id=account_of(KnownAccount(api)))


def rent_journal(api: VastApi, label_prefix: str, context: Context) -> RentJournal:
    """Return the journal of rent calls for one resource, which all processes here share."""
    name = hashlib.sha256(label_prefix.encode()).hexdigest()[:16]
    return RentJournal(api.shared(f"{name}{SUFFIX}"), context.clock, progress_of(context))


def state_of(
    inputs: InstanceInputs, label: str, rented: Rented, ends_at: float, job: MarketJob
) -> InstanceState:
    """Return the state of a machine that works. Pure.

    `ends_at` is when it ends itself, in seconds since 1970; 0 for never.
    """
    facts, rate = rented.inspection.facts, rented.inspection.rate
    return InstanceState(
        inputs=inputs,
        observed=Observed.of(rented.instance, inputs.served),
        label=label,
        host_key=rented.host_key,
        host_key_from=first_contact.BY_LOG if rented.is_named else first_contact.BY_TRUST,
        host_facts={
            **dataclasses.asdict(facts),
            "gpu_names": list(facts.gpu_names),
            "download_mbps": rate.mbps,
            "download_note": rate.note,
        },
        boot_seconds={stage: round(took, 1) for stage, took in rented.boot_seconds.items()},
        adopted=rented.adopted,
        ends_itself_at=ends_at,
        market_job=job,
    )


def _rented(
    api: VastApi,
    inputs: InstanceInputs,
    order: RentRequest,
    machine: RemoteMachine,
    context: Context,
) -> Rented:
    provisioner = Provisioner(
        api,
        context.clock,
        progress_of(context),
        limits_for(inputs),
        rent_journal(api, inputs.label_prefix, context),
        claims=Claims(
            api.shared,
            context.clock,
            label_prefix=inputs.label_prefix,
            owner=inputs.owner,
            fleet=inputs.fleet,
        ),
        guard=shutdown_times.first_end(api, inputs, context),
    )
    if inputs.adopt:
        _adopt(api, inputs, order, machine, context)
        return provisioner.adopt(inputs.adopt, order, machine, inputs.ports)
    asked = False

    def ask() -> list[Candidate]:
        nonlocal asked
        anew, asked = asked, True
        # All of them: others may try or have the first ones.
        return candidates(api, inputs.search, anew=anew, most=SEARCH_LIMIT)

    return provisioner.provision(order, ask, machine, inputs.ports)


def _adopt(
    api: VastApi,
    inputs: InstanceInputs,
    order: RentRequest,
    machine: RemoteMachine,
    context: Context,
) -> None:
    """Give the contract that is to be taken over this stack's label, if it fits and works."""
    wanted = criteria_for(inputs)
    found = find(api, inputs.adopt, wanted)
    clock, progress = context.clock, progress_of(context)

    def check() -> Rented:
        boot = Boot(
            api,
            clock,
            progress,
            deadlines_for(inputs),
            attempt=Attempt(1, found.machine_id, found.location, found.dollars_per_hour),
            max_dollars_per_hour=hourly_cap(wanted.need),
            interruptible=wanted.need.contract == "interruptible",
            until=clock.monotonic() + wanted.need.rent_budget_minutes * 60,
            proof_needed=proof_needed(inputs),
        )
        return boot.bring_up(found.id, machine, inputs.ports, adopted=True)

    key = inputs.public_key
    adopt(api, progress, found, order=order, public_key=key, check=check, run=machine.run)


def _note_estimate(
    api: VastApi, rented: Rented, inputs: InstanceInputs, progress: Progress
) -> None:
    """Note what the machine is expected to cost: a destroyed stack's state no longer says it.

    A lost note must not keep a working machine out of the state.
    """
    instance = rented.instance
    # A machine that was rented by hand has its weights already.
    traffic = instance.inet_down_dollars_per_gb * inputs.need.download_gb
    expected = Estimate(
        instance.dollars_per_hour, 0.0 if inputs.adopt else traffic, instance.started_at or None
    )
    try:
        Estimates(api.shared(ESTIMATES)).note(instance.id, expected)
    except StackError as error:
        progress.say(f"`make cost` will not know its expected cost ({error})")


def _note_boot(api: VastApi, made: InstanceState, context: Context) -> None:
    """Note how the machine started; a lost note must not keep it out of the state."""
    boot = MachineBoot(
        instance_id=made.observed.instance_id,
        label=made.label,
        gpu=made.observed.gpu,
        dollars_per_hour=made.observed.hourly_cost,
        ended_at=context.clock.epoch(),
        seconds=made.boot_seconds,
        facts=made.host_facts,
    )
    try:
        BootNotes(api.shared(BOOTS)).note_machine(boot)
    except StackError as error:
        progress_of(context).say(f"`make boots` will not show this boot ({error})")
