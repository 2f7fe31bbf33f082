"""What is ordered for a stack: the rent call, its limits, and what its machine is held to. Pure."""

from __future__ import annotations

import json

from components.machine import first_contact
from components.machine.inspection import Expected
from components.machine.onstart import onstart
from components.vast.api.models import Instance
from components.vast.api.payloads import RentRequest
from components.vast.instance_state import InstanceInputs
from components.vast.labels import order_digest
from components.vast.lifecycle import auto_shutdown
from components.vast.market.ranking import hourly_cap
from components.vast.rental.adoption import AdoptionCriteria
from components.vast.rental.boot import POLL, SHARED_MAX_AGE, Deadlines
from components.vast.rental.budget import Limits


def order_for(inputs: InstanceInputs, api_url: str) -> RentRequest:
    """Return the rent call's words; `api_url` is of Vast's API, for the machine's own end."""
    label = order_label(inputs)
    return RentRequest(
        image=inputs.image,
        disk_gb=inputs.disk_gb,
        label=label,
        owner=inputs.owner,
        onstart=onstart(
            inputs.public_key,
            auto_shutdown.carried(inputs.leash, api_url),
            first_contact.proof_key(inputs.private_key, label),
        ),
        ports=(inputs.port,),
    )


def order_label(inputs: InstanceInputs) -> str:
    """Return the label under which the same order is found again, also by other releases.

    The time to live is no part of the label, since it changes in place.
    """
    facts: list[object] = [
        inputs.image,
        # Both as Pulumi hands numbers over, which is how older releases wrote them down.
        float(inputs.disk_gb),
        float(inputs.port),
        inputs.public_key,
        inputs.search.query,
        onstart(inputs.public_key),
    ]
    if inputs.need.contract != "on-demand":
        facts.append(inputs.need.contract)
    return f"{inputs.label_prefix}{order_digest(inputs.owner, json.dumps(facts))}"


def limits_for(inputs: InstanceInputs) -> Limits:
    """Return what renting may take and cost."""
    need = inputs.need
    return Limits(
        deadlines=deadlines_for(inputs),
        max_dollars_per_hour=hourly_cap(need),
        interruptible=need.contract == "interruptible",
        budget_seconds=need.rent_budget_minutes * 60,
        budget_dollars=need.rent_budget_dollars,
        proof_needed=proof_needed(inputs),
        list_max_age=SHARED_MAX_AGE if inputs.fleet else POLL,
    )


def deadlines_for(inputs: InstanceInputs) -> Deadlines:
    """Return the seconds that each stage of a boot may take."""
    return Deadlines(image=inputs.boot_minutes * 60)


def proof_needed(inputs: InstanceInputs) -> str:
    """Say why a machine whose host key nobody vouches for is of no use; empty if it is."""
    return first_contact.proof_needed(inputs.first_contact, inputs.token_for)


def criteria_for(inputs: InstanceInputs) -> AdoptionCriteria:
    """Return what a machine that was rented by hand is held to before it is adopted."""
    return AdoptionCriteria(
        label_prefix=inputs.label_prefix,
        owner=inputs.owner,
        query=inputs.search.query,
        need=inputs.need,
        image=inputs.image,
        disk_gb=inputs.disk_gb,
        port=inputs.port,
    )


def expected_of(
    instance: Instance, inputs: InstanceInputs, download_share: float, *, adopted: bool
) -> Expected:
    """Return what the check holds a machine to.

    `download_share` is the part of the time to the first answer that the download may take. An
    `adopted` contract existed before this rental.
    """
    need = inputs.need
    # A machine that was rented by hand has no label of the stack before its own server has ended.
    is_labelled = instance.label.startswith(inputs.label_prefix)
    return Expected(
        gpu_name=instance.gpu_name,
        num_gpus=need.num_gpus,
        gpu_ram_mib=instance.gpu_ram_mib,
        # A machine that was rented by hand has weights on its disk already.
        disk_gb=inputs.disk_gb - (need.weights_gb if inputs.adopt else 0),
        min_driver=inputs.min_driver,
        weights_gb=need.weights_gb,
        repository=need.repository,
        revision=need.revision,
        files=need.files,
        download_seconds=need.ready_minutes * 60 * download_share,
        may_serve=adopted and is_labelled,
    )
