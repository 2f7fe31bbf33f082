"""What a preview says before a machine is rented or adopted, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from components.core.errors import StackError
from components.vast.api.models import Instance, PriceAsked
from components.vast.errors import CannotAdopt, NoOffer
from components.vast.fleet import Fleet, siblings_of
from components.vast.instance_state import InstanceInputs
from components.vast.labels import partition_by_owner, renter_of, resource_of
from components.vast.lifecycle import auto_shutdown, drift
from components.vast.lifecycle.context import Context
from components.vast.lifecycle.contract_expiry import ContractTerm
from components.vast.lifecycle.diff import is_over
from components.vast.lifecycle.order import criteria_for, order_label
from components.vast.lifecycle.refresh import max_age_for, price_asked
from components.vast.market.ranking import hourly_cap
from components.vast.market.search import SEARCH_LIMIT
from components.vast.market.several import one_a_place
from components.vast.market.view import candidates, show_market
from components.vast.market.wording import describe
from components.vast.rental.adoption import TAKE_OUT, find
from components.vast.rental.boot import PRICE_TOLERANCE
from components.vast.rental.termination import left_alone

if TYPE_CHECKING:
    from components.vast.api.client import VastApi

LATER = frozenset({"losses", "token_for"})
"""Inputs that may be unknown while everything about a rental can be said."""

AskPrice = Callable[[int], PriceAsked | None]
"""What the host of a contract asks for; called only where that matters."""


def preview(inputs: InstanceInputs, context: Context) -> None:
    """Say what a new machine will be, as far as the inputs are known.

    Raises:
        StackError: if there can be none, in a sentence.
    """
    if inputs.adopt:
        # Also before the stack's key exists, without which no order can be named.
        _preview_adoption(inputs, context)
    elif inputs.unknown <= LATER:
        _preview_rental(inputs, context)


def to_go_on_with(
    contracts: list[Instance],
    label: str,
    inputs: InstanceInputs,
    now: float,
    ask_price: AskPrice,
) -> tuple[Instance | None, list[str]]:
    """Find the contract of an interrupted `up` that `create` goes on with; say what becomes of it.

    `label` is the order's. `now` is in seconds since 1970.
    """
    cap = hourly_cap(inputs.need)
    sentences = []
    for found in contracts:
        if found.label != label or drift.is_lost(found.actual_status, found.intended_status):
            continue
        if ends_by_rule(found, inputs, now, ask_price):
            continue
        price = f"${found.dollars_per_hour:.2f}/h"
        if found.dollars_per_hour > cap * PRICE_TOLERANCE:
            sentences.append(
                f"instance {found.id} was rented for this resource before and costs "
                f"{price}, above the cap of ${cap:.2f}/h: `pulumi up` ends "
                "it and rents another one; raise the cap to go on with it"
            )
            continue
        sentences.append(
            f"instance {found.id} was rented for this resource before and costs "
            f"{price}: unless it is being replaced, `pulumi up` goes on with it"
        )
        return found, sentences
    return None, sentences


def ends_by_rule(found: Instance, inputs: InstanceInputs, now: float, ask_price: AskPrice) -> bool:
    """Whether `diff` would replace this contract by the rule for its term."""
    if inputs.term.when != "replace":
        return False
    storage = round(found.storage_dollars_per_hour, 4)
    term = ContractTerm(found.ends_at, storage, inputs.cap, ask_price(found.id))
    return is_over(term, inputs.term, now)


def siblings(
    contracts: list[Instance], inputs: InstanceInputs
) -> tuple[list[Instance], list[Instance]]:
    """The replica's contracts under another resource's name, and another backend's of its name.

    A machine that is replaced create-first is such a contract.
    """
    mine = renter_of(inputs.label_prefix)
    own, others = partition_by_owner(contracts, mine.prefix, inputs.owner, mine.endpoint)
    return [
        found
        for found in own
        if not found.label.startswith(inputs.label_prefix)
        and renter_of(resource_of(found.label)).replica == mine.replica
    ], others


def both_bills(beside: list[Instance], dollars_per_hour: float) -> str:
    """Say what the stack costs while the new machine ($/h) comes up beside the old one."""
    now = sum(found.dollars_per_hour for found in beside)
    named = ", ".join(str(found.id) for found in beside)
    return (
        f"the new machine comes up beside instance {named}: what serves goes on until the new one "
        f"has answered and its clients have left; till then all are billed, ${now:.2f}/h and about "
        f"${dollars_per_hour:.2f}/h, ${now + dollars_per_hour:.2f}/h together; if the new one "
        "fails, nothing else changes"
    )


def about_adoption(found: Instance, inputs: InstanceInputs) -> str:
    """Say what becomes of a machine that fits and is adopted."""
    price = f"${found.dollars_per_hour:.2f}/h"
    if found.label.startswith(inputs.label_prefix):
        return (
            f"instance {found.id} ({price}) fits and carries this resource's "
            "label already: `pulumi up` takes it over and rents nothing; if it is being replaced, "
            f"that ends it and then fails: then {TAKE_OUT}"
        )
    end = f"; from then on it {auto_shutdown.describe(inputs.leash)}" if inputs.leash else ""
    return (
        f"instance {found.id} ({price}, {found.num_gpus}x "
        f"{found.gpu_name}) fits and becomes this stack's: nothing is rented; the server that "
        f"runs on it ends, its weights stay{end}"
    )


def _preview_rental(inputs: InstanceInputs, context: Context) -> None:
    """Show what a rental would be.

    If this resource already has a contract, an unsuitable market is only reported. We cannot tell
    whether `up` will resume that contract or replace it, and resuming must not fail.
    """
    api = context.market(patient=False)
    contracts = api.instances(max_age_for(inputs))
    there, sentences = to_go_on_with(
        contracts,
        order_label(inputs),
        inputs,
        context.clock.epoch(),
        lambda instance_id: price_asked(instance_id, context),
    )
    for sentence in sentences:
        context.say(sentence)
    try:
        if inputs.fleet is None:
            show_market(api, inputs.search, context.say, renting=True)
        else:
            _show_market_to_replica(api, inputs, inputs.fleet, contracts, context)
    except StackError as error:
        if there is None:
            raise
        context.say(
            f"if instance {there.id} is being replaced, it ends and none comes in its place: "
            f"{error}"
        )
    if there is not None:
        return
    beside, others = siblings(contracts, inputs)
    for other in others:
        context.say(left_alone(other))
    if beside:
        best = candidates(api, inputs.search, anew=False)[0].offer.dollars_per_hour
        context.say(both_bills(beside, best))


def _show_market_to_replica(
    api: VastApi,
    inputs: InstanceInputs,
    fleet: Fleet,
    contracts: list[Instance],
    context: Context,
) -> None:
    """Say in one line what is left for one more machine; `VastOffer` shows the market for all.

    Raises:
        NoOffer, QueryRefused: if nothing is left.
        KeyRefused, RateLimited, ApiUnreachable, ApiFailed: if the market does not answer.
    """
    found = candidates(api, inputs.search, anew=False, most=SEARCH_LIMIT)
    standing = siblings_of(contracts, inputs.label_prefix, inputs.owner)
    places = one_a_place(found, fleet, {fleet.place_of(one) for one in standing})
    if not places:
        raise NoOffer(
            f"the market has nothing but {fleet.spread}s that other replicas have; relax "
            "offerQuery so that others come into question, or try again later; nothing was rented"
        )
    if standing:
        context.say(
            f"{len(places)} {fleet.spread}s come into question beside those of the other "
            f"replicas, best: {describe(places[0])}"
        )


def _preview_adoption(inputs: InstanceInputs, context: Context) -> None:
    """Say what is adopted, and what becomes of it.

    Raises:
        CannotAdopt: if the machine does not fit, or if the rule for its contract's end would
            replace it.
    """
    api = context.market(patient=False)
    found = find(api, inputs.adopt, criteria_for(inputs))
    is_own = found.label.startswith(inputs.label_prefix)
    if is_own and ends_by_rule(
        found, inputs, context.clock.epoch(), lambda id_: price_asked(id_, context)
    ):
        raise CannotAdopt(
            f"instance {found.id} is to be replaced (whenContractEnds) and `adopt` names it, which "
            f"will be gone by then: {TAKE_OUT}; nothing was changed"
        )
    context.say(about_adoption(found, inputs))
