"""Price increases that hosts ask for: listed, accepted, refused."""

from __future__ import annotations

from typing import Any

from emulator.api import Call, Endpoint, as_int
from emulator.errors import ApiError


async def price_increases(call: Call) -> Any:
    """GET /instances/pending-price-increases/: what hosts ask for."""
    rows = []
    for number, body in call.market.store.documents("price_increase"):
        contract = next((one for one in call.market.alive() if one.id == body["contract_id"]), None)
        if contract is None:
            continue
        machine = call.market.machine(contract.machine_id)
        rows.append(
            {
                "pending_price_increase_id": number,
                "contract_id": contract.id,
                "host_id": machine.host_id,
                "new_gpu_costpersec": body["new"] / 3600,
                "old_gpu_costpersec": body["old"] / 3600,
                "new_disk_ram_costpersec": None,
                "old_disk_ram_costpersec": None,
                "new_bwu_cost": None,
                "old_bwu_cost": None,
                "new_bwd_cost": None,
                "old_bwd_cost": None,
                "new_platform_fee": None,
                "old_platform_fee": None,
                "contract_end_date": contract.end_date,
                "ask_end_date": body["ask_end_date"],
                "created_at": body["created_at"],
            }
        )
    return {
        "success": True,
        "count": len(rows),
        "truncated": False,
        "pending_price_increases": rows,
    }


async def accept_price(call: Call) -> Any:
    """PUT /instances/accept-price-increase/: pay more, for longer."""
    number, body = _increase(call)
    await call.market.change(
        body["contract_id"], gpu_per_hour=body["new"], end_date=body["ask_end_date"]
    )
    return _answered(call, number, body)


async def reject_price(call: Call) -> Any:
    """PUT /instances/reject-price-increase/: the contract ends as agreed."""
    return _answered(call, *_increase(call))


def _increase(call: Call) -> tuple[int, dict[str, Any]]:
    if set(call.body) != {"pending_price_increase_id"}:
        raise ApiError(
            400, "invalid_args", "the body is pending_price_increase_id and nothing else"
        )
    number = as_int(call.body["pending_price_increase_id"], "pending_price_increase_id")
    body = call.market.store.document("price_increase", number)
    if body is None:
        raise ApiError(404, "no_pending_price_increase", f"nothing is pending under {number}")
    return number, body


def _answered(call: Call, number: int, body: dict[str, Any]) -> dict[str, Any]:
    call.market.store.drop_document("price_increase", number)
    return {
        "success": True,
        "pending_price_increase_id": number,
        "contract_id": body["contract_id"],
    }


_READ, _WRITE = "instance_read", "instance_write"

ENDPOINTS = [
    Endpoint("GET", "/api/v0/instances/pending-price-increases", price_increases, _READ),
    Endpoint("PUT", "/api/v0/instances/accept-price-increase", accept_price, _WRITE, writes=True),
    Endpoint("PUT", "/api/v0/instances/reject-price-increase", reject_price, _WRITE, writes=True),
]
