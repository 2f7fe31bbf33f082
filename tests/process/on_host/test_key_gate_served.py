"""The gate under the server that vLLM uses, uvicorn, with clients that speak over sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.helpers.gates import KEY, Folder
from tests.helpers.polling import eventually

CHAT = "/v1/chat/completions"
ALLOWED = f"Authorization: Bearer {KEY}\r\n"
LIMIT = 1_000_000
WITHIN = 20.0
"""Seconds for anything that a client waits for."""


class Served:
    """A server behind the gate of `folder`, in a thread of this process."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.read: list[int] = []
        """Bytes of each body that the application has got whole."""
        app = Starlette(
            routes=[
                Route("/health", self._health),
                Route("/v1/models", self._health),
                Route(CHAT, self._chat, methods=["POST"]),
            ]
        )
        app.add_middleware(folder.module().KeyGate)
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        asyncio.run(self.server.serve(sockets=[self.socket]))

    async def _health(self, _: Request) -> Response:
        return JSONResponse({})

    async def _chat(self, request: Request) -> Response:
        body = await request.body()
        self.read.append(len(body))
        return JSONResponse({"bytes": len(body)})

    def __enter__(self) -> Self:
        self.thread.start()
        eventually(lambda: self.server.started)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.socket.close()

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        with socket.create_connection(self.socket.getsockname(), timeout=WITHIN) as connection:
            yield Client(connection)


class Client:
    """One connection; it writes what a test says and reads answers one after the other."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._file = connection.makefile("rb")

    def send(self, text: str | bytes) -> None:
        self.connection.sendall(text.encode() if isinstance(text, str) else text)

    def get(self, path: str, headers: str = ALLOWED) -> tuple[int, dict[str, str], bytes]:
        self.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n")
        return self.answer()

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        status = int(self._file.readline().split()[1])
        headers: dict[str, str] = {}
        while line := self._file.readline().strip().decode():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return status, headers, self._file.read(int(headers["content-length"]))

    def closed(self) -> bool:
        """Whether the server closes the connection after what was read."""
        try:
            return self._file.read(1) == b""
        except ConnectionResetError:
            return True


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    folder = Folder.make(tmp_path)
    folder.limit(f"{LIMIT}\n")
    with Served(folder) as one:
        yield one


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def test_a_body_in_chunks_is_counted_as_it_comes(served: Served) -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\n{ALLOWED}Transfer-Encoding: chunked\r\n\r\n"
    with served.client() as client:
        client.send(head)
        for _ in range(10):
            client.send(chunk(b"x" * (LIMIT // 10)))
        client.send(b"0\r\n\r\n")
        status, headers, body = client.answer()
        assert (status, json.loads(body)) == (200, {"bytes": LIMIT})
        assert "connection" not in headers

        client.send(head)
        # The last of it never comes: the answer does not wait for it.
        client.send(chunk(b"x" * (LIMIT + 1)))
        status, headers, body = client.answer()
        assert (status, headers["connection"]) == (413, "close")
        assert json.loads(body)["error"]["code"] == 413
        client.send(b"0\r\n\r\n")
        assert client.closed()
    assert served.read == [LIMIT]


def test_a_body_that_says_its_size_is_refused_before_it_comes(served: Served) -> None:
    with served.client() as client:
        client.send(
            f"POST {CHAT} HTTP/1.1\r\nHost: x\r\n{ALLOWED}Content-Length: {LIMIT + 1}\r\n"
            "Expect: 100-continue\r\n\r\n"
        )
        status, headers, _ = client.answer()
        assert (status, headers["connection"]) == (413, "close")
    assert served.read == []


def test_a_client_that_sends_all_before_it_reads_gets_its_answer(served: Served) -> None:
    with served.client() as client:
        size = 20 * LIMIT
        client.send(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\n{ALLOWED}Content-Length: {size}\r\n\r\n")
        client.send(b"x" * size)
        assert client.answer()[0] == 413
        assert client.closed()
    assert served.read == []


def test_a_connection_stays_until_the_server_drains(served: Served) -> None:
    with served.client() as client, served.client() as other:
        assert client.get("/health", "")[0] == 200
        assert client.get("/v1/models")[0] == 200
        assert other.get("/v1/models")[0] == 200
        served.folder.drain()
        status, headers, _ = client.get("/v1/models")
        assert (status, headers["connection"]) == (200, "close")
        assert client.closed()
        status, headers, _ = other.get("/health", "")
        assert (status, headers["connection"]) == (404, "close")
        assert other.closed()
    with served.client() as client:
        assert client.get("/health", "")[0] == 404
    served.folder.drain(on=False)
    with served.client() as client:
        assert client.get("/health", "")[0] == 200
        assert client.get("/health", "")[0] == 200
