"""From settings and a profile to what has to be rented: query, needs, disk. Pure."""

from __future__ import annotations

from components import gpu_choice
from components.core.errors import ConfigurationError
from components.machine.gpus import GpuRule
from components.release.release import Release, ReleaseOverridden
from components.settings import Settings
from components.vast.market.query import Query, gpus_asked, parse_query
from components.vast.market.requirements import Requirements
from components.vllm import sizing
from components.vllm.profile import Profile


class DiskTooSmall(ConfigurationError):
    """The disk that would be rented cannot hold image and weights.

    Cost: nothing was rented.
    Remedy: raise `diskGb` to what the message says.
    """


def query_text(settings: Settings, profile: Profile, release: Release | None) -> str:
    """Give the query that the market is searched with, in the grammar of `vastai search offers`.

    With a release it asks for the release's GPUs, whatever else the stack asks for.

    Raises:
        QueryRefused: if the stack's own query does not parse.
        ReleaseOverridden: if it asks for other GPUs than the release was proven on.
    """
    text = settings.offer_query or own_query(profile)
    if release is None:
        return text
    query = parse_query(text)
    _check_hardware(release, query)
    return text if "gpu_name" in query else f"gpu_name={_as_query_value(profile.gpu_name)} {text}"


def own_query(profile: Profile) -> str:
    """Give the query for the GPUs that a profile is made for."""
    return f"gpu_name={_as_query_value(profile.gpu_name)} num_gpus={profile.num_gpus}"


def required(settings: Settings, profile: Profile, num_gpus: int, rule: GpuRule) -> Requirements:
    """Compute what `num_gpus` GPUs need to serve `profile`, and what they may cost.

    `rule` says on which GPUs the server starts.
    """
    return Requirements(
        num_gpus=num_gpus,
        gpu_ram_gib=sizing.needed_gpu_memory_gib(profile, num_gpus, profile.max_model_len),
        disk_gb=profile.disk_gb,
        download_gb=profile.weights_gb + profile.image_gb,
        weights_gb=profile.weights_gb,
        repository=profile.repository,
        revision=profile.revision,
        files=profile.files,
        min_cuda=profile.min_cuda,
        min_driver=profile.min_driver,
        max_dollars_per_hour=settings.max_dollars_per_hour,
        max_dollars_per_month=settings.max_dollars_per_month,
        datacenter_only=settings.datacenter_only,
        min_reliability=settings.min_reliability,
        min_inet_down_mbps=settings.min_inet_down_mbps,
        min_days_left=_days_left(settings),
        expected_hours=settings.expected_hours,
        ready_minutes=settings.ready_minutes,
        rent_budget_minutes=settings.rent_budget_minutes,
        rent_budget_dollars=settings.rent_budget_dollars,
        contract=settings.contract,
        least_compute_cap=float(rule.least),
        compute_cap_below=float(rule.below),
    )


def check_disk(profile: Profile) -> None:
    """Refuse a disk that is too small before it is rented, since it cannot grow later.

    Raises:
        DiskTooSmall: with what there would be and what is needed.
    """
    needed = sizing.least_disk_gb(profile.weights_gb, profile.image_gb)
    if profile.disk_gb < needed:
        raise DiskTooSmall(
            f"diskGb is {profile.disk_gb:g} and {profile.name} needs {needed:.0f} GB: "
            f"{profile.weights_gb:g} for the weights, {profile.image_gb:g} for the image and room "
            "to work; a machine's disk cannot grow later, so raise diskGb now; nothing was rented"
        )


def _check_hardware(release: Release, query: Query) -> None:
    """Refuse a query for other GPUs than the release was proven on; the rest of it is free.

    Raises:
        ReleaseOverridden: with what the query may ask for.
    """
    proven = release.runs.profile
    same_name = "gpu_name" not in query or gpu_choice.only_gpu(query) == proven.gpu_name
    if same_name and gpus_asked(query, proven.num_gpus) == proven.num_gpus:
        return
    raise ReleaseOverridden(
        f"the stack runs the release {release.name}, which was proven on {proven.num_gpus}x "
        f"{proven.gpu_name}, and its offerQuery asks for other GPUs: write "
        f"`{own_query(proven)}` there, or neither of the two, or change the first stack and "
        "write a release of that"
    )


def _as_query_value(gpu_name: str) -> str:
    return gpu_name.replace(" ", "_")


def _days_left(settings: Settings) -> float:
    """Give the least days that a host must still offer its machine.

    A machine that is replaced days before its contract ends needs a successor that lasts longer.
    """
    if settings.when_contract_ends != "replace":
        return settings.min_days_left
    return max(settings.min_days_left, settings.warn_days_before + 1)
