"""Searching and renting: offers, volume offers, and the calls that turn one into a contract."""

from __future__ import annotations

from typing import Any

from emulator import throttle
from emulator.api import Call, Endpoint, as_int, as_list
from emulator.contract_types import Contract
from emulator.errors import ApiError, no_such_ask
from emulator.faults import Occasion
from emulator.gpus import GPUS
from emulator.keys import instance_key
from emulator.market import (
    DEFAULT_ALLOCATED_STORAGE_GB,
    MOST_OFFERS,
    hardware_row,
    landed_query,
    offer_row,
    storage_per_hour,
    volume_offer_id,
)
from emulator.query import QueryError, check, in_order, matches
from emulator.terms import read_terms

HOPPER = 900
"""H100's and H200's compute capability, times 100."""

KINDS = {
    "on-demand": "on-demand",
    "ondemand": "on-demand",
    "bid": "bid",
    "interruptible": "bid",
    "reserved": "reserved",
}


async def search(call: Call) -> Any:
    """POST /bundles/: the offers that fit the filters in the body."""
    return {"offers": find_offers(call, call.body)}


async def search_new(call: Call) -> Any:
    """PUT /search/asks/: the same with the query under `q`."""
    query = call.body.get("q")
    found = find_offers(call, query if isinstance(query, dict) else {})
    columns = call.body.get("select_cols", ["*"])
    if "*" in columns:
        return {"offers": found}
    return {"offers": [{name: row.get(name) for name in columns} for row in found]}


def find_offers(call: Call, body: dict[str, Any] | Any) -> list[dict[str, Any]]:
    """Return the rows of the offers that a search body asks for, at most 64.

    Raises:
        ApiError: 400 `invalid_request`.
    """
    kind = KINDS.get(str(body.get("type", "on-demand")))
    if kind is None:
        raise ApiError(400, "invalid_request", f"{body.get('type')!r} is not a valid offer type")
    now = call.market.clock.now()
    storage = _number(body.get("allocated_storage"), DEFAULT_ALLOCATED_STORAGE_GB)
    rows = [
        offer_row(offer, now=now, kind=kind, storage_gb=storage) for offer in call.market.offers()
    ]
    by_cuda_alone = "cuda_max_good" in body and "compute_cap" not in body
    if by_cuda_alone and call.market.faults.strike("hopper_hidden", Occasion()) is not None:
        rows = [row for row in rows if row["compute_cap"] != HOPPER]
    return _select(rows, body, [("score", "desc")])


async def rent(call: Call) -> Any:
    """PUT /asks/{id}/: rent one offer."""
    contract = await call.market.rent(call.number, read_terms(call.body, _template(call)))
    if contract.parked:
        return _refused_and_made(contract)
    return {
        "success": True,
        "new_contract": contract.id,
        "instance_api_key": instance_key(call.market.account_key, contract.id),
    }


def _refused_and_made(contract: Contract) -> dict[str, Any]:
    """The refusal that carries a contract: stopped, with its disk billed."""
    text = (
        f"error 410/3907: no_such_ask Instance type by id {contract.offer_id} is no longer "
        "available."
    )
    return {
        "success": False,
        "error": "no_such_ask",
        "msg": text,
        "ask_id": contract.offer_id,
        "new_contract": contract.id,
    }


async def rent_many(call: Call) -> Any:
    """POST /asks/bulk/: rent each offer of `ids`; those that are gone are told."""
    terms = read_terms(call.body, _template(call))
    results = []
    for offer_id in as_list(call.body.get("ids"), "ids"):
        try:
            contract = await call.market.rent(as_int(offer_id, "id"), terms)
        except ApiError as refusal:
            results.append({"ask_id": offer_id, **refusal.body})
            continue
        if contract.parked:
            results.append(_refused_and_made(contract))
            continue
        results.append({"ask_id": offer_id, "success": True, "new_contract": contract.id})
    rented = [one["new_contract"] for one in results if one["success"]]
    return {"success": bool(rented), "new_contracts": rented, "results": results}


async def launch(call: Call) -> Any:
    """PUT /launch_instance/: search and rent the first that fits."""
    query = call.body.get("q")
    found = find_offers(call, query if isinstance(query, dict) else {})
    rentable = [row for row in found if row["rentable"]]
    if not rentable:
        raise no_such_ask(0)
    contract = await call.market.rent(rentable[0]["id"], read_terms(call.body, _template(call)))
    if contract.parked:
        return _refused_and_made(contract)
    return {"success": True, "new_contract": contract.id}


async def search_volumes(call: Call) -> Any:
    """POST /volumes/search/: disk that machines offer for volumes."""
    size = _number(call.body.get("allocated_storage"), 1.0)
    rows = []
    for machine in call.market.machines():
        cost = storage_per_hour(size, machine.storage_cost)
        row = hardware_row(machine, machine.num_gpus) | {
            "id": volume_offer_id(machine),
            "ask_contract_id": volume_offer_id(machine),
            "disk_space": machine.disk_space / 4,
            "storage_total_cost": cost,
            "score": machine.reliability / machine.storage_cost,
            "duration": machine.ends_after,
            "end_date": call.market.clock.now() + machine.ends_after,
            "rentable": True,
        }
        rows.append(row)
    return {"offers": _select(rows, call.body, [("score", "desc")])}


async def gpu_names(call: Call) -> Any:
    """GET /gpu_names/unique/: the names that a search takes."""
    del call
    return {"gpu_names": sorted(gpu.name for gpu in GPUS)}


async def gpu_types(call: Call) -> Any:
    """GET /gpu_types/: the same list for benchmarks."""
    del call
    return {"gpu_types": sorted(gpu.name for gpu in GPUS)}


def _template(call: Call) -> dict[str, Any] | None:
    hash_id, number = call.body.get("template_hash_id"), call.body.get("template_id")
    if not hash_id and not number:
        return None
    for _, body in call.market.store.documents("template"):
        if body["hash_id"] == hash_id or body["id"] == number:
            return body
    raise ApiError(400, "invalid_args", f"there is no template {hash_id or number}")


def _select(
    rows: list[dict[str, Any]], body: Any, usual: list[tuple[str, str]]
) -> list[dict[str, Any]]:
    try:
        filters = check(landed_query(body), rows[0] if rows else {})
        order = [(str(column), str(way)) for column, way in body.get("order") or usual]
        found = in_order([row for row in rows if matches(row, filters)], order)
    except (QueryError, TypeError, ValueError) as wrong:
        raise ApiError(400, "invalid_request", str(wrong)) from wrong
    if "id" in filters:
        return []  # as the live search does; `ask_contract_id` is the column that can be filtered
    asked = int(_number(body.get("limit"), MOST_OFFERS))
    return [dict(row) for row in found[: min(asked, MOST_OFFERS)]]


def _number(value: Any, usual: float) -> float:
    try:
        return usual if value is None else float(value)
    except (TypeError, ValueError) as wrong:
        raise ApiError(400, "invalid_request", f"{value!r} is not a number") from wrong


ENDPOINTS = [
    Endpoint("POST", "/api/v0/bundles", search, "misc", throttle.SEARCH, open_to_all=True),
    Endpoint("PUT", "/api/v0/search/asks", search_new, "misc", throttle.SEARCH),
    Endpoint(
        "PUT",
        "/api/v0/asks/{id:int}",
        rent,
        "instance_write",
        throttle.CREATE,
        writes=True,
        call="create",
    ),
    Endpoint(
        "POST",
        "/api/v0/asks/bulk",
        rent_many,
        "instance_write",
        throttle.CREATE,
        writes=True,
        call="create",
    ),
    Endpoint(
        "PUT",
        "/api/v0/launch_instance",
        launch,
        "misc",
        throttle.LAUNCH,
        writes=True,
        call="create",
    ),
    Endpoint("POST", "/api/v0/volumes/search", search_volumes, "misc", throttle.SEARCH),
    Endpoint("GET", "/api/v0/gpu_names/unique", gpu_names, None),
    Endpoint("GET", "/api/v0/gpu_types", gpu_types, None),
]
