"""The account: its user, keys, secrets, templates and volumes."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from components.machine.ssh_library import asyncssh
from emulator import throttle
from emulator.api import Call, Endpoint, as_int, as_number
from emulator.errors import ApiError
from emulator.keys import SCOPES, digest, new_key
from emulator.market import volume_offer_id
from emulator.query import QueryError, matches

MOST_SECRETS = 256
MASKED = "********"
USER_ID = 1


async def user(call: Call) -> Any:
    """GET /users/current."""
    keys = [body["public_key"] for _, body in call.market.store.documents("ssh_key")]
    return {
        "id": USER_ID,
        "username": "emulator",
        "email": "emulator@localhost",
        "balance": 0.0,
        "credit": call.market.credit(),
        "ssh_key": keys[0] if keys else None,
        "host_agreement_accepted": 0,
        "sid": "emulator",
        "key_id": call.caller.key_id,
        "has_billing": True,
    }


async def ssh_keys(call: Call) -> Any:
    """GET /ssh/: a bare array, or 404 if there is none."""
    keys = [body for _, body in call.market.store.documents("ssh_key")]
    if not keys:
        raise ApiError(404, "no_ssh_keys", "No SSH keys found.")
    return keys


async def add_ssh_key(call: Call) -> Any:
    """POST /ssh/: goes into every instance that is rented from now on."""
    key = _public_key(call.body.get("ssh_key"))
    store = call.market.store
    for _, body in store.documents("ssh_key"):
        if body["public_key"] == key:
            raise ApiError(400, "duplicate_ssh_key", "SSH key already exists.")
    number = store.next_id("ssh_key")
    body = {"id": number, "public_key": key, "created_at": call.market.clock.now()}
    store.save_document("ssh_key", number, body)
    return {"success": True, "key": body}


async def change_ssh_key(call: Call) -> Any:
    """PUT /ssh/{id}/."""
    body = call.market.store.document("ssh_key", call.number)
    if body is None:
        raise ApiError(404, "no_such_ssh_key", f"SSH key {call.number} not found.")
    changed = body | {"public_key": _public_key(call.body.get("ssh_key"))}
    call.market.store.save_document("ssh_key", call.number, changed)
    return {"success": True, "key": changed}


async def drop_ssh_key(call: Call) -> Any:
    """DELETE /ssh/{id}/."""
    if not call.market.store.drop_document("ssh_key", call.number):
        raise ApiError(404, "no_such_ssh_key", f"SSH key {call.number} not found.")
    return {"success": True}


async def secrets(call: Call) -> Any:
    """GET /secrets/: names; values never come back."""
    return {"success": True, "secrets": dict.fromkeys(sorted(call.market.secrets()), MASKED)}


async def add_secret(call: Call) -> Any:
    """POST /secrets/: a new one."""
    name = _secret_name(call)
    if name in call.market.secrets():
        raise ApiError(400, "existing_key", f"{name} exists already")
    if len(call.market.secrets()) >= MOST_SECRETS:
        raise ApiError(400, "max_secrets", f"there are {MOST_SECRETS} secrets already")
    return _save_secret(call, call.market.store.next_id("secret"), name)


async def change_secret(call: Call) -> Any:
    """PUT /secrets/: another value."""
    name = _secret_name(call)
    return _save_secret(call, _secret_number(call, name), name)


async def drop_secret(call: Call) -> Any:
    """DELETE /secrets/ with its name in the body."""
    name = str(call.body.get("key", "")).upper()
    call.market.store.drop_document("secret", _secret_number(call, name))
    return {"success": True}


async def api_keys(call: Call) -> Any:
    """GET /auth/apikeys/: without the keys themselves."""
    return {"success": True, "apikeys": [_key_row(one) for one in _keys(call)]}


async def api_key(call: Call) -> Any:
    """GET /auth/apikeys/{id}/."""
    for number, body in _keys(call):
        if number == call.number:
            return _key_row((number, body))
    raise ApiError(404, "no_such_key", f"API key {call.number} not found.")


async def add_api_key(call: Call) -> Any:
    """POST /auth/apikeys/: shown this once."""
    permissions = call.body.get("permissions")
    granted = permissions.get("api", {}) if isinstance(permissions, dict) else None
    if not isinstance(granted, dict) or not set(granted) <= SCOPES:
        raise ApiError(400, "invalid_args", f"permissions.api must name some of {sorted(SCOPES)}")
    key = new_key()
    number = call.market.store.next_id("api_key")
    body = {
        "name": str(call.body.get("name") or f"key {number}"),
        "permissions": permissions,
        "sha256": digest(key),
        "created_at": call.market.clock.now(),
    }
    call.market.store.save_document("api_key", number, body)
    return {"success": True, "id": number, "key": key, "permissions": permissions}


async def drop_api_key(call: Call) -> Any:
    """DELETE /auth/apikeys/{id}/."""
    if not call.market.store.drop_document("api_key", call.number):
        raise ApiError(404, "no_such_key", f"API key {call.number} not found.")
    return {"success": True}


async def templates(call: Call) -> Any:
    """GET /template/: those that the filters fit."""
    rows = [body for _, body in call.market.store.documents("template")]
    try:
        filters = json.loads(call.query.get("select_filters") or "{}")
        found = [row for row in rows if matches(row, filters)]
    except (QueryError, ValueError, AttributeError) as wrong:
        raise ApiError(400, "invalid_request", str(wrong)) from wrong
    return {"success": True, "templates_found": len(found), "templates": found}


async def add_template(call: Call) -> Any:
    """POST /template/."""
    return _save_template(call, call.market.store.next_id("template"))


async def change_template(call: Call) -> Any:
    """PUT /api/v1/template/: everything at once; what is left out is wiped."""
    number = as_int(call.body.get("id"), "id")
    if call.market.store.document("template", number) is None:
        raise ApiError(404, "no_such_template", f"Template {number} not found.")
    return _save_template(call, number)


async def drop_template(call: Call) -> Any:
    """DELETE /template/ by template_id or hash_id."""
    number, hash_id = call.body.get("template_id"), call.body.get("hash_id")
    for known, body in call.market.store.documents("template"):
        if known == number or (hash_id and body["hash_id"] == hash_id):
            call.market.store.drop_document("template", known)
            return {"success": True}
    raise ApiError(404, "no_such_template", f"Template {number or hash_id} not found.")


async def volumes(call: Call) -> Any:
    """GET /volumes."""
    shown = call.market.volumes
    return {"success": True, "volumes": [shown.row(body) for body in shown.all()]}


async def add_volume(call: Call) -> Any:
    """PUT /volumes/: rent disk on one machine."""
    offer = as_int(call.body.get("id"), "id")
    for machine in call.market.machines():
        if volume_offer_id(machine) != offer:
            continue
        async with call.market.at_once() as now:
            size = as_number(call.body.get("size") or 15.0, "size")
            made = call.market.volumes.create(machine, size, call.body.get("name"), now)
        return {"success": True, "volume_name": f"V.{made['id']}"}
    raise ApiError(404, "no_such_ask", f"Volume offer {offer} is not available.")


async def drop_volume(call: Call) -> Any:
    """DELETE /volumes/?id=: refused while an instance uses it."""
    number = as_int(call.query.get("id", call.body.get("id")), "id")
    async with call.market.at_once() as now:
        call.market.volumes.delete(number, now)
    return {"success": True}


def _public_key(value: Any) -> str:
    text = str(value or "").strip()
    try:
        asyncssh.import_public_key(text)
    except asyncssh.KeyImportError as wrong:
        raise ApiError(400, "invalid_ssh_key", "ssh_key is not an OpenSSH public key") from wrong
    return text


def _secret_name(call: Call) -> str:
    name, value = call.body.get("key"), call.body.get("value")
    if not name or value is None:
        raise ApiError(400, "missing_input", "key and value are needed")
    return str(name).upper()


def _secret_number(call: Call, name: str) -> int:
    for number, body in call.market.store.documents("secret"):
        if body["key"] == name:
            return number
    raise ApiError(400, "nonexistent_key", f"there is no secret {name}")


def _save_secret(call: Call, number: int, name: str) -> dict[str, Any]:
    body = {"key": name, "value": str(call.body["value"])}
    call.market.store.save_document("secret", number, body)
    return {"success": True, "msg": f"{name} saved"}


def _keys(call: Call) -> list[tuple[int, dict[str, Any]]]:
    return call.market.store.documents("api_key")


def _key_row(key: tuple[int, dict[str, Any]]) -> dict[str, Any]:
    number, body = key
    shown = {name: body[name] for name in ("name", "permissions", "created_at")}
    return {"id": number, "key": MASKED, **shown}


def _save_template(call: Call, number: int) -> dict[str, Any]:
    fields = {name: value for name, value in call.body.items() if name not in ("id", "hash_id")}
    content = json.dumps(fields, sort_keys=True).encode()
    body = {
        **fields,
        "id": number,
        "hash_id": hashlib.sha256(content).hexdigest()[:32],
        "creator_id": USER_ID,
        "created_at": call.market.clock.now(),
    }
    call.market.store.save_document("template", number, body)
    return {"success": True, "msg": "template saved", "template": body}


_TEMPLATE = "/api/v0/template"
_KEYS = "/api/v0/auth/apikeys"

ENDPOINTS = [
    Endpoint("GET", "/api/v0/users/current", user, "user_read"),
    Endpoint("GET", "/api/v0/ssh", ssh_keys, "user_read"),
    Endpoint("POST", "/api/v0/ssh", add_ssh_key, "user_write", throttle.SSH_KEYS, writes=True),
    Endpoint(
        "PUT", "/api/v0/ssh/{id:int}", change_ssh_key, "user_write", throttle.SSH_KEYS, writes=True
    ),
    Endpoint(
        "DELETE", "/api/v0/ssh/{id:int}", drop_ssh_key, "user_write", throttle.SSH_KEYS, writes=True
    ),
    Endpoint("GET", "/api/v0/secrets", secrets, "user_read", throttle.SECRETS_READ),
    Endpoint("POST", "/api/v0/secrets", add_secret, "user_write", throttle.SECRETS, writes=True),
    Endpoint("PUT", "/api/v0/secrets", change_secret, "user_write", throttle.SECRETS, writes=True),
    Endpoint("DELETE", "/api/v0/secrets", drop_secret, "user_write", throttle.SECRETS, writes=True),
    Endpoint("GET", _KEYS, api_keys, "user_read", throttle.API_KEYS_READ),
    Endpoint("POST", _KEYS, add_api_key, "user_write", throttle.API_KEYS, writes=True),
    Endpoint("GET", _KEYS + "/{id:int}", api_key, "user_read", throttle.API_KEYS_READ),
    Endpoint(
        "DELETE", _KEYS + "/{id:int}", drop_api_key, "user_write", throttle.API_KEYS, writes=True
    ),
    Endpoint("GET", _TEMPLATE, templates, "user_read", throttle.TEMPLATES),
    Endpoint("POST", _TEMPLATE, add_template, "user_write", throttle.TEMPLATES, writes=True),
    Endpoint(
        "PUT", "/api/v1/template", change_template, "user_write", throttle.TEMPLATES, writes=True
    ),
    Endpoint("DELETE", _TEMPLATE, drop_template, "user_write", throttle.TEMPLATES, writes=True),
    Endpoint("GET", "/api/v0/volumes", volumes, "instance_read", throttle.VOLUMES),
    Endpoint("PUT", "/api/v0/volumes", add_volume, "instance_write", throttle.VOLUMES, writes=True),
    Endpoint(
        "DELETE", "/api/v0/volumes", drop_volume, "instance_write", throttle.VOLUMES, writes=True
    ),
]
