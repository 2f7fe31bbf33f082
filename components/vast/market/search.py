"""What the market is asked for: the user's query and what the deployment needs. Pure.

Floors are added to a query, never put in its place: a user's stricter condition stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from components.machine import gpus
from components.vast.api.numbers import number
from components.vast.market.query import Query
from components.vast.market.requirements import Requirements

if TYPE_CHECKING:
    from components.vast.api.models import Json

SEARCH_LIMIT = 64
"""Most offers that Vast gives, whatever is asked (vast-api reference, 2.5)."""

LEAST_COMPUTE_CAP = 500
"""A floor that every GPU of today passes, times 100. A search by CUDA's version without such a
floor has hidden H100 and H200 (marketplace-facts, 13).
"""


def with_floors(query: Query, need: Requirements) -> Query:
    """Add what the deployment needs to what the user asks; the stricter condition stays."""
    floors: dict[str, float] = {
        "direct_port_count": 2,
        "disk_space": need.disk_gb,
        "cuda_max_good": need.min_cuda,
        "compute_cap": max(LEAST_COMPUTE_CAP, need.least_compute_cap),
        "reliability": need.min_reliability,
        "inet_down": need.min_inet_down_mbps,
        "duration": need.min_days_left * 86400,
        "gpu_ram": _least_memory_mib(need),
    }
    whole = {field: dict(conditions) for field, conditions in query.items()}
    whole.setdefault("num_gpus", {"eq": need.num_gpus})
    if need.datacenter_only:
        whole["datacenter"] = {"eq": True}
    for field, floor in floors.items():
        conditions = whole.setdefault(field, {})
        if "eq" in conditions:
            continue
        asked = float(conditions.get("gte", floor))
        conditions["gte"] = max(asked, floor)
    if need.compute_cap_below and "eq" not in whole["compute_cap"]:
        asked = float(whole["compute_cap"].get("lt", need.compute_cap_below))
        whole["compute_cap"]["lt"] = min(asked, need.compute_cap_below)
    return whole


def search_body(query: Query, need: Requirements) -> dict[str, Any]:
    """Build the body of a search: cheapest first, priced with the real disk."""
    return {
        **query,
        "order": [["dph_total", "asc"]],
        "type": "bid" if need.contract == "interruptible" else "on-demand",
        "limit": SEARCH_LIMIT,
        "allocated_storage": need.disk_gb,
    }


def starts_on(row: Json, need: Requirements) -> bool:
    """Whether the server starts on a row's GPUs, whatever the query asks for.

    A row without a memory or a capability is judged by its GPU's name. A row with an unknown name,
    or with a value that is no number, is not rented.
    """
    if str(row.get("gpu_arch") or "nvidia").lower() != "nvidia":
        return False
    if row.get("gpu_ram") is not None:
        memory = number(row["gpu_ram"])
        if memory is None or memory < _least_memory_mib(need):
            return False
    if not need.least_compute_cap:
        return True
    by_name = gpus.capability(str(row.get("gpu_name") or ""))
    capability = number(row["compute_cap"]) if row.get("compute_cap") else by_name
    if not capability:
        return False
    too_new = need.compute_cap_below and capability >= need.compute_cap_below
    return capability >= need.least_compute_cap and not too_new


def _least_memory_mib(need: Requirements) -> float:
    """GiB to the MB (really MiB) of Vast; a percent less, since drivers keep some themselves."""
    return need.gpu_ram_gib * 1024 * 0.99
