"""Instances as they are changed and ended, their logs, commands and SSH keys."""

from __future__ import annotations

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
from emulator.logs import excerpt
from emulator.routes_instance_reads import current_row
from emulator.terms import LONGEST_LABEL_LATER, label, shell_words

LONGEST_COMMAND = 512
_COMMANDS = ("ls", "rm", "du")


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
    return {"success": True, "updated_instance": current_row(call, changed)}


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
