"""The gate in front of vLLM: few routes, and none but the health check without a key.

`vllm serve --middleware key_gate.KeyGate` loads this file on the host, so it uses the standard
library alone. vLLM's own `--api-key` leaves routes open (`/invocations` completes a chat without a
key) and is read once at start; this gate knows a list of routes, and SHA-256 digests that it reads
again whenever their file changes, so that keys come and go without a restart. The gate takes the
key out of the request before vLLM sees it.

It also counts the bytes of each request's body, and refuses a body that is too large while it
comes. While the server drains, it says so to whoever balances requests, and lets no client keep
its connection.
"""

from __future__ import annotations

import asyncio
import contextlib
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
    "/v1/messages/count_tokens": "POST",
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
DRAINING = (404, b'{"detail":"Draining"}')
"""The health check's answer while the server drains: balancers take 404 for a server that leaves
(HAProxy's `disable-on-404`), and any other failure for one that is broken."""
METHOD_NOT_ALLOWED = (405, b'{"detail":"Method Not Allowed"}')
TOO_LARGE = (
    413,
    (
        b'{"error":{"message":"The request is larger than this server takes (maxRequestMib).",'
        b'"type":"RequestEntityTooLarge","param":null,"code":413}}'
    ),
)
"""In the shape of vLLM's other refusals, since clients show the message of that alone."""
POLICY_VIOLATION = 1008
"""WebSocket close code."""

BODY_BYTES = 32 * 1024 * 1024
"""Most bytes of a request's body, where the file `body_limit` says nothing else."""

LINGER_BYTES = 64 * 1024 * 1024
LINGER_SECONDS = 5.0
"""How much of a body that was refused is read and thrown away, and for how long, before the
connection is closed. A client that is cut off while it sends may never read why."""

_NUMBER = re.compile(r"[0-9]{1,15}")
_LINE = re.compile(r"([0-9a-f]{64})(?: until ([0-9]{1,12}))?")
"""A digest, and the second since 1970 from which on it is refused."""


class KeyGate:
    """ASGI middleware that lets through what it knows, and refuses all else.

    The digests stand in the file named by `KEY_GATE_FILE`, or in `allowed_keys` beside this
    module: one lower-case SHA-256 hex digest of a key a line, with ` until <seconds since 1970>`
    behind a key that was replaced. A missing, unreadable or empty file lets nobody in.

    Three more files may lie beside this module. `local_keys` has the digest of the key by which
    the host reads vLLM's counters; the supervisor makes it. `body_limit` has the most bytes that
    a request's body may have. `draining` is there while the server drains.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        beside = Path(__file__)
        keys = os.environ.get("KEY_GATE_FILE") or beside.with_name("allowed_keys")
        self._keys = AllowedKeys(Path(keys))
        self._local_keys = AllowedKeys(beside.with_name("local_keys"))
        self._body_limit = BodyLimit(beside.with_name("body_limit"))
        self._draining = beside.with_name("draining")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, or refuse it in vLLM's own words (401, 404, 405, 413)."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
            return
        if scope["type"] != "http":
            raise ValueError(f"a connection of type {scope['type']!r} is not for a key gate")
        draining = self._is_draining()
        if draining:
            send = _closing(send)
        refusal = self._refusal(scope, draining=draining)
        if refusal is not None:
            await _refuse(send, *refusal)
            return
        await self._pass_on(scope, Body(receive, send, self._body_limit.bytes()))

    def _is_draining(self) -> bool:
        return os.path.exists(self._draining)  # noqa: PTH110  (unlike Path's, it raises nothing)

    async def _pass_on(self, scope: Scope, body: Body) -> None:
        """Let the application answer, unless the body turns out too large."""
        if _announced_bytes(scope) > body.limit:
            await body.refuse()
        else:
            try:
                await self._app(_without_keys(scope), body.receive, body.send)
            except Exception:
                # The application complains of a request that broke off, which this gate did.
                if not body.refused:
                    raise
        if body.refused:
            await body.end()

    def _refusal(self, scope: Scope, *, draining: bool) -> tuple[int, bytes] | None:
        path = _literal_path(scope)
        method = scope["method"]
        if OPEN.get(path) == method:
            return DRAINING if draining else None
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


class Body:
    """The body of one request, counted piece by piece; no piece is kept.

    The application gets `receive` and `send`. Once the body has more than `limit` bytes, the
    client is answered with 413, and the application is told that the client has left.
    """

    def __init__(self, receive: Receive, send: Send, limit: int) -> None:
        self.limit = limit
        self.refused = False
        """Whether the client was answered here, so that the application must not answer."""
        self._receive = receive
        self._send = send
        self._bytes = 0
        self._more = True
        self._answered = False

    async def receive(self) -> Message:
        """Give the application the next piece."""
        if self._bytes <= self.limit:
            message = await self._take()
            if self._bytes <= self.limit:
                return message
        # An answer that has begun cannot be taken back; one that has not is 413.
        if not (self._answered or self.refused):
            await self.refuse()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Take the application's answer, which counts unless the client was answered here."""
        if not self.refused:
            self._answered = True
            await self._send(message)

    async def refuse(self) -> None:
        """Answer the client with 413, whole, and leave the connection open until `end`."""
        self.refused = True
        await _refuse(_closing(self._send), *TOO_LARGE, last=False)

    async def end(self) -> None:
        """Read on for a moment, so that the client gets to read the answer, and close."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._read_on(), LINGER_SECONDS)
        await self._send({"type": "http.response.body", "body": b""})

    async def _read_on(self) -> None:
        enough = self._bytes + LINGER_BYTES
        while self._more and self._bytes < enough:
            await self._take()

    async def _take(self) -> Message:
        message = await self._receive()
        self._bytes += len(message.get("body") or b"")
        self._more = bool(message.get("more_body"))
        return message


class WatchedFile:
    """The lines of a small file, read again when the file is another one than before."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int, int] | None = None
        self.lines: list[str] = []
        """Without blanks around them; empty for a file that cannot be read."""

    def changed(self) -> bool:
        """Look at the file, and tell whether `lines` were read anew."""
        # A look at the file's metadata costs microseconds, a request milliseconds at least: so
        # it is looked at each time, and a removed key is refused from the next request on.
        try:
            if self._seen == _signature(self._path.stat()):
                return False
            with self._path.open(encoding="ascii") as file:
                self._seen = _signature(os.fstat(file.fileno()))
                self.lines = [line.strip() for line in file]
        except (OSError, UnicodeDecodeError):
            self._seen = None
            self.lines = []
        return True


class AllowedKeys:
    """The digests in a file."""

    def __init__(self, path: Path, now: Callable[[], float] = time.time) -> None:
        self._path = path
        self._file = WatchedFile(path)
        self._now = now
        self._digests: tuple[tuple[bytes, float], ...] = ()

    def any_of(self, keys: list[bytes]) -> bool:
        """Tell whether one of `keys` is allowed, in a time that does not depend on which."""
        if self._file.changed():
            found = [match for match in map(_LINE.fullmatch, self._file.lines) if match]
            self._digests = tuple(
                (match[1].encode(), float(match[2]) if match[2] else math.inf) for match in found
            )
        now = self._now()
        allowed = False
        for key in keys:
            digest = hashlib.sha256(key).hexdigest().encode()
            for known, ends in self._digests:
                allowed |= hmac.compare_digest(digest, known) & (now < ends)
        return allowed


class BodyLimit:
    """The number in a file."""

    def __init__(self, path: Path) -> None:
        self._file = WatchedFile(path)
        self._bytes = BODY_BYTES

    def bytes(self) -> int:
        """Most bytes of a body; `BODY_BYTES` if the file has no number."""
        if self._file.changed():
            first = self._file.lines[0] if self._file.lines else ""
            self._bytes = int(first) if _NUMBER.fullmatch(first) else BODY_BYTES
        return self._bytes


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


def _announced_bytes(scope: Scope) -> int:
    """What the request says that its body has; 0 if it does not say."""
    said = [value for name, value in scope["headers"] if name.lower() == b"content-length"]
    return max((int(value) for value in said if value.isdigit()), default=0)


def _closing(send: Send) -> Send:
    """Answer so that the server closes the connection afterwards."""

    async def closing(message: Message) -> None:
        if message["type"] == "http.response.start":
            others = [one for one in message.get("headers", ()) if one[0].lower() != b"connection"]
            message = {**message, "headers": [*others, (b"connection", b"close")]}
        await send(message)

    return closing


async def _refuse(send: Send, status: int, body: bytes, *, last: bool = True) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": not last})
