"""Instances as they are read: one alone, and the list, filtered, ordered, by the page."""

from __future__ import annotations

import json
from typing import Any

from emulator import throttle
from emulator.api import Call, Endpoint, as_int
from emulator.contract_types import Contract
from emulator.errors import ApiError
from emulator.faults import Occasion
from emulator.instance_view import instance_row
from emulator.query import QueryError, check, in_order, matches
from emulator.tokens import decoded, encoded

MOST_PER_PAGE = 25
PER_PAGE_OF_NOTHING = 5

_FILTERABLE = (
    "id",
    "label",
    "actual_status",
    "intended_status",
    "cur_state",
    "next_state",
    "gpu_name",
    "verification",
    "machine_id",
    "host_id",
    "image_uuid",
    "image_runtype",
    "is_bid",
    "start_date",
    "end_date",
    "template_id",
    "template_hash_id",
    "geolocation",
)


async def read(call: Call) -> Any:
    """GET /instances/{id}/: one instance, or null for one that is gone."""
    number = call.own(call.number)
    occasion = Occasion(contract=number)
    if call.market.faults.strike("instance_null_once", occasion) is not None:
        return {"instances": None}
    for contract in call.market.contracts():
        if contract.id == number:
            return {"instances": _single_row(call, contract)}
    return {"instances": None}


async def withdrawn(call: Call) -> Any:
    """GET /api/v0/instances/: withdrawn in 2026."""
    del call
    raise ApiError(
        410, "deprecated_endpoint", "This endpoint is deprecated; use /api/v1/instances/."
    )


async def read_page(call: Call) -> Any:
    """GET /api/v1/instances/: instances by the page, at most 25."""
    rows = [
        current_row(call, one) | {"volume_info": _volumes(call, one)}
        for one in call.market.contracts()
        if call.caller.contract_id in (None, one.id)
    ]
    found = _found(call, rows)
    asked = as_int(call.query.get("limit", MOST_PER_PAGE), "limit")
    size = min(asked, MOST_PER_PAGE) if asked > 0 else PER_PAGE_OF_NOTHING
    begin = _after(found, call.query.get("after_token"), _order(call))
    page = found[begin : begin + size]
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["label"] or ""] = counts.get(row["label"] or "", 0) + 1
    return {
        "success": True,
        "instances_found": len(page),
        "total_instances": len(found),
        "label_counts": counts,
        "next_token": _token(page[-1], _order(call)) if begin + size < len(found) else None,
        "instances": [_columns(call, row) for row in page],
    }


async def filters(call: Call) -> Any:
    """GET /instances/filters/: the values that the list can be filtered by."""
    rows = [current_row(call, one) for one in call.market.contracts()]
    names = ("gpu_name", "actual_status", "verification")
    return {"success": True, "filters": [{name: row[name] for name in names} for row in rows]}


async def count(call: Call) -> Any:
    """GET /instances/count/: how many there are."""
    return {"success": True, "count": len(call.market.contracts())}


def current_row(call: Call, contract: Contract) -> dict[str, Any]:
    """Return an instance as every answer shows it now."""
    return instance_row(
        contract,
        call.market.machine(contract.machine_id),
        now=call.market.clock.now(),
        credit=call.market.credit(),
    )


def _volumes(call: Call, contract: Contract) -> list[dict[str, Any]]:
    return [
        call.market.volumes.row(body)
        for body in call.market.volumes.all()
        if body["instance"] == contract.id
    ]


def _single_row(call: Call, contract: Contract) -> dict[str, Any]:
    row = current_row(call, contract)
    odd = call.market.faults.strike("ports_of_one", Occasion(contract=contract.id))
    if odd is None:
        return row
    numbers = sorted(int(one[0]["HostPort"]) for one in row["ports"].values())
    return row | {"ports": None if odd.get("form") == "none" else numbers}


def _found(call: Call, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    try:
        wanted = json.loads(call.query.get("select_filters") or "{}")
        known = check(wanted, _FILTERABLE)
        found = [row for row in rows if matches(row, known)]
    except (QueryError, ValueError, TypeError, KeyError, AttributeError) as wrong:
        raise ApiError(400, "invalid_request", str(wrong)) from wrong
    return [dict(row) for row in in_order(found, _order(call))]


def _order(call: Call) -> list[tuple[str, str]]:
    """Return the columns that the list is ordered by; `id` is always the last one."""
    try:
        asked = json.loads(call.query.get("order_by") or "[]")
        ways = [(str(one["col"]), str(one.get("dir", "asc"))) for one in asked]
    except (ValueError, TypeError, KeyError, AttributeError) as wrong:
        raise ApiError(400, "invalid_request", f"order_by: {wrong}") from wrong
    for column, _ in ways:
        if column not in _FILTERABLE:
            raise ApiError(400, "invalid_request", f"{column} is not a column to order by")
    return [*ways, *([] if "id" in dict(ways) else [("id", "asc")])]


def _columns(call: Call, row: dict[str, Any]) -> dict[str, Any]:
    try:
        names = json.loads(call.query.get("select_cols") or '["*"]')
    except ValueError as wrong:
        raise ApiError(400, "invalid_request", str(wrong)) from wrong
    return row if "*" in names else {name: row.get(name) for name in ("id", *names)}


def _token(last: dict[str, Any], ways: list[tuple[str, str]]) -> str:
    """Name the row that the next page begins after, by the values that it is ordered by."""
    return encoded({column: last.get(column) for column, _ in ways})


def _after(found: list[dict[str, Any]], token: str | None, ways: list[tuple[str, str]]) -> int:
    """Return where the page begins: behind the row of `token`, be it there still or not."""
    if not token:
        return 0
    values = decoded(token)
    if set(values) != {column for column, _ in ways}:
        raise ApiError(400, "invalid_token", "Invalid pagination token")
    # Sorting is stable: it comes to stand right behind the row that it names.
    ordered = in_order([*found, values], ways)
    return next(number for number, row in enumerate(ordered) if row is values)


_READ = "instance_read"
_ONE = "/api/v0/instances/{id:int}"

ENDPOINTS = [
    Endpoint("GET", "/api/v0/instances/filters", filters, _READ),
    Endpoint("GET", "/api/v0/instances/count", count, _READ),
    Endpoint("GET", "/api/v0/instances", withdrawn, _READ),
    Endpoint("GET", "/api/v1/instances", read_page, _READ, throttle.READ_LIST, by_instance=True),
    Endpoint("GET", _ONE, read, _READ, throttle.READ_ONE, by_instance=True),
]
