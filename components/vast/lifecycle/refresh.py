"""What became of a rented machine since the last look."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from components.core.errors import StackError
from components.machine.tcp_probe import probe
from components.vast.api.account import account_of, hold_to
from components.vast.api.models import Instance, PriceAsked
from components.vast.instance_state import InstanceInputs, InstanceState, Observed
from components.vast.labels import partition_by_owner
from components.vast.lifecycle import drift, shutdown_times
from components.vast.lifecycle.context import Context, progress_of
from components.vast.lifecycle.contract_expiry import describe_term as term_in_words
from components.vast.lifecycle.preemption import record_preemptions
from components.vast.lifecycle.status_confirm import confirm_status
from components.vast.refresh_log import FILE_NAME, RefreshLog

if TYPE_CHECKING:
    from components.vast.api.client import VastApi

SHARED_MAX_AGE = 5.0
"""Seconds for which replicas that are looked at together share what the market said of all."""


def refresh(instance_id: int, old: InstanceState, context: Context) -> InstanceState | None:
    """Look at the contract and say what drifted; None if it is gone, as list and GET agree.

    Raises:
        StackError: of the market's kinds, naming the instance too.
    """
    contracts, live = _seen(instance_id, old, context)
    if live is None:
        context.say(drift.gone(old, context.clock.epoch()))
        # No state knows of the market's job from now on.
        api = context.market(patient=False)
        shutdown_times.disarm_what_is_gone(api, instance_id, old.market_job, progress_of(context))
        return None
    api = context.market(patient=False)
    RefreshLog(api.shared(FILE_NAME), context.clock).note(str(live.id))
    price = price_asked(live.id, context, max_age_for(old.inputs))
    found, sentences = compare(old, live, contracts, price, context.clock.epoch())
    for sentence in sentences:
        context.say(sentence)
    found = dataclasses.replace(found, market_job=shutdown_times.read_back(api, found, context))
    if found.account_id:
        return found
    # The account's id could not be read when the machine was rented. A contract that is seen here
    # belongs to this account.
    return dataclasses.replace(found, account_id=account_of(api))


def compare(
    old: InstanceState,
    live: Instance,
    contracts: list[Instance],
    price: PriceAsked | None,
    now: float,
) -> tuple[InstanceState, list[str]]:
    """Return the state of now, and a sentence for each difference. Pure.

    Args:
        old: the state of the last look.
        live: the contract, with a status that is beyond doubt.
        contracts: all of the account.
        price: what the host asks for, if it does.
        now: seconds since 1970.
    """
    strays = other_contracts(contracts, old.inputs, live.id)
    losses = record_preemptions(old.inputs.losses, [live], now)
    found = dataclasses.replace(
        old,
        inputs=dataclasses.replace(old.inputs, losses=losses),
        observed=Observed.of(live, old.inputs.served, old.observed),
        price_asked=price,
        strays=tuple(stray.id for stray in strays),
    )
    known = dataclasses.replace(old, inputs=found.inputs)
    about_the_term = term_in_words(found.term(found.inputs.cap), found.inputs.term, now)
    return found, [
        *drift.drift(known, live, strays, now),
        *(f"instance {live.id} {sentence}" for sentence in about_the_term),
    ]


def max_age_for(inputs: InstanceInputs) -> float:
    """Give the seconds for which several machines that are looked at together share an answer."""
    return SHARED_MAX_AGE if inputs.fleet else 0.0


def price_asked(instance_id: int, context: Context, max_age: float = 0.0) -> PriceAsked | None:
    """Give what the host asks for, as it was `max_age` seconds ago at most.

    A list that cannot be had is reported, and stops nothing.
    """
    try:
        return context.market(patient=False).price_asked(instance_id, max_age)
    except StackError as error:
        context.say(f"whether a higher price is asked for is not known ({error})")
        return None


def other_contracts(contracts: list[Instance], inputs: InstanceInputs, keep: int) -> list[Instance]:
    """Return other contracts of the same resource and owner. Pure."""
    own, _ = partition_by_owner(contracts, inputs.label_prefix, inputs.owner)
    return [contract for contract in own if contract.id != keep]


def _seen(
    instance_id: int, old: InstanceState, context: Context
) -> tuple[list[Instance], Instance | None]:
    """All contracts and this one, which is None only if list, single GET and list agree."""
    try:
        return _looked_up(instance_id, old, context)
    except StackError as error:
        error.args = (
            f"nothing can be said of instance {instance_id}, which stays in the state: {error}",
        )
        raise


def _looked_up(
    instance_id: int, old: InstanceState, context: Context
) -> tuple[list[Instance], Instance | None]:
    api: VastApi = context.market(patient=False)
    contracts = api.instances(max_age_for(old.inputs))
    listed = [contract for contract in contracts if contract.id == instance_id]
    live = listed[0] if listed else api.instance(instance_id)
    observed = old.observed
    if live is not None and observed.status == "running":
        served = (observed.public_ip, observed.host_port)
        live = confirm_status(
            api, context.clock, progress_of(context), live, lambda: probe(*served)
        )
    if live is None:
        hold_to(api, old.account_id, f"instance {instance_id}")
    return contracts, live
