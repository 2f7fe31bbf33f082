"""Whoever answers at a router's address, the question ends with an answer or a reason."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from components.core.clock import SystemClock
from components.router.asking import MOST_BYTES, HttpsRouter
from components.tls.authorities import Authority
from tests.helpers.polling import eventually
from tests.helpers.router_world import AUTHORITY, STACK_KEY, fleet
from toolchain.scale_out.loopback import LOOPBACK

HEAD = b"HTTP/1.1 200 OK\r\n"


def asked(port: int, authority: str = AUTHORITY.certificate, scheme: str = "https") -> HttpsRouter:
    return HttpsRouter(f"{scheme}://{LOOPBACK}:{port}", authority, "", SystemClock())


def test_a_router_answers_who_trusts_its_authority(tmp_path):
    with fleet(tmp_path, [41, 42]) as world:
        client = asked(world.router.port)
        assert client.status_of("/health", None) == 200
        assert client.status_of("/v1/models", "wrong") == 401
        eventually(lambda: client.members(STACK_KEY) == {"41": "", "42": ""})
        assert client.members("wrong") == {}
        # These files have no name.
        assert client.version(STACK_KEY) == ""
        stranger = asked(world.router.port, Authority.made(time.time()).certificate)
        reason = "shows a certificate that is not the stack's"
        assert stranger.status_of("/health", None) == reason
        assert stranger.version(STACK_KEY) == ""
        assert stranger.members(STACK_KEY) == {}


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"", "breaks the connection off"),
        (b"\x00\xff" * 20 + b"\r\n\r\n", "breaks the connection off"),
        (HEAD + b"Content-Length: 99999999\r\n\r\n" + b"x" * 8_000_000, "answers without an end"),
    ],
)
def test_what_is_no_answer_is_a_reason(sent, reason):
    with socket.socket() as server:
        server.bind((LOOPBACK, 0))
        server.listen()
        thread = threading.Thread(target=_answer, args=(server, sent))
        thread.start()
        port = int(server.getsockname()[1])
        assert asked(port, scheme="http").status_of("/health", None) == reason
        thread.join()


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'"text"', b'{"version":1}', b'{"other":1}', b"\xff"]
)
def test_what_names_no_version_names_none(body):
    with socket.socket() as server:
        server.bind((LOOPBACK, 0))
        server.listen()
        sent = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
        thread = threading.Thread(target=_answer, args=(server, sent))
        thread.start()
        port = int(server.getsockname()[1])
        assert asked(port, scheme="http").version("key") in {"", "1"}
        thread.join()


def test_questions_on_one_connection_share_it_and_each_has_its_own_bounds():
    body = b"x" * (MOST_BYTES - 1_000)
    sent = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with socket.socket() as server:
        server.bind((LOOPBACK, 0))
        server.listen()
        thread = threading.Thread(target=_answer, args=(server, sent, 2))
        thread.start()
        client = asked(int(server.getsockname()[1]), scheme="http")
        with client.on_one_connection() as one:
            # Nobody takes a second connection.
            assert [one.status_of("/health", key) for key in (None, "key")] == [200, 200]
        thread.join()


def test_where_nobody_listens_the_reason_says_so():
    with socket.socket() as free:
        free.bind((LOOPBACK, 0))
        port = int(free.getsockname()[1])
    assert asked(port).status_of("/health", None) == "refuses the connection"


def _answer(server: socket.socket, sent: bytes, times: int = 1) -> None:
    connection, _ = server.accept()
    with connection:
        for _ in range(times):
            connection.recv(65_536)
            try:
                connection.sendall(sent)
            except OSError:
                return
