"""A server's application behind the project's own clients: the whole of HTTP, and no socket."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
import httpcore2
import httpx
from starlette.types import ASGIApp


class AppNetwork(httpcore2.NetworkBackend):
    """Each connection leads to the application, and carries one request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def connect_tcp(self, *_: Any, **__: Any) -> httpcore2.NetworkStream:
        return _Stream(self._app)


class _Stream(httpcore2.NetworkStream):
    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._server = h11.Connection(h11.SERVER)
        self._request: h11.Request | None = None
        self._body = b""
        self._unread = b""

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        del timeout
        if not buffer:
            # To `h11` it would be the end of the connection.
            return
        self._server.receive_data(buffer)
        while isinstance(event := self._server.next_event(), h11.Request | h11.Data):
            if isinstance(event, h11.Request):
                self._request = event
            else:
                self._body += bytes(event.data)
        if isinstance(event, h11.EndOfMessage):
            self._unread = asyncio.run(self._answer())

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        del timeout
        given, self._unread = self._unread[:max_bytes], self._unread[max_bytes:]
        return given

    def close(self) -> None:
        pass

    def get_extra_info(self, info: str) -> Any:
        del info

    async def _answer(self) -> bytes:
        assert self._request is not None
        headers = list(self._request.headers)
        host = dict(headers)[b"host"].decode()
        transport = httpx.ASGITransport(self._app)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
            given = await client.request(
                self._request.method.decode(),
                self._request.target.decode(),
                headers=headers,
                content=self._body,
            )
        kept = [pair for pair in given.headers.raw if pair[0].lower() != b"connection"]
        head = h11.Response(
            status_code=given.status_code, headers=[*kept, (b"connection", b"close")]
        )
        events = (head, h11.Data(data=given.content), h11.EndOfMessage())
        return b"".join(filter(None, map(self._server.send, events)))
