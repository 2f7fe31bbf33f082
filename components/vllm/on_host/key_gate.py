"""The door in front of vLLM: few routes, and none but the health check without a key.

`vllm serve --middleware key_gate.KeyGate` loads this file on the host, so it uses the standard
library alone. vLLM's own `--api-key` leaves routes open (`/invocations` completes a chat without a
key) and is read once at start; this gate knows a list of routes, and SHA-256 digests that it reads
again whenever their file changes, so that keys come and go without a restart. The host never holds
a key, and the gate takes the key out of the request before vLLM sees it.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import math
import os
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = {"/health": "GET"}
"""Answered without a key."""

GUARDED = {
    "/v1/models": "GET",
    "/v1/chat/completions": "POST",
    "/v1/completions": "POST",
    "/v1/responses": "POST",
    "/v1/messages": "POST",
    "/v1/embeddings": "POST",
    "/tokenize": "POST",
    "/detokenize": "POST",
    "/metrics": "GET",
    "/version": "GET",
    "/load": "GET",
}
"""Answered with a key. Whatever stands in neither table does not exist."""

LOCAL = "/metrics"
"""Answered to the host's own key too, which works from the host itself alone."""

KEY_HEADERS = frozenset({b"authorization", b"x-api-key"})

UNAUTHORIZED = (401, b'{"error":"Unauthorized"}')
NOT_FOUND = (404, b'{"detail":"Not Found"}')
METHOD_NOT_ALLOWED = (405, b'{"detail":"Method Not Allowed"}')
POLICY_VIOLATION = 1008
"""WebSocket close code."""

_LINE = re.compile(r"([0-9a-f]{64})(?: until ([0-9]{1,12}))?")
"""A digest, and the second since 1970 from which on it is refused."""


class KeyGate:
    """ASGI middleware that lets through what it knows, and refuses all else.

    The digests stand in the file named by `KEY_GATE_FILE`, or in `allowed_keys` beside this
    module: one lower-case SHA-256 hex digest of a key a line, with ` until <seconds since 1970>`
    behind a key that was replaced. A missing, unreadable or empty file lets nobody in.

    `local_keys` beside this module has the digest of the key by which the host reads vLLM's
    counters; the supervisor makes it.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        beside = Path(__file__).with_name("allowed_keys")
        self._keys = AllowedKeys(Path(os.environ.get("KEY_GATE_FILE") or beside))
        self._local_keys = AllowedKeys(Path(__file__).with_name("local_keys"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, or refuse it in vLLM's own words (401, 404, 405)."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
            return
        if scope["type"] != "http":
            raise ValueError(f"a connection of type {scope['type']!r} is not for a key gate")
        refusal = self._refusal(scope)
        if refusal is not None:
            await _refuse(send, *refusal)
            return
        await self._app(_without_keys(scope), receive, send)

    def _refusal(self, scope: Scope) -> tuple[int, bytes] | None:
        path = _literal_path(scope)
        method = scope["method"]
        if OPEN.get(path) == method:
            return None
        if not (self._keys.any_of(_presented(scope)) or self._from_the_host(scope, path)):
            return UNAUTHORIZED
        wanted = GUARDED.get(path) or OPEN.get(path)
        if wanted is None:
            return NOT_FOUND
        return None if wanted == method else METHOD_NOT_ALLOWED

    def _from_the_host(self, scope: Scope, path: str) -> bool:
        client = scope.get("client")
        return (
            path == LOCAL
            and client is not None
            and _is_loopback(client[0])
            and self._local_keys.any_of(_presented(scope))
        )


class AllowedKeys:
    """The digests in a file, read again when the file is another one than before."""

    def __init__(self, path: Path, now: Callable[[], float] = time.time) -> None:
        self._path = path
        self._now = now
        self._seen: tuple[int, int, int, int] | None = None
        self._digests: tuple[tuple[bytes, float], ...] = ()

    def any_of(self, keys: list[bytes]) -> bool:
        """Tell whether one of `keys` is allowed, in a time that does not depend on which."""
        self._refresh()
        now = self._now()
        allowed = False
        for key in keys:
            digest = hashlib.sha256(key).hexdigest().encode()
            for known, ends in self._digests:
                allowed |= hmac.compare_digest(digest, known) & (now < ends)
        return allowed

    def _refresh(self) -> None:
        # A look at the file's metadata costs microseconds, a request milliseconds at least: so
        # it is looked at each time, and a removed key is refused from the next request on.
        try:
            if self._seen == _signature(self._path.stat()):
                return
            with self._path.open(encoding="ascii") as file:
                self._seen = _signature(os.fstat(file.fileno()))
                lines = [line.strip() for line in file]
        except (OSError, UnicodeDecodeError):
            self._seen = None
            self._digests = ()
            return
        found = [match for match in map(_LINE.fullmatch, lines) if match]
        self._digests = tuple(
            (match[1].encode(), float(match[2]) if match[2] else math.inf) for match in found
        )


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _signature(stat: os.stat_result) -> tuple[int, int, int, int]:
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_size


def _literal_path(scope: Scope) -> str:
    """Give the path if it was sent as it reads, else a path that is in no table.

    An escaped spelling (`/%68ealth`) reads like a known route here and may be resolved
    differently further in; nobody needs one.
    """
    path: str = scope["path"]
    raw: bytes | None = scope.get("raw_path")
    if raw is not None and raw.partition(b"?")[0] != path.encode("utf-8", "surrogateescape"):
        return ""
    return path


def _presented(scope: Scope) -> list[bytes]:
    keys = []
    for name, value in scope["headers"]:
        if name.lower() == b"x-api-key":
            keys.append(value)
        if name.lower() == b"authorization":
            scheme, _, key = value.partition(b" ")
            if scheme.lower() == b"bearer":
                keys.append(key.strip())
    return [key for key in keys if key]


def _without_keys(scope: Scope) -> Scope:
    headers = [(name, value) for name, value in scope["headers"] if name.lower() not in KEY_HEADERS]
    return {**scope, "headers": headers}


async def _refuse(send: Send, status: int, body: bytes) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
