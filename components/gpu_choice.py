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
from components.vllm.options.option_text import from_json
from components.vllm.profile import Profile


def the_one(query: Query) -> str:
    """The one GPU that a query asks for; empty if it leaves a choice."""
    names = named(query)
    return names[0] if len(names) == 1 else ""


def named(query: Query) -> list[str]:
    """The GPUs that a query asks for, one or several; none if the market decides."""
    asked = query.get("gpu_name", {})
    return [str(asked["eq"])] if "eq" in asked else [str(name) for name in asked.get("in", [])]


def fit(profile: Profile, query: Query, num_gpus: int) -> tuple[list[str], list[str]]:
    """Compute what fits on each GPU that the query names; of others the market tells the memory.

    Raises:
        DoesNotFit: if it fits on none of those that are named, or needs more GPUs.
    """
    facts, misfits = [], []
    warnings = sizing.idle_warnings(profile, num_gpus)
    wanted = named(query)
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
    """Which GPUs the server starts on, by what it is really served with."""
    read = {name: from_json(value) for name, value in options.items()}
    return gpus.rule_of(read, min_cuda=profile.min_cuda)


def open_choice(query: Query, need: Requirements, rule: GpuRule) -> list[str]:
    """Say what an offer's GPUs must be where the query leaves a choice."""
    if the_one(query):
        return []
    said = (
        f"offerQuery leaves the GPU open: those that come into question have "
        f"{need.gpu_ram_gib:.0f} GiB or more each, and are {rule.gpus} ({rule.why})"
    )
    return [said]


def of_unfit_gpus(profile: Profile, query: Query, need: Requirements, rule: GpuRule) -> list[str]:
    """Say which of the named GPUs are never rented, since the server does not start on them.

    Raises:
        OptionRefused: if it starts on none of them.
    """
    wanted = named(query)
    unfit = [name for name in wanted if not starts_on({"gpu_name": name}, need)]
    unfit = [name for name in unfit if gpus.capability(name) is not None]
    if not unfit:
        return []
    said, unfit_names = f"{rule.why} runs on {rule.gpus} alone", " and ".join(unfit)
    if len(unfit) == len(wanted):
        raise OptionRefused(
            f"profile {profile.name}: {said} and none of {unfit_names} is one; ask for other GPUs "
            "in offerQuery, or change the option"
        )
    return [f"{said}, so nothing with {unfit_names} is rented, though offerQuery names it"]
