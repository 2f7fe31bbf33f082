"""Other ways to serve the same model: what they would need, and what each would cost. Pure.

A profile is one model on one kind of hardware. Two profiles have the same model if the Hub's name
of one continues the name of the other: `Mistral-Small-4-119B-2603-NVFP4` is
`Mistral-Small-4-119B-2603` in four bits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from components import gpu_choice, requirements
from components.core.errors import ConfigurationError
from components.vast.market.query import gpus_asked, parse_query
from components.vast.market.ranking import Candidate
from components.vast.market.requirements import Requirements, Search
from components.vllm import serve_config, sizing
from components.vllm.profile import Profile, load_profile, profile_names
from components.vllm.sizing import Sizing

MODELS = Path(__file__).resolve().parent.parent / "models"

_PORT = 8000
"""Of the server, which has no part in what it needs of a machine."""

_LEAST_SAVING = 0.01
"""$/h below which a difference is none."""


def is_same_model(one: str, other: str) -> bool:
    """Whether two repositories of the Hub, as owner/model, hold the same model."""
    shorter, longer = sorted((one.casefold(), other.casefold()), key=len)
    return longer == shorter or longer.startswith(f"{shorter}-")


def profiles_of(repository: str, models: Path = MODELS) -> list[Profile]:
    """Read each profile of `models` that serves the model of a repository, by name.

    A file that is no profile is passed over: its own stack is told.
    """
    found = []
    for name in profile_names(models):
        try:
            profile = load_profile(name, models)
        except ConfigurationError:
            continue
        if is_same_model(profile.repository, repository):
            found.append(profile)
    return found


def search_for(profile: Profile, need: Requirements) -> Search:
    """Give the search for the machine of `profile`, with the limits that `need` has.

    Limits are those of money, host and contract.

    Raises:
        ConfigurationError: the profile's own options cannot work.
    """
    options = serve_config.render(profile, port=_PORT, key_gate=True)
    rule = gpu_choice.rule(profile, options)
    own = dataclasses.replace(
        need,
        num_gpus=profile.num_gpus,
        gpu_ram_gib=sizing.needed_gpu_memory_gib(profile, profile.num_gpus, profile.max_model_len),
        disk_gb=profile.disk_gb,
        download_gb=profile.weights_gb + profile.image_gb,
        weights_gb=profile.weights_gb,
        repository=profile.repository,
        revision=profile.revision,
        files=profile.files,
        min_cuda=profile.min_cuda,
        min_driver=profile.min_driver,
        least_compute_cap=float(rule.least),
        compute_cap_below=float(rule.below),
    )
    return Search(requirements.own_query(profile), own)


def room(profile: Profile) -> Sizing | None:
    """Compute what fits on the GPUs of a profile; None for GPUs of unknown memory."""
    memory = sizing.memory_per_gpu_gib(profile.gpu_name)
    if memory is None:
        return None
    return sizing.size(profile, gpu_memory_gib=memory, num_gpus=profile.num_gpus)


def likely_cheaper(search: Search, profiles: Iterable[Profile]) -> Profile | None:
    """Choose the one profile that a search for another machine is worth; None if none is.

    It takes less GPU memory than what `search` asks for, and the least of all. A measured profile
    goes before one that nobody has measured.
    """
    query = parse_query(search.query)
    memory = sizing.memory_per_gpu_gib(gpu_choice.only_gpu(query))
    if memory is None:
        return None
    asked = memory * gpus_asked(query, search.need.num_gpus)
    sized = [
        (each * profile.num_gpus, profile.measured is None, profile.name, profile)
        for profile in profiles
        if (each := sizing.memory_per_gpu_gib(profile.gpu_name)) is not None
    ]
    smaller = [one for one in sized if one[0] < asked]
    return min(smaller)[3] if smaller else None


def describe_cheaper(profile: Profile, other: Candidate, best: Candidate) -> str:
    """Say that `profile` costs less on `other` than the stack on `best`; empty if it does not."""
    now, then = best.landed_dollars_per_hour, other.landed_dollars_per_hour
    if now - then < _LEAST_SAVING:
        return ""
    fits = room(profile)
    holds = f", {fits.sequences:.1f} sequences" if fits else ""
    return (
        f"a cheaper way to serve this model: {profile.name} on {other.offer.num_gpus}x "
        f"{other.offer.gpu_name} costs ${then:.2f}/h with its start, not ${now:.2f}/h "
        f"({profile.max_model_len} tokens of context{holds}); "
        "`make compare` shows every way"
    )
