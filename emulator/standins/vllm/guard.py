"""What stands before the routes: the API key, request identifiers, and middleware by name.

Middleware is added in vLLM's order: CORS, the key, identifiers, then each `--middleware` as it was
listed. Each is put around those before it, so the last one listed sees a request first.
"""

from __future__ import annotations

import hmac
import importlib
import inspect
import secrets
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from emulator.standins.vllm.errors import StartError
from emulator.standins.vllm.settings import Settings

GUARDED = ("/v1", "/v2", "/inference", "/cohere")
"""Prefixes that `--api-key` guards since 0.28; every other route is open to anybody."""


class AuthenticationMiddleware:
    """vLLM's own guard: `Authorization: Bearer <key>` on guarded prefixes, OPTIONS always open."""

    def __init__(self, app: ASGIApp, tokens: Sequence[str]) -> None:
        """Let in whoever knows one of `tokens`."""
        self._app = app
        self._digests = [sha256(token.encode()).digest() for token in tokens]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401."""
        if self._is_open(scope) or self._is_known(scope):
            await self._app(scope, receive, send)
            return
        await JSONResponse({"error": "Unauthorized"}, status_code=401)(scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        if scope["type"] not in ("http", "websocket") or scope.get("method") == "OPTIONS":
            return True
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        return not path.startswith(GUARDED)

    def _is_known(self, scope: Scope) -> bool:
        headers = dict(scope["headers"])
        kind, _, key = headers.get(b"authorization", b"").partition(b" ")
        if kind.lower() != b"bearer":
            return False
        shown = sha256(key).digest()
        known = False
        for digest in self._digests:
            known |= hmac.compare_digest(shown, digest)
        return known


class RequestIdMiddleware:
    """Gives every reply an X-Request-Id: the client's own, or a fresh one."""

    def __init__(self, app: ASGIApp) -> None:
        """Stand before `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and mark the reply."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id")
        identifier = given or secrets.token_hex(16).encode()

        async def mark(message: Message) -> None:
            if message["type"] == "http.response.start":
                message.setdefault("headers", [])
                message["headers"] = [*message["headers"], (b"x-request-id", identifier)]
            await send(message)

        await self._app(scope, receive, mark)


class RootPath:
    """Tells the app under which path a proxy shows it, as FastAPI's `root_path` does."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        """Stand around `app`."""
        self._app = app
        self._root_path = root_path.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its root path."""
        if self._root_path and scope["type"] == "http":
            scope = {**scope, "root_path": self._root_path}
        await self._app(scope, receive, send)


def add_guards(app: Starlette, settings: Settings) -> None:
    """Add all middleware that `settings` asks for.

    Raises:
        StartError: a `--middleware` that cannot be imported or is neither class nor coroutine.
    """
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.allowed_origins,
        allow_methods=["*"],
        allow_headers=["*"],
    )
    if settings.api_keys:
        app.add_middleware(AuthenticationMiddleware, tokens=settings.api_keys)
    if settings.enable_request_id_headers:
        app.add_middleware(RequestIdMiddleware)
    for name in settings.middleware:
        _add_by_name(app, name)


def _add_by_name(app: Starlette, name: str) -> None:
    module_path, _, object_name = name.rpartition(".")
    try:
        imported: Any = getattr(importlib.import_module(module_path), object_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise StartError(f"{type(error).__name__}: {error}") from error
    if inspect.isclass(imported):
        factory: Any = imported
        app.add_middleware(factory)
    elif inspect.iscoroutinefunction(imported):
        app.add_middleware(BaseHTTPMiddleware, dispatch=imported)
    else:
        raise StartError(f"ValueError: Invalid middleware {name}. Must be a function or a class.")
