"""`commands/schedule_job`: what the official client and others send, and are answered."""

from __future__ import annotations

from typing import Any

from emulator import scheduled
from emulator.api import Call, Endpoint, as_int, as_number
from emulator.errors import ApiError
from emulator.faults import Occasion

_JOBS = "/api/v0/commands/schedule_job"


async def jobs(call: Call) -> Any:
    """GET: a bare array."""
    stored = call.market.store.documents(scheduled.KIND)
    return [scheduled.row(number, job) for number, job in stored]


async def add_job(call: Call) -> Any:
    """POST: 422 with its number where one for the same call exists."""
    body = _read(call.body)
    _refuse(call, "POST")
    same = ("api_endpoint", "request_method")
    for number, job in call.market.store.documents(scheduled.KIND):
        if all(job["body"][name] == body[name] for name in same):
            text = "A scheduled job exists for this call."
            raise ApiError(422, "job_exists", text, scheduled_job_id=number)
    number = call.market.store.next_id(scheduled.KIND)
    _save(call, number, body, "POST")
    return {"success": True, "scheduled_job_id": number}


async def change_job(call: Call) -> Any:
    """PUT: what is not named stays."""
    before = _stored(call)
    body = _read({**before["body"], **call.body})
    _refuse(call, "PUT")
    _save(call, call.number, body, "PUT")
    return {"success": True, "scheduled_job_id": call.number}


async def drop_job(call: Call) -> Any:
    """DELETE."""
    _stored(call)
    call.market.store.drop_document(scheduled.KIND, call.number)
    return {"success": True}


def _refuse(call: Call, method: str) -> None:
    """Raise what the fault `job_refused` has in mind."""
    struck = call.market.faults.strike("job_refused", _occasion(method))
    if struck is not None:
        status = as_int(struck.get("code", 400), "code")
        raise ApiError(status, "invalid_args", "This call cannot be scheduled.")


def _save(call: Call, number: int, body: dict[str, Any], method: str) -> None:
    faults = call.market.faults
    if faults.strike("job_lost", _occasion(method)) is not None:
        return
    job = scheduled.kept(
        body,
        wall_clock=call.market.wall_clock(),
        now=call.market.clock.now(),
        early=faults.strike("job_early", _occasion(method)) is not None,
    )
    call.market.store.save_document(scheduled.KIND, number, job)


def _occasion(method: str) -> Occasion:
    return Occasion(method=method, path=_JOBS)


def _stored(call: Call) -> dict[str, Any]:
    found = call.market.store.document(scheduled.KIND, call.number)
    if found is None:
        raise ApiError(404, "not_found", f"Scheduled job {call.number} not found.")
    return found


def _read(given: Any) -> dict[str, Any]:
    """Return a job's fields, checked."""
    body = {
        "start_time": as_number(given.get("start_time"), "start_time"),
        "end_time": as_number(given.get("end_time"), "end_time"),
        "api_endpoint": str(given.get("api_endpoint") or ""),
        "request_method": str(given.get("request_method") or "").upper(),
        "request_body": given.get("request_body") or {},
        "day_of_the_week": given.get("day_of_the_week"),
        "hour_of_the_day": given.get("hour_of_the_day"),
        "frequency": str(given.get("frequency") or ""),
        "instance_id": as_int(given.get("instance_id"), "instance_id"),
    }
    if body["start_time"] >= body["end_time"]:
        raise ApiError(400, "invalid_args", "start_time must be before end_time")
    if body["frequency"] not in scheduled.FREQUENCIES:
        raise ApiError(400, "invalid_args", f"frequency is one of {scheduled.FREQUENCIES}")
    if not body["api_endpoint"] or not body["request_method"]:
        raise ApiError(400, "invalid_args", "api_endpoint and request_method are needed")
    return body


ENDPOINTS = [
    Endpoint("GET", _JOBS, jobs, "instance_read"),
    Endpoint("POST", _JOBS, add_job, "instance_write", writes=True),
    Endpoint("PUT", _JOBS + "/{id:int}", change_job, "instance_write", writes=True),
    Endpoint("DELETE", _JOBS + "/{id:int}", drop_job, "instance_write", writes=True),
]
