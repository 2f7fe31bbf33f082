"""Instances: reading, changing, ending them, their logs and commands."""

from __future__ import annotations

import json
import math
import re
import shlex
from typing import Any

from starlette.responses import PlainTextResponse

from emulator import throttle
from emulator.api import Call, Endpoint, as_int, as_list, as_number
from emulator.contract_types import RUNNING, STOPPED, Contract, Phase
from emulator.errors import ApiError
from emulator.faults import Occasion
from emulator.instance_view import instance_row
from emulator.logs import excerpt
from emulator.query import QueryError, check, in_order, matches
from emulator.terms import LONGEST_LABEL_LATER, label, shell_words
from emulator.tokens import decoded, encoded

MOST_PER_PAGE = 25
PER_PAGE_OF_NOTHING = 5
LONGEST_COMMAND = 512

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
_COMMANDS = ("ls", "rm", "du")


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


def _single_row(call: Call, contract: Contract) -> dict[str, Any]:
    row = _row(call, contract)
    odd = call.market.faults.strike("ports_of_one", Occasion(contract=contract.id))
    if odd is None:
        return row
    numbers = sorted(int(one[0]["HostPort"]) for one in row["ports"].values())
    return row | {"ports": None if odd.get("form") == "none" else numbers}


async def withdrawn(call: Call) -> Any:
    """GET /api/v0/instances/: withdrawn in 2026."""
    del call
    raise ApiError(
        410, "deprecated_endpoint", "This endpoint is deprecated; use /api/v1/instances/."
    )


async def read_page(call: Call) -> Any:
    """GET /api/v1/instances/: instances by the page, at most 25."""
    rows = [
        _row(call, one) | {"volume_info": _volumes(call, one)}
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
    rows = [_row(call, one) for one in call.market.contracts()]
    names = ("gpu_name", "actual_status", "verification")
    return {"success": True, "filters": [{name: row[name] for name in names} for row in rows]}


async def count(call: Call) -> Any:
    """GET /instances/count/: how many there are."""
    return {"success": True, "count": len(call.market.contracts())}


async def change(call: Call) -> Any:
    """PUT /instances/{id}/: `state` or `label`."""
    number = call.own(call.number)
    if "state" in call.body:
        return await _set_state(call, number, call.body["state"])
    if "label" in call.body:
        text = label(call.body["label"], LONGEST_LABEL_LATER)
        await call.market.change(number, label=text)
        return {"success": True}
    raise ApiError(400, "invalid_args", "state or label is missing")


async def change_many(call: Call) -> Any:
    """PUT /instances/: `state` for each of `ids`."""
    numbers = [as_int(number, "id") for number in as_list(call.body.get("ids"), "ids")]
    answers = [await _set_state(call, number, call.body.get("state")) for number in numbers]
    return {"success": all(answer["success"] for answer in answers), "results": answers}


async def reboot(call: Call) -> Any:
    """PUT /instances/reboot/{id}/."""
    await call.market.reboot(call.number)
    return {"success": True}


async def recycle(call: Call) -> Any:
    """PUT /instances/recycle/{id}/."""
    await call.market.recycle(call.number)
    return {"success": True}


async def bid(call: Call) -> Any:
    """PUT /instances/bid_price/{id}/: `price`, or null for one that wins."""
    asked = call.body.get("price")
    price = None if asked is None else as_number(asked, "price")
    return {"success": True, "price": await call.market.bid(call.number, price)}


async def update(call: Call) -> Any:
    """PUT /instances/update_template/{id}/: stored at once, applied by the next (re)start."""
    body = call.body
    fields: dict[str, Any] = {}
    if body.get("image"):
        fields["image"] = str(body["image"])
    if body.get("args") is not None:
        args = body["args"]
        fields["args"] = shell_words(args) if isinstance(args, str) else [str(one) for one in args]
    if isinstance(body.get("env"), dict):
        fields["env"] = {str(name): str(value) for name, value in body["env"].items()}
    if body.get("onstart") is not None:
        fields["onstart"] = str(body["onstart"])
    changed = await call.market.change(call.number, **fields)
    return {"success": True, "updated_instance": _row(call, changed)}


async def destroy(call: Call) -> Any:
    """DELETE /instances/{id}/: asynchronous; gone a moment later."""
    await _destroy(call, call.own(call.number))
    return {"success": True, "msg": f"destroying instance {call.number}."}


async def destroy_many(call: Call) -> Any:
    """DELETE /instances/: each of `instance_ids`."""
    asked = as_list(call.body.get("instance_ids"), "instance_ids")
    numbers = [as_int(number, "id") for number in asked]
    missing = []
    for number in numbers:
        try:
            await _destroy(call, number)
        except ApiError:
            missing.append(number)
    return {"success": not missing, "msg": f"destroying {len(numbers)}", "not_found": missing}


async def request_logs(call: Call) -> Any:
    """PUT /instances/request_logs/{id}/: a link to the log, which works a little later."""
    contract = call.market.contract(call.number)
    tail = call.body.get("tail")
    daemon = str(call.body.get("daemon_logs", "")).lower() == "true"
    text = contract.status_msg or "" if daemon else _printed(call, contract)
    try:
        shown = excerpt(
            text,
            tail=None if tail in (None, "") else as_int(tail, "tail"),
            pattern=call.body.get("filter"),
        )
    except re.error as wrong:
        raise ApiError(
            400, "invalid_args", f"filter is not a regular expression: {wrong}"
        ) from wrong
    return {"success": True, "result_url": _link(call, shown), "msg": "logs are being uploaded"}


async def execute(call: Call) -> Any:
    """PUT /instances/command/{id}/: `ls`, `rm` or `du`, inside the container's disk."""
    contract = call.market.contract(call.number)
    words = _words(str(call.body.get("command", "")))
    if contract.phase is not Phase.STOPPED:
        text = f"Instance {contract.id} is not stopped: use ssh to run commands on it."
        raise ApiError(400, "invalid_container", text)
    printed = await call.market.host.execute(contract.id, words)
    return {
        "success": True,
        "result_url": _link(call, printed),
        "writeable_path": f"/var/lib/docker/containers/C.{contract.id}",
    }


async def fetch_result(call: Call) -> Any:
    """GET the link of a log: 403 until the upload is there, then text; no key is asked for."""
    text = call.results.fetch(call.token.removesuffix(".log"))
    if text is None:
        return PlainTextResponse("AccessDenied", status_code=403)
    return PlainTextResponse(text)


async def ssh_keys(call: Call) -> Any:
    """GET /instances/{id}/ssh/: the keys that may log in."""
    contract = call.market.contract(call.number)
    return [{"id": number, "public_key": key} for number, key in enumerate(contract.ssh_keys, 1)]


async def add_ssh_key(call: Call) -> Any:
    """POST /instances/{id}/ssh/: let one more key in."""
    number = call.number
    key = str(call.body.get("ssh_key", "")).strip()
    if not key:
        raise ApiError(400, "invalid_args", "ssh_key is missing")
    keys = call.market.contract(number).ssh_keys
    await call.market.authorize(number, [*keys, key] if key not in keys else keys)
    return {"success": True, "msg": "SSH key added to instance."}


async def drop_ssh_key(call: Call) -> Any:
    """DELETE /instances/{id}/ssh/{key}/: keep one key out from now on."""
    number = call.number
    keys = call.market.contract(number).ssh_keys
    place = as_int(call.token, "key")
    if not 1 <= place <= len(keys):
        raise ApiError(404, "no_such_ssh_key", f"Instance {number} has no SSH key {place}.")
    await call.market.authorize(number, keys[: place - 1] + keys[place:])
    return {"success": True}


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


async def _set_state(call: Call, number: int, state: Any) -> dict[str, Any]:
    if state not in (RUNNING, STOPPED):
        raise ApiError(400, "invalid_args", f"state {state!r} is neither running nor stopped")
    if await call.market.set_state(number, state):
        return {"success": True}
    return {
        "success": False,
        "error": "resources_unavailable",
        "msg": "Required resources are currently unavailable, state change queued.",
    }


async def _destroy(call: Call, number: int) -> None:
    contract = call.market.contract(number)
    occasion = Occasion(machine=contract.machine_id, contract=number)
    if call.market.faults.strike("destroy_lies", occasion) is None:
        await call.market.destroy(number)


def _row(call: Call, contract: Contract) -> dict[str, Any]:
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


def _words(command: str) -> list[str]:
    if len(command) > LONGEST_COMMAND:
        raise ApiError(400, "invalid_args", f"command is longer than {LONGEST_COMMAND} characters")
    try:
        words = shlex.split(command)
    except ValueError as wrong:
        raise ApiError(400, "invalid_args", f"command: {wrong}") from wrong
    if not words or words[0] not in _COMMANDS:
        raise ApiError(400, "invalid_args", f"command must be one of {', '.join(_COMMANDS)}")
    for word in words[1:]:
        outside = word.startswith("/") and word != "/root" and not word.startswith("/root/")
        if outside or ".." in word.split("/"):
            raise ApiError(400, "invalid_args", f"{word} is not below /root")
    return words


def _printed(call: Call, contract: Contract) -> str:
    """What the container printed; nothing as long as the fault `log_late` holds."""
    late = contract.faults.get("log_late")
    if late is not None:
        now = call.market.clock.now()
        if now - (contract.running_since or now) < float(late.get("seconds", math.inf)):
            return ""
    return call.market.host.log(contract.id)


def _link(call: Call, text: str) -> str:
    return f"{call.base_url}/instance_logs/{call.results.add(text)}.log"


_READ, _WRITE = "instance_read", "instance_write"
_ONE = "/api/v0/instances/{id:int}"

ENDPOINTS = [
    Endpoint("GET", "/api/v0/instances/filters", filters, _READ),
    Endpoint("GET", "/api/v0/instances/count", count, _READ),
    Endpoint("GET", "/api/v0/instances/pending-price-increases", price_increases, _READ),
    Endpoint("PUT", "/api/v0/instances/accept-price-increase", accept_price, _WRITE, writes=True),
    Endpoint("PUT", "/api/v0/instances/reject-price-increase", reject_price, _WRITE, writes=True),
    Endpoint("GET", "/api/v0/instances", withdrawn, _READ),
    Endpoint("GET", "/api/v1/instances", read_page, _READ, throttle.READ_LIST, by_instance=True),
    Endpoint("GET", _ONE, read, _READ, throttle.READ_ONE, by_instance=True),
    Endpoint(
        "PUT", _ONE, change, _WRITE, throttle.STATE, writes=True, call="state", by_instance=True
    ),
    Endpoint(
        "PUT", "/api/v0/instances", change_many, _WRITE, throttle.STATE, writes=True, call="state"
    ),
    Endpoint(
        "DELETE",
        _ONE,
        destroy,
        _WRITE,
        throttle.DESTROY,
        writes=True,
        call="destroy",
        by_instance=True,
    ),
    Endpoint(
        "DELETE",
        "/api/v0/instances",
        destroy_many,
        _WRITE,
        throttle.DESTROY,
        writes=True,
        call="destroy",
    ),
    Endpoint(
        "PUT",
        "/api/v0/instances/reboot/{id:int}",
        reboot,
        _WRITE,
        throttle.RESTART,
        writes=True,
        call="state",
    ),
    Endpoint(
        "PUT",
        "/api/v0/instances/recycle/{id:int}",
        recycle,
        _WRITE,
        throttle.RESTART,
        writes=True,
        call="state",
    ),
    Endpoint("PUT", "/api/v0/instances/bid_price/{id:int}", bid, _WRITE, throttle.BID, writes=True),
    Endpoint("PUT", "/api/v0/instances/update_template/{id:int}", update, _WRITE, writes=True),
    Endpoint("PUT", "/api/v0/instances/request_logs/{id:int}", request_logs, _READ),
    Endpoint(
        "PUT", "/api/v0/instances/command/{id:int}", execute, _WRITE, throttle.EXECUTE, writes=True
    ),
    Endpoint("GET", _ONE + "/ssh", ssh_keys, _READ),
    Endpoint("POST", _ONE + "/ssh", add_ssh_key, _WRITE, throttle.SSH_KEYS, writes=True),
    Endpoint("DELETE", _ONE + "/ssh/{token}", drop_ssh_key, _WRITE, throttle.SSH_KEYS, writes=True),
    Endpoint("GET", "/instance_logs/{token}", fetch_result, None),
]
