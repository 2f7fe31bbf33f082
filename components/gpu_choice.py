"""Which GPUs a stack may rent: what its query leaves open, and on which of them it starts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.machine import gpus
from components.machine.gpus import GpuRule
from components.vast.market.query import Query
from components.vast.market.requirements import Requirements
from components.vast.market.search import starts_on
from components.vllm import sizing
from components.vllm.errors import DoesNotFit, OptionRefused
from components.vllm.options.option_table import from_json
from components.vllm.profile import Profile


def only_gpu(query: Query) -> str:
    """Give the GPU that a query asks for; empty if it leaves a choice."""
    names = named_gpus(query)
    return names[0] if len(names) == 1 else ""


def named_gpus(query: Query) -> list[str]:
    """Give the GPUs that a query asks for; none if the market decides."""
    asked = query.get("gpu_name", {})
    return [str(asked["eq"])] if "eq" in asked else [str(name) for name in asked.get("in", [])]


def fit(profile: Profile, query: Query, num_gpus: int) -> tuple[list[str], list[str]]:
    """Compute what fits on each GPU that the query names; for other GPUs the market has the memory.

    Returns:
        Facts and warnings, a sentence each.

    Raises:
        DoesNotFit: if the model fits on none of the named GPUs, or needs more of them.
    """
    facts, misfits = [], []
    warnings = sizing.idle_warnings(profile, num_gpus)
    wanted = named_gpus(query)
    for gpu_name in wanted:
        memory = sizing.memory_per_gpu_gib(gpu_name)
        if memory is None:
            continue
        try:
            warnings += sizing.check_fit(profile, gpu_memory_gib=memory, num_gpus=num_gpus)
        except DoesNotFit as error:
            misfits.append(error)
            continue
        room = sizing.size(profile, gpu_memory_gib=memory, num_gpus=num_gpus)
        where = f" in {room.engines} engines" if room.engines > 1 else ""
        facts.append(
            f"{profile.name} on {num_gpus}x {gpu_name}: weights {room.weights_gib_per_gpu:.1f} GiB "
            f"and KV cache {room.kv_gib_available:.1f} GiB on each GPU, which holds "
            f"{room.sequences:.1f} sequences of {room.max_model_len} tokens{where}"
        )
    if misfits and len(misfits) == len(wanted):
        raise misfits[0]
    return facts, list(dict.fromkeys(warnings))


def rule(profile: Profile, options: Mapping[str, Any]) -> GpuRule:
    """Decide which GPUs the server starts on, by the options that it is served with."""
    read = {name: from_json(value) for name, value in options.items()}
    return gpus.rule_of(read, min_cuda=profile.min_cuda)


def open_choice(query: Query, need: Requirements, rule: GpuRule) -> list[str]:
    """Say what an offer's GPUs must be where the query leaves a choice."""
    if only_gpu(query):
        return []
    fact = (
        f"offerQuery leaves the GPU open: those that come into question have "
        f"{need.gpu_ram_gib:.0f} GiB or more each, and are {rule.gpus} ({rule.why})"
    )
    return [fact]


def excluded_gpus(profile: Profile, query: Query, need: Requirements, rule: GpuRule) -> list[str]:
    """Warn of named GPUs that are never rented, since the server does not start on them.

    Raises:
        OptionRefused: if the server starts on none of them.
    """
    wanted = named_gpus(query)
    excluded = [
        name
        for name in wanted
        if gpus.capability(name) is not None and not starts_on({"gpu_name": name}, need)
    ]
    if not excluded:
        return []
    reason, names = f"{rule.why} runs on {rule.gpus} alone", " and ".join(excluded)
    if len(excluded) == len(wanted):
        raise OptionRefused(
            f"profile {profile.name}: {reason} and none of {names} is one; ask for other GPUs "
            "in offerQuery, or change the option"
        )
    return [f"{reason}, so nothing with {names} is rented, though offerQuery names it"]
