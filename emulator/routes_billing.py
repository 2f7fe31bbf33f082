"""Money: what each contract cost, and what was paid in."""

from __future__ import annotations

import json
import math
from typing import Any

from starlette.responses import JSONResponse

from emulator import throttle
from emulator.api import Call, Endpoint, as_int
from emulator.errors import ApiError
from emulator.ledger import Entry
from emulator.market import DAY
from emulator.tokens import decoded, encoded

CHARGES, MOST_CHARGES = 100, 500
"""On a page, unless it is asked for more."""


async def charges(call: Call) -> Any:
    """GET /charges/: what each contract cost in a range of days, which is mandatory."""
    try:
        since, until = _range(call, "day")
    except ApiError:
        text = "Must provide both 'day' gte and lte filters for instance charges"
        return JSONResponse({"success": False, "msg": text}, 400)
    contracts: dict[int, list[Entry]] = {}
    for entry in call.market.store.entries():
        if entry.until >= since and entry.since <= until:
            contracts.setdefault(entry.contract_id, []).append(entry)
    rows = [_charge_row(call, number, entries) for number, entries in contracts.items()]
    kinds = json.loads(call.query.get("select_filters") or "{}").get("type", {}).get("in")
    return _page(call, [row for row in rows if kinds is None or row["type"] in kinds])


async def invoices(call: Call) -> Any:
    """GET /api/v1/invoices/: what was paid in. Without a range: 200, success false."""
    try:
        since, until = _range(call, "when")
    except ApiError:
        return {"success": False, "error": "invalid_args", "msg": "select_filters.when is missing"}
    granted = float(call.market.store.fact("granted", 0.0))
    when = float(call.market.store.fact("birth", 0.0))
    row = {
        "start": when,
        "end": when,
        "type": "transfer_in",
        "source": "emulator",
        "description": "credit",
        "amount": granted,
        "metadata": {},
        "items": [],
    }
    return _page(call, [row] if since <= when <= until else [])


def _range(call: Call, column: str) -> tuple[float, float]:
    """Return the range that is asked for, in emulated time.

    A client knows its own clock alone, and emulated time runs ahead of it: a range that reaches
    to the client's present reaches to the emulated one.
    """
    try:
        asked = json.loads(call.query.get("select_filters") or "{}")[column]
        since, until = float(asked["gte"]), float(asked["lte"])
    except (ValueError, KeyError, TypeError) as wrong:
        text = f"select_filters.{column} needs gte and lte in epoch seconds"
        raise ApiError(400, "invalid_args", text) from wrong
    behind = call.market.wall_clock()
    return since, max(until, call.market.clock.now()) if until >= behind - DAY else until


def _charge_row(call: Call, number: int, entries: list[Entry]) -> dict[str, Any]:
    contract = next((one for one in call.market.ever() if one.id == number), None)
    kind = "volume" if contract is None else "instance"
    kinds = sorted({entry.kind for entry in entries})
    items = [_item(name, [entry for entry in entries if entry.kind == name]) for name in kinds]
    label, template = (contract.label, contract.template_id) if contract else (None, None)
    known = {"label": label, "template_id": template}
    start, end = _span(entries)
    days = (end - start) // int(DAY) + 1
    return {
        "start": start,
        "end": end,
        "type": kind,
        "source": f"{kind}-{number}",
        "description": f"{kind.capitalize()} {number} Charges - {days} days",
        "amount": _dollars(entries),
        "metadata": {name: value for name, value in known.items() if value is not None},
        "items": items,
    }


def _span(entries: list[Entry]) -> tuple[int, int]:
    """Return the first and the last moment, in whole seconds."""
    return int(min(one.since for one in entries)), math.ceil(max(one.until for one in entries))


def _dollars(entries: list[Entry]) -> float:
    """Return their sum as the ledger shows it: what is under half a tenth of a cent vanishes."""
    return round(sum(entry.amount for entry in entries), 3)


def _item(kind: str, entries: list[Entry]) -> dict[str, Any]:
    quantity = sum(entry.quantity for entry in entries)
    amount = sum(entry.amount for entry in entries)
    size, unit = (quantity / 3600, "hour") if kind in ("gpu", "disk") else (quantity / 1e9, "GB")
    start, end = _span(entries)
    return {
        "start": start,
        "end": end,
        "type": kind,
        "source": None,
        "description": f"{size:.3f} {unit}s at ${amount / size if size else 0:.3f}/{unit}",
        "amount": _dollars(entries),
        "metadata": {},
        "items": [],
    }


def _page(call: Call, rows: list[dict[str, Any]]) -> dict[str, Any]:
    newest_first = call.query.get("latest_first", "true").lower() == "true"
    rows = sorted(rows, key=lambda row: (row["start"], _number(row)), reverse=newest_first)
    size = min(max(1, as_int(call.query.get("limit", CHARGES), "limit")), MOST_CHARGES)
    token = call.query.get("after_token")
    last = decoded(token)["id"] if token else None
    numbers = [_number(row) for row in rows]
    if last is not None and last not in numbers:
        raise ApiError(400, "invalid_token", "Invalid pagination token")
    begin = 0 if last is None else numbers.index(last) + 1
    page = rows[begin : begin + size]
    return {
        "success": True,
        "count": len(page),
        "total": len(rows),
        "next_token": encoded({"id": _number(page[-1])}) if begin + size < len(rows) else None,
        "results": page,
    }


def _number(row: dict[str, Any]) -> int:
    """Return the contract's number; 0 for what is of none."""
    number = str(row["source"]).rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


ENDPOINTS = [
    Endpoint("GET", "/api/v0/charges", charges, "billing_read", throttle.CHARGES),
    Endpoint("GET", "/api/v1/invoices", invoices, "billing_read", throttle.INVOICES),
]
