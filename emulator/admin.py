"""The emulator's own routes under /emulator/: what happened, what it cost, and its switches.

They need no key: the server listens on loopback alone, and nothing here is secret. So a page in a
browser of this computer reaches them as well, and is refused: by the `Origin` that a browser adds,
and by the type of the body, since a page can send JSON nowhere without asking.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from emulator.api import as_int
from emulator.contract_types import Contract
from emulator.contracts import actual_status
from emulator.errors import ApiError
from emulator.faults import FAULTS, FaultRequest
from emulator.marketplace import Marketplace

Action = Callable[[Marketplace, dict[str, Any], Request], Awaitable[Any]]


def routes(market: Marketplace) -> list[Route]:
    """Return the admin routes of `market`."""
    table: list[tuple[str, str, Action]] = [
        ("GET", "status", _status),
        ("GET", "requests", _requests),
        ("GET", "ledger", _ledger),
        ("GET", "faults", _faults),
        ("POST", "faults", _arm),
        ("DELETE", "faults", _disarm),
        ("POST", "clock/advance", _advance),
        ("POST", "credit", _credit),
        ("POST", "reset", _reset),
        ("GET", "logs/{id:int}", _logs),
    ]
    return [_route(market, method, path, action) for method, path, action in table]


def ledger(market: Marketplace) -> dict[str, Any]:
    """Return what everything cost: by contract and kind, in all, and in an hour from now."""
    known = {one.id: one for one in market.ever()}
    sums: dict[int, dict[str, Any]] = {}
    for entry in market.store.entries():
        row = sums.setdefault(entry.contract_id, _ledger_row(entry.contract_id, known))
        row["since"] = min(row["since"] or entry.since, entry.since)
        row["until"] = max(row["until"] or entry.until, entry.until)
        row["amounts"][entry.kind] = row["amounts"].get(entry.kind, 0.0) + entry.amount
        row["quantities"][entry.kind] = row["quantities"].get(entry.kind, 0.0) + entry.quantity
        row["total"] += entry.amount
    return {
        "contracts": list(sums.values()),
        "total": market.spent(),
        "credit": market.credit(),
        "dollars_per_hour": market.per_hour(),
    }


def _ledger_row(contract_id: int, known: dict[int, Contract]) -> dict[str, Any]:
    contract = known.get(contract_id)
    return {
        "id": contract_id,
        "label": contract.label if contract else None,
        "alive": contract is not None and contract.phase != "gone",
        "dollars_per_hour": contract.per_hour_now() if contract else 0.0,
        "since": None,
        "until": None,
        "amounts": {},
        "quantities": {},
        "total": 0.0,
    }


async def _status(market: Marketplace, body: dict[str, Any], request: Request) -> Any:
    del body, request
    return {
        "clock": market.clock.now(),
        "speed": market.clock.speed,
        "credit": market.credit(),
        "spent": market.spent(),
        "dollars_per_hour": market.per_hour(),
        "contracts": [_contract(market, one) for one in market.alive()],
        "volumes": market.volumes.all(),
        "faults": [one.as_dict() for one in market.faults.armed()],
    }


def _contract(market: Marketplace, contract: Contract) -> dict[str, Any]:
    machine = market.machine(contract.machine_id)
    return {
        "id": contract.id,
        "label": contract.label,
        "phase": contract.phase.value,
        "actual_status": actual_status(contract),
        "intended_status": contract.intended,
        "status_msg": contract.status_msg,
        "machine_id": machine.id,
        "gpu_name": machine.gpu.name,
        "num_gpus": contract.num_gpus,
        "image": contract.image,
        "address": contract.address,
        "ports": contract.ports if contract.container_up else {},
        "ssh_port": contract.ssh_port,
        "dollars_per_hour": contract.per_hour_now(),
        "start_date": contract.start_date,
        "end_date": contract.end_date,
        "faults": contract.faults,
    }


async def _requests(market: Marketplace, body: dict[str, Any], request: Request) -> Any:
    del body
    rows = market.store.requests(as_int(request.query_params.get("after", 0), "after"))
    for row in rows:
        row["query"] = json.loads(row["query"])
        row["body"] = json.loads(row["body"])
        row["writes"] = bool(row["writes"])
    return {"requests": rows}


async def _ledger(market: Marketplace, body: dict[str, Any], request: Request) -> Any:
    del body, request
    await market.tick()
    return ledger(market)


async def _faults(market: Marketplace, body: dict[str, Any], request: Request) -> Any:
    del body, request
    known = [
        {"name": name, "acts": kind.acts, "does": kind.does, "params": kind.params}
        for name, kind in FAULTS.items()
    ]
    return {"armed": [one.as_dict() for one in market.faults.armed()], "known": known}


async def _arm(market: Marketplace, body: dict[str, Any], request: Request) -> Any:
    del request
    scenario = body.get("faults", [body])
    try:
        armed = market.faults.arm_all([_wanted(market, one) for one in scenario])
    except ValueError as wrong:
        raise ApiError(400, "invalid_args", str(wrong)) from wrong
    return {"success": True, "armed": [one.as_dict() for one in armed]}


def _wanted(market: Marketplace, body: Any) -> FaultRequest:
    if not isinstance(body, dict) or set(body) - {"name", "next", "machine", "params"}:
        text = f"a fault has name, next, machine and params, not {json.dumps(body)}"
        raise ApiError(400, "invalid_args", text)
    machine = body.get("machine")
    number = None if machine is None else as_int(machine, "machine")
    if number is not None and number not in {one.id for one in market.machines()}:
        raise ApiError(400, "invalid_args", f"there is no machine {number} in this market")
    params = {str(name): _text(value) for name, value in dict(body.get("params") or {}).items()}
    count = as_int(body.get("next", 1), "next")
    return FaultRequest(str(body.get("name", "")), count, number, params)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


async def _disarm(market: Marketplace, body: dict[str, Any], request: Request) -> Any:
    del body, request
    return {"success": True, "cleared": market.faults.clear()}


async def _advance(market: Marketplace, body: dict[str, Any], request: Request) -> Any:
    del request
    try:
        market.clock.advance(float(body.get("seconds", 0)))
    except (TypeError, ValueError) as wrong:
        raise ApiError(400, "invalid_args", str(wrong)) from wrong
    await market.tick()
    return {"success": True, "clock": market.clock.now()}


async def _credit(market: Marketplace, body: dict[str, Any], request: Request) -> Any:
    del request
    try:
        if "set" in body:
            granted = float(body["set"]) + market.spent()
        else:
            granted = float(market.store.fact("granted", 0.0)) + float(body.get("add", 0))
    except (TypeError, ValueError) as wrong:
        raise ApiError(400, "invalid_args", "give add or set, in $") from wrong
    market.store.set_fact("granted", granted)
    return {"success": True, "credit": market.credit()}


async def _reset(market: Marketplace, body: dict[str, Any], request: Request) -> Any:
    del request
    await market.reset(
        seed=as_int(body.get("seed", market.seed), "seed"),
        credit=float(body.get("credit", market.initial_credit)),
    )
    return {"success": True}


async def _logs(market: Marketplace, body: dict[str, Any], request: Request) -> Any:
    del body
    return {"log": market.host.log(int(request.path_params["id"]))}


async def _body(request: Request) -> dict[str, Any]:
    """The request's body, if the request is none of a browser's page."""
    if "origin" in request.headers:
        text = "no page of a browser drives the emulator: a request with an Origin is refused"
        raise ApiError(403, "not_authorized", text)
    raw = await request.body()
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and (raw or request.method == "POST"):
        raise ApiError(415, "invalid_args", "send application/json")
    try:
        body = json.loads(raw) if raw.strip() else {}
    except ValueError as wrong:
        raise ApiError(400, "invalid_args", "the body is not JSON") from wrong
    if not isinstance(body, dict):
        raise ApiError(400, "invalid_args", "the body is no JSON object")
    return body


def _route(market: Marketplace, method: str, path: str, action: Action) -> Route:
    async def answer(request: Request) -> Response:
        return JSONResponse(await action(market, await _body(request), request))

    return Route(f"/emulator/{path}", answer, methods=[method])
