"""The marketplace over HTTP: who calls, what they may, how often, what goes wrong, the log."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from emulator import (
    admin,
    hub_api,
    registry,
    routes_account,
    routes_billing,
    routes_instance_reads,
    routes_instances,
    routes_offers,
    routes_price_increases,
    routes_scheduled,
)
from emulator.api import Call, Endpoint
from emulator.errors import ApiError
from emulator.faults import Occasion
from emulator.hostile import RUDE_FIELDS, rudely
from emulator.keys import PREFIX, Caller, identify
from emulator.logs import Results
from emulator.market import DAY
from emulator.marketplace import Marketplace
from emulator.ports import HOST
from emulator.request_log import masked
from emulator.throttle import BUDGET, Throttle

TICK = 0.1
"""Real seconds between two looks at what has fallen due."""

NAMES = (HOST, "localhost")
"""What a client calls this server by, without the port."""

ANYBODY = Caller("anybody", "anybody")

_NO_REPLY = 444
"""The status in the log of a call that ended with the connection, unheard."""

_log = logging.getLogger(__name__)


def create_app(market: Marketplace, throttle: Throttle, *, ticking: bool = True) -> Starlette:
    """Return the emulator as an ASGI application.

    With `ticking` it carries contracts forward by itself while it runs; a test that holds the
    clock does that through the calls it makes.
    """
    gate = _Gate(market, throttle, Results())
    endpoints = [
        *routes_offers.ENDPOINTS,
        *routes_price_increases.ENDPOINTS,
        *routes_instance_reads.ENDPOINTS,
        *routes_instances.ENDPOINTS,
        *routes_account.ENDPOINTS,
        *routes_billing.ENDPOINTS,
        *routes_scheduled.ENDPOINTS,
    ]
    routes = [_route(gate, endpoint) for endpoint in endpoints]
    routes += admin.routes(market)
    routes += registry.routes()
    routes += hub_api.routes(market)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        del app
        task = asyncio.create_task(_tick(market)) if ticking else None
        yield
        if task is not None:
            task.cancel()

    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={HTTPException: gate.unrouted, ApiError: _refused},
    )
    app.add_middleware(_WithoutTrailingSlash)
    # A name of somebody else's that leads to this computer makes a page of theirs one of ours.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*NAMES], www_redirect=False)
    return app


class _WithoutTrailingSlash:
    """Vast's clients are inconsistent about the slash at the end; both forms are one route."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and len(scope["path"]) > 1:
            scope = {**scope, "path": scope["path"].rstrip("/")}
        await self._app(scope, receive, send)


class _Gate:
    """What every call of Vast's API passes before and after its function."""

    def __init__(self, market: Marketplace, throttle: Throttle, results: Results) -> None:
        self._market = market
        self._throttle = throttle
        self._results = results

    async def pass_through(self, request: Request, endpoint: Endpoint) -> Response:
        """Answer one call, whatever it comes to, and log it."""
        seen = _Seen(await request.body())
        try:
            response = await self._answer(request, endpoint, seen)
        except ApiError as refusal:
            response = JSONResponse(refusal.body, refusal.status)
        self._note(request, seen, response, writes=endpoint.writes)
        if seen.note == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        return response

    async def unrouted(self, request: Request, problem: Exception) -> Response:
        """Answer what is no route here: another method, or a part of Vast that is left out."""
        status = problem.status_code if isinstance(problem, HTTPException) else 500
        text = f"{request.method} {_sent_path(request)} is not a route of the emulator"
        response = JSONResponse({"success": False, "error": "not_found", "msg": text}, status)
        self._note(request, _Seen(b""), response, writes=False)
        return response

    async def _answer(self, request: Request, endpoint: Endpoint, seen: _Seen) -> Response:
        seen.caller = self._caller(request, endpoint)
        body = _json(seen.raw, request.url.path)
        disturbed = await self._disturb(request, seen)
        if disturbed is not None:
            return disturbed
        identity = _identity(request, seen.caller)
        used_up = 0.0 if seen.caller is ANYBODY else self._throttle.seconds_to_wait(identity)
        if used_up > 0:
            seen.note = "throttled"
            return _used_up(used_up, self._market.wall_clock())
        if not self._throttle.admit(endpoint.limit, identity):
            seen.note = "throttled"
            seconds = endpoint.limit.seconds if endpoint.limit else 0
            text = f"API requests too frequent endpoint threshold={seconds}"
            return JSONResponse({"detail": text}, 429)
        _check_rights(endpoint, seen.caller)
        call = Call(
            market=self._market,
            results=self._results,
            caller=seen.caller,
            number=int(request.path_params.get("id", 0)),
            token=str(request.path_params.get("token", "")),
            query=request.query_params,
            body=body,
            base_url=str(request.base_url).rstrip("/"),
        )
        answer = self._made_rude(request, await endpoint.answer(call))
        lost = await self._lose(request, endpoint, seen)
        if lost is not None:
            return lost
        return answer if isinstance(answer, Response) else JSONResponse(answer)

    def _made_rude(self, request: Request, answer: Any) -> Any:
        """Write what a terminal would obey into the texts that hosts write, if `rude` strikes."""
        occasion = Occasion(method=request.method, path=request.url.path)
        struck = self._market.faults.strike("rude", occasion)
        if struck is None or isinstance(answer, Response):
            return answer
        return rudely(answer, frozenset(struck.get("fields", RUDE_FIELDS).split(",")))

    def _caller(self, request: Request, endpoint: Endpoint) -> Caller:
        if endpoint.scope is None:
            return ANYBODY
        key = request.query_params.get("api_key", "")
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            key = given.strip()
        if not key and endpoint.open_to_all:
            return ANYBODY
        if not key:
            raise ApiError(403, "auth_error", "This action requires login.")
        if not key.startswith(PREFIX):
            _log.error("a key that is not the emulator's own was sent to it, and refused unread")
            raise ApiError(
                404,
                "auth_error",
                f"Invalid user key: this is the emulator, whose keys begin with {PREFIX}; "
                "do not send a real key here.",
            )
        alive = [one.id for one in self._market.alive()]
        created = self._market.store.documents("api_key")
        caller = identify(key, self._market.account_key, alive, created)
        if caller is None:
            raise ApiError(404, "auth_error", "Invalid user key")
        return caller

    async def _disturb(self, request: Request, seen: _Seen) -> Response | None:
        """Answer in place of the API if an `api` fault strikes this call before it acts."""
        occasion = Occasion(method=request.method, path=request.url.path)
        for name in ("key_unknown_404", "rate_limited", "api_5xx", "api_timeout", "api_410"):
            params = self._market.faults.strike(name, occasion)
            if params is None:
                continue
            seen.note = name
            return await _disturbed(name, params, self._market.wall_clock())
        killed = self._market.faults.strike("killed", occasion)
        if killed is None:
            return None
        seen.note = "killed"
        if killed.get("when") == "before":
            self._note(request, seen, Response(status_code=_NO_REPLY), writes=False)
            os.kill(os.getpid(), signal.SIGKILL)
        return None

    async def _lose(self, request: Request, endpoint: Endpoint, seen: _Seen) -> Response | None:
        """Swallow the reply of a call that was carried out."""
        if not endpoint.writes:
            return None
        occasion = Occasion(method=request.method, path=request.url.path, call=endpoint.call)
        params = self._market.faults.strike("lost_reply", occasion)
        if params is None:
            return None
        seen.note = "lost_reply"
        if params.get("how") == "timeout":
            await asyncio.sleep(float(params.get("seconds", 130)))
        return PlainTextResponse("upstream connect error", status_code=503)

    def _note(self, request: Request, seen: _Seen, response: Response, *, writes: bool) -> None:
        self._market.store.add_request(
            {
                "time": self._market.wall_clock(),
                "emulated": self._market.clock.now(),
                "method": request.method,
                "path": _sent_path(request),
                "query": json.dumps(masked(dict(request.query_params))),
                "body": json.dumps(masked(_loggable(seen.raw))),
                "status": response.status_code,
                "writes": int(writes),
                "caller": seen.caller.name,
                "note": seen.note,
            }
        )


@dataclass
class _Seen:
    """What is known of a request when it is logged."""

    raw: bytes
    caller: Caller = ANYBODY
    note: str | None = None


def _route(gate: _Gate, endpoint: Endpoint) -> Route:
    async def answer(request: Request) -> Response:
        return await gate.pass_through(request, endpoint)

    return Route(endpoint.path, answer, methods=[endpoint.method])


def _identity(request: Request, caller: Caller) -> str:
    """Whose calls are counted together: a key in the header and one in the query are two."""
    return f"{caller.name}, {'header' if 'authorization' in request.headers else 'query'}"


def _check_rights(endpoint: Endpoint, caller: Caller) -> None:
    if caller.contract_id is not None and not endpoint.by_instance:
        text = "An instance's key can show, start, stop and destroy that instance only."
        raise ApiError(403, "not_authorized", text)
    if caller is ANYBODY:
        return
    if endpoint.scope is not None and endpoint.scope not in caller.scopes:
        raise ApiError(401, "unauthorized", f"API key lacks the {endpoint.scope} route access.")


async def _refused(request: Request, problem: Exception) -> Response:
    """An ApiError of an admin route."""
    del request
    if not isinstance(problem, ApiError):
        raise problem
    return JSONResponse(problem.body, problem.status)


async def _disturbed(name: str, params: dict[str, str], wall_clock: float) -> Response:
    if name == "key_unknown_404":
        body = {"success": False, "error": "auth_error", "msg": "Invalid user key"}
        return JSONResponse(body, 404)
    if name == "rate_limited":
        return _too_many(params, wall_clock)
    if name == "api_410":
        body = {"success": False, "error": "deprecated_endpoint", "msg": "This endpoint is gone."}
        return JSONResponse(body, 410)
    if name == "api_timeout":
        await asyncio.sleep(float(params.get("seconds", 130)))
        return PlainTextResponse("upstream request timeout", status_code=504)
    return PlainTextResponse("upstream connect error", status_code=int(params.get("code", 503)))


def _used_up(seconds: float, wall_clock: float) -> Response:
    """The 429 of a key whose shared budget is used up for so many seconds, as it was measured."""
    wait = math.ceil(seconds) if seconds >= 1 else round(seconds, 3)
    body = {
        "error": "HTTPTooManyRequests",
        "msg": "API requests too frequent",
        "retry_after": wait,
        "limit": float(BUDGET.calls),
        "remaining": 0,
    }
    headers = {
        "Retry-After": str(wait),
        "X-RateLimit-Limit": str(BUDGET.calls),
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": str(math.ceil(wall_clock + seconds)),
    }
    return JSONResponse(body, 429, headers)


def _too_many(params: dict[str, str], wall_clock: float) -> Response:
    """The shapes of a 429 that were seen in the field."""
    headers = {"Retry-After": params["retry_after"]} if "retry_after" in params else {}
    text = "API requests too frequent"
    shape = params.get("shape", "text")
    if shape == "budget":
        return _used_up(float(params.get("retry_after", BUDGET.seconds)), wall_clock)
    if shape == "detail":
        body: dict[str, Any] = {"detail": f"{text} endpoint threshold=4.5"}
    elif shape == "rate_limit":
        body = {"success": False, "error": "rate_limit_exceeded", "msg": text}
    elif shape == "quota":
        body = {
            "success": False,
            "error": "search_quota_exceeded",
            "msg": "Daily search quota exceeded",
        }
        headers["X-RateLimit-Reset"] = str(int((wall_clock // DAY + 1) * DAY))
    else:
        return PlainTextResponse(text, 429, headers)
    return JSONResponse(body, 429, headers)


def _sent_path(request: Request) -> str:
    """The path as the client wrote it, with or without a slash at its end."""
    raw: bytes = request.scope.get("raw_path") or request.url.path.encode()
    return raw.partition(b"?")[0].decode(errors="replace")


def _json(raw: bytes, path: str) -> dict[str, Any]:
    if not raw.strip():
        return {}
    try:
        body = json.loads(raw)
    except ValueError as wrong:
        # Vast answers 483 for `command` and 400 elsewhere.
        status = 483 if "/instances/command/" in path else 400
        raise ApiError(status, "invalid_args", "the body is not JSON") from wrong
    return body if isinstance(body, dict) else {}


def _loggable(raw: bytes) -> Any:
    try:
        return json.loads(raw) if raw.strip() else None
    except ValueError:
        return "(not JSON)"


async def _tick(market: Marketplace) -> None:
    while True:
        try:
            await market.tick()
        except Exception:  # noqa: BLE001  (a fault in one tick must not stop time for good)
            _log.exception("a tick failed; the next one tries again")
        await asyncio.sleep(TICK)
