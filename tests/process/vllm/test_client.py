from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from components.core.clock import SystemClock
from components.vllm.client import Endpoint
from components.vllm.client_types import ModelInfo, Refused, Traffic, Unreachable
from emulator.standins.vllm.metrics import Metrics, exposition
from tests.helpers.tls_host import TlsHost

CLOCK = SystemClock()
"""What these servers send, they send over real sockets."""

KEY = "a-key-of-the-endpoint"

MODELS = {"object": "list", "data": [{"id": "a/b", "root": "r", "max_model_len": 4096}]}


class Server(ThreadingHTTPServer):
    """Answers every request with `status` and `body`, and notes what it was asked."""

    daemon_threads = True
    status = 200
    body: Any = MODELS
    silent: threading.Event | None = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str, str | None, Any]] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def _answer(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        sent = json.loads(self.rfile.read(length)) if length else None
        key = self.headers.get("authorization")
        self.server.asked.append((self.command, self.path, key, sent))
        if self.server.silent is not None:
            self.server.silent.wait(10)
            return
        body = self.server.body
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def endpoint(server: Server) -> Endpoint:
    return Endpoint(f"http://127.0.0.1:{server.port}", answer_timeout=5, clock=CLOCK)


def test_asks_who_serves(server: Server, endpoint: Endpoint) -> None:
    found = endpoint.models(KEY)

    assert found == ModelInfo(ids=("a/b",), max_model_len=4096, root="r")
    assert isinstance(found, ModelInfo)
    assert found.id == "a/b"
    assert server.asked == [("GET", "/v1/models", f"Bearer {KEY}", None)]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, {"error": "Unauthorized"}),
        (503, b""),
        (200, b"<html>"),
        (200, {}),
        (200, {"data": []}),
        (200, []),
        (200, {"data": [{"name": "x"}]}),
    ],
)
def test_what_is_no_list_of_models(
    server: Server, endpoint: Endpoint, status: int, body: Any
) -> None:
    server.status, server.body = status, body
    found = endpoint.models(KEY)
    assert isinstance(found, Refused)
    assert found.status == status
    assert str(found).startswith(f"the endpoint answers {status}: ")


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": "Yes"}, "Yes"),
        ({"content": ""}, ""),
        ({"content": None, "reasoning": "The"}, "The"),
        ({"content": None}, ""),
    ],
)
def test_asks_for_one_token(
    server: Server, endpoint: Endpoint, message: dict[str, Any], text: str
) -> None:
    server.body = {"choices": [{"message": message}]}

    assert endpoint.complete(KEY, "a/b") == text

    method, path, key, sent = server.asked[0]
    assert (method, path, key) == ("POST", "/v1/chat/completions", f"Bearer {KEY}")
    assert (sent["model"], sent["max_tokens"]) == ("a/b", 1)
    assert sent["messages"][0]["role"] == "user"


@pytest.mark.parametrize(
    ("status", "body"),
    [(400, {"error": {"message": "no"}}), (500, b"x"), (200, {"choices": []}), (200, {"error": 1})],
)
def test_what_is_no_completion(server: Server, endpoint: Endpoint, status: int, body: Any) -> None:
    server.status, server.body = status, body
    found = endpoint.complete(KEY, "a/b")
    assert isinstance(found, Refused)
    assert found.status == status


def test_a_refusal_that_repeats_the_key_does_not_show_it(
    server: Server, endpoint: Endpoint
) -> None:
    server.status, server.body = 400, f"bad key {KEY}".encode() + b"x" * 1000
    found = endpoint.complete(KEY, "a/b")
    assert isinstance(found, Refused)
    assert found.text.startswith("bad key ***")
    assert len(found.text) == 300


def test_asks_for_a_status_with_and_without_key(server: Server, endpoint: Endpoint) -> None:
    server.status = 404
    assert endpoint.status_of("/invocations", None, method="POST") == 404
    assert endpoint.status_of("/v1/models", "other") == 404
    assert server.asked == [
        ("POST", "/invocations", None, {}),
        ("GET", "/v1/models", "Bearer other", None),
    ]


def test_counts_the_requests_of_all_engines(server: Server, endpoint: Endpoint) -> None:
    metrics = Metrics(running=2, waiting=1, prompt_tokens=30, generation_tokens=5)
    metrics.finished.update(stop=5, length=2)
    other = exposition(metrics, "a/b", {}).replace('engine="0"', 'engine="1"')
    samples = [line for line in other.splitlines() if line.startswith("vllm:num_requests")]
    whole = exposition(metrics, "a/b", {})
    for line in samples:
        name = line.partition("{")[0]
        whole = whole.replace(f"# TYPE {name} gauge\n", f"# TYPE {name} gauge\n{line}\n")
    server.body = whole.encode()

    assert endpoint.traffic(KEY) == Traffic(under_way=6, ended=7, tokens=35)
    assert server.asked == [("GET", "/metrics", f"Bearer {KEY}", None)]


def test_a_server_that_keeps_no_count_of_tokens_has_none(
    server: Server, endpoint: Endpoint
) -> None:
    server.body = b"# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 2.0\n"
    assert endpoint.traffic(KEY) == Traffic(under_way=2, ended=0, tokens=None)


def test_a_server_that_counts_no_requests_is_not_one_that_nobody_asks(
    server: Server, endpoint: Endpoint
) -> None:
    """As with vLLM's disable-log-stats, which an older release may have."""
    server.body = b"# TYPE python_info gauge\npython_info 1.0\n"
    found = endpoint.traffic(KEY)
    assert str(found) == "the endpoint answers 200: its metrics show no counts of its requests"


@pytest.mark.parametrize(
    ("status", "body"), [(401, b""), (200, b"vllm:num_requests_running{ what is that")]
)
def test_what_are_no_metrics(server: Server, endpoint: Endpoint, status: int, body: bytes) -> None:
    server.status, server.body = status, body
    assert isinstance(endpoint.traffic(KEY), Refused)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    endpoint = Endpoint(f"http://127.0.0.1:{port}", clock=CLOCK)
    assert endpoint.models(KEY) == Unreachable("refused")
    assert endpoint.status_of("/health", None) == Unreachable("refused")
    assert endpoint.complete(KEY, "m") == Unreachable("refused")


def test_somebody_listens_and_says_nothing(server: Server) -> None:
    server.silent = threading.Event()
    endpoint = Endpoint(f"http://127.0.0.1:{server.port}", answer_timeout=0.1, clock=CLOCK)
    found = endpoint.complete(KEY, "m")
    server.silent.set()
    assert found == Unreachable("timed_out")
    assert str(found) == "the endpoint does not answer in time"


def test_tls_is_asked_of_a_server_without(server: Server) -> None:
    endpoint = Endpoint(f"https://127.0.0.1:{server.port}", clock=CLOCK)
    assert endpoint.models(KEY) == Unreachable("closed")


@pytest.fixture
def pem(tmp_path: Path, server: Server) -> str:
    """Serve with a certificate that the host makes; give it."""
    host = TlsHost(tmp_path)
    made = host.make_former_certificate("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(host.tls / "cert.pem", host.tls / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return made


def test_the_pinned_certificate_is_the_host_s_own(server: Server, pem: str) -> None:
    endpoint = Endpoint(f"https://127.0.0.1:{server.port}", pem, clock=CLOCK)
    assert isinstance(endpoint.models(KEY), ModelInfo)


def test_another_certificate_gets_no_key(server: Server, pem: str, tmp_path: Path) -> None:
    assert pem
    for pinned in (TlsHost(tmp_path / "other").make_former_certificate("127.0.0.1"), None):
        endpoint = Endpoint(f"https://127.0.0.1:{server.port}", pinned, clock=CLOCK)
        assert endpoint.models(KEY) == Unreachable("certificate")
    assert server.asked == []


def test_a_certificate_for_another_address_is_refused(server: Server, pem: str) -> None:
    endpoint = Endpoint(f"https://localhost:{server.port}", pem, clock=CLOCK)
    assert endpoint.models(KEY) == Unreachable("certificate")


def test_strict_clients_accept_the_certificate(server: Server, pem: str) -> None:
    context = ssl.create_default_context(cadata=pem)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        assert secure.version() == "TLSv1.3"


def test_shows_no_secret() -> None:
    assert repr(Endpoint("http://127.0.0.1:1", clock=CLOCK)) == "Endpoint('http://127.0.0.1:1')"
