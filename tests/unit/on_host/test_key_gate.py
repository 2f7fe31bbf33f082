from __future__ import annotations

import ast
import asyncio
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from components.on_host import key_gate
from components.on_host.key_gate import AllowedKeys, KeyGate, Message, Receive, Scope, Send

KEY = "0123456789abcdef-a-client's-key"
OTHER = "another client's key"

GUARDED = [
    ("GET", "/v1/models"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/responses"),
    ("POST", "/v1/messages"),
    ("POST", "/v1/messages/count_tokens"),
    ("POST", "/v1/embeddings"),
    ("POST", "/tokenize"),
    ("POST", "/detokenize"),
    ("GET", "/metrics"),
    ("GET", "/version"),
    ("GET", "/load"),
]
CLOSED = [
    "/invocations",
    "/ping",
    "/docs",
    "/openapi.json",
    "/generative_scoring",
    "/scale_elastic_ep",
    "/is_scaling_elastic_ep",
    "/kv_event_sources",
    "/sleep",
    "/collective_rpc",
    "/v1/audio/transcriptions",
    "/v1/models/x",
    "/cohere/v2/embed",
    "/",
    "",
]
TRICKS = [
    "//health",
    "/health/",
    "/health//",
    "/Health",
    "/health;x",
    "/health\x00",
    "/health/../invocations",
    "/health/../../invocations",
    "/./health",
    "/v1/../invocations",
    "/v1/models/../../invocations",
    "//v1/models",
    "/v1//models",
    "/v1/models/",
    "/v1/models/.",
    "\\health",
    " /health",
    "/health\n",
]


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


class Inner:
    """What stands behind the gate: notes what it was given, and answers 200."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        self.scopes.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"inside"})


@pytest.fixture
def inner() -> Inner:
    return Inner()


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "allowed_keys"
    path.write_text(f"{digest(KEY)}\n")
    monkeypatch.setenv("KEY_GATE_FILE", str(path))
    return path


@pytest.fixture
def gate(inner: Inner, keys: Path) -> KeyGate:
    assert keys.exists()
    return KeyGate(inner)


def ask(
    gate: KeyGate,
    path: str,
    headers: dict[str, str] | None = None,
    *,
    method: str = "GET",
    **more: Any,
) -> tuple[int, str]:
    encoded = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"x"), *encoded],
        **more,
    }
    return talk(gate, scope)


def talk(gate: KeyGate, scope: Scope) -> tuple[int, str]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(gate(scope, receive, send))
    start, body = sent
    names = dict(start["headers"])
    if start["status"] != 200:
        assert names[b"content-type"] == b"application/json"
        assert names[b"content-length"] == str(len(body["body"])).encode()
        assert b"www-authenticate" not in names
    return start["status"], body["body"].decode()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


class TestTheHostsOwnKey:
    LOCAL = "the host's own"

    @pytest.fixture
    def gate(self, inner: Inner, keys: Path, monkeypatch: pytest.MonkeyPatch) -> KeyGate:
        monkeypatch.setattr(key_gate, "__file__", str(keys.with_name("key_gate.py")))
        keys.with_name("local_keys").write_text(f"{digest(self.LOCAL)}\n")
        return KeyGate(inner)

    @pytest.mark.parametrize("client", [("127.0.0.1", 5), ("127.9.9.9", 5), ("::1", 5)])
    def test_opens_the_counters_from_the_host(self, gate: KeyGate, client: tuple[str, int]) -> None:
        assert ask(gate, "/metrics", bearer(self.LOCAL), client=client) == (200, "inside")

    @pytest.mark.parametrize("client", [("203.0.113.9", 5), ("::2", 5), ("", 0), None])
    def test_opens_nothing_from_elsewhere(
        self, gate: KeyGate, inner: Inner, client: tuple[str, int] | None
    ) -> None:
        assert ask(gate, "/metrics", bearer(self.LOCAL), client=client)[0] == 401
        assert inner.scopes == []

    @pytest.mark.parametrize(("method", "path"), [one for one in GUARDED if one[1] != "/metrics"])
    def test_opens_nothing_else(self, gate: KeyGate, inner: Inner, method: str, path: str) -> None:
        client = ("127.0.0.1", 5)
        assert ask(gate, path, bearer(self.LOCAL), method=method, client=client)[0] == 401
        assert ask(gate, "/metrics", bearer(self.LOCAL), method="POST", client=client)[0] == 405
        assert ask(gate, "/metrics", bearer(OTHER), client=client)[0] == 401
        assert inner.scopes == []


def test_health_needs_no_key(gate: KeyGate) -> None:
    assert ask(gate, "/health") == (200, "inside")


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_a_known_route_needs_the_key(gate: KeyGate, inner: Inner, method: str, path: str) -> None:
    assert ask(gate, path, method=method) == (401, '{"error":"Unauthorized"}')
    assert ask(gate, path, bearer(OTHER), method=method) == (401, '{"error":"Unauthorized"}')
    assert inner.scopes == []
    assert ask(gate, path, bearer(KEY), method=method) == (200, "inside")


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_other_routes_do_not_exist(gate: KeyGate, inner: Inner, method: str, path: str) -> None:
    assert ask(gate, path, method=method) == (401, '{"error":"Unauthorized"}')
    assert ask(gate, path, bearer(KEY), method=method) == (404, '{"detail":"Not Found"}')
    assert inner.scopes == []


@pytest.mark.parametrize("path", TRICKS)
def test_another_spelling_opens_nothing(gate: KeyGate, inner: Inner, path: str) -> None:
    assert ask(gate, path)[0] == 401
    assert ask(gate, path, bearer(KEY))[0] == 404
    assert inner.scopes == []


@pytest.mark.parametrize(
    ("path", "raw"),
    [
        ("/health", b"/%68ealth"),
        ("/health", b"/health%00/../invocations"),
        ("/v1/models", b"/v1%2fmodels"),
        ("/health", b"//health"),
        ("/health", b"http://x/health"),
    ],
)
def test_an_escaped_spelling_opens_nothing(
    gate: KeyGate, inner: Inner, path: str, raw: bytes
) -> None:
    assert ask(gate, path, raw_path=raw)[0] == 401
    assert ask(gate, path, bearer(KEY), raw_path=raw)[0] == 404
    assert inner.scopes == []


def test_a_query_changes_no_route(gate: KeyGate) -> None:
    assert ask(gate, "/health", raw_path=b"/health?a=/invocations")[0] == 200
    assert ask(gate, "/v1/models", query_string=f"api_key={KEY}".encode())[0] == 401


def test_a_server_that_gives_no_raw_path(gate: KeyGate) -> None:
    assert ask(gate, "/health", raw_path=None)[0] == 200


@pytest.mark.parametrize("method", ["OPTIONS", "HEAD", "PUT", "DELETE", "TRACE", "get"])
def test_other_methods_are_refused(gate: KeyGate, inner: Inner, method: str) -> None:
    for path in ("/health", "/v1/models", "/v1/chat/completions"):
        assert ask(gate, path, method=method)[0] == 401
        assert ask(gate, path, bearer(KEY), method=method)[0] == 405
    assert ask(gate, "/v1/chat/completions", bearer(KEY), method="GET")[0] == 405
    assert inner.scopes == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": f"Bearer {KEY}"}, 200),
        ({"authorization": f"bearer {KEY}"}, 200),
        ({"Authorization": f"BEARER  {KEY} "}, 200),
        ({"x-api-key": KEY}, 200),
        ({"X-API-Key": KEY, "Authorization": "Basic abc"}, 200),
        ({"Authorization": KEY}, 401),
        ({"Authorization": f"Basic {KEY}"}, 401),
        ({"Authorization": f"Token Bearer {KEY}"}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": "Bearer "}, 401),
        ({"Authorization": ""}, 401),
        ({"x-api-key": ""}, 401),
        ({"x-api-key": f"Bearer {KEY}"}, 401),
        ({"Authorization": f"Bearer {KEY[:-1]}"}, 401),
        ({"Authorization": f"Bearer {KEY}x"}, 401),
        ({"Authorization": f"Bearer {digest(KEY)}"}, 401),
        ({"cookie": f"Authorization=Bearer {KEY}"}, 401),
        ({"Authorization": "Bearer żółć"}, 401),
    ],
)
def test_where_the_key_is_looked_for(gate: KeyGate, headers: dict[str, str], status: int) -> None:
    assert ask(gate, "/v1/models", headers)[0] == status


def test_the_key_ends_at_the_gate(gate: KeyGate, inner: Inner) -> None:
    ask(gate, "/v1/models", {**bearer(KEY), "x-api-key": KEY, "accept": "a/b"})
    ask(gate, "/health", bearer(KEY))

    for scope in inner.scopes:
        assert KEY not in repr(scope)
    assert (b"accept", b"a/b") in inner.scopes[0]["headers"]


def test_the_gate_says_nothing(
    gate: KeyGate, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    ask(gate, "/v1/models", bearer(KEY))
    ask(gate, "/v1/models", bearer(OTHER))
    assert tuple(capfd.readouterr()) == ("", "")
    assert caplog.records == []
    assert KEY not in repr(vars(gate))


# --------------------------------------------------------------------------- the file of digests


def test_keys_come_and_go_without_a_restart(gate: KeyGate, keys: Path) -> None:
    assert ask(gate, "/v1/models", bearer(OTHER))[0] == 401

    replace(keys, f"{digest(KEY)}\n{digest(OTHER)}\n")
    assert ask(gate, "/v1/models", bearer(OTHER))[0] == 200
    assert ask(gate, "/v1/models", bearer(KEY))[0] == 200

    replace(keys, f"{digest(OTHER)}\n")
    assert ask(gate, "/v1/models", bearer(OTHER))[0] == 200
    assert ask(gate, "/v1/models", bearer(KEY))[0] == 401


def test_a_replaced_key_ends_at_its_time(keys: Path) -> None:
    now = 1000.0
    keys.write_text(f"{digest('new')}\n{digest('old')} until 1060\n{digest('x')} until soon\n")
    allowed = AllowedKeys(keys, lambda: now)
    assert allowed.any_of([b"new"])
    assert allowed.any_of([b"old"])
    assert not allowed.any_of([b"x"])
    now = 1060.0
    assert allowed.any_of([b"new"])
    assert not allowed.any_of([b"old"])


def test_a_file_of_the_same_size_and_time_is_another_file(gate: KeyGate, keys: Path) -> None:
    assert ask(gate, "/v1/models", bearer(KEY))[0] == 200
    before = keys.stat()

    replace(keys, f"{digest(OTHER)}\n")
    os.utime(keys, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert keys.stat().st_size == before.st_size
    assert ask(gate, "/v1/models", bearer(KEY))[0] == 401


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\n\n",
        f"{KEY}\n",
        f"{digest(KEY).upper()}\n",
        f"{digest(KEY)[:-1]}\n",
        f"{digest(KEY)}0\n",
        f"# {digest(KEY)}\n",
        digest("") + "\n",
        "żółć\n" + digest(KEY),
    ],
)
def test_a_file_without_the_digest_lets_nobody_in(gate: KeyGate, keys: Path, content: str) -> None:
    assert ask(gate, "/v1/models", bearer(KEY))[0] == 200
    replace(keys, content)
    assert ask(gate, "/v1/models", bearer(KEY))[0] == 401
    assert ask(gate, "/v1/models", {"x-api-key": ""})[0] == 401
    assert ask(gate, "/health")[0] == 200


def test_a_missing_file_lets_nobody_in_until_it_is_back(gate: KeyGate, keys: Path) -> None:
    assert ask(gate, "/v1/models", bearer(KEY))[0] == 200
    keys.rename(keys.with_name("away"))
    assert ask(gate, "/v1/models", bearer(KEY))[0] == 401
    keys.with_name("away").rename(keys)
    assert ask(gate, "/v1/models", bearer(KEY))[0] == 200


def test_a_file_that_cannot_be_read_lets_nobody_in(gate: KeyGate, keys: Path) -> None:
    assert ask(gate, "/v1/models", bearer(KEY))[0] == 200
    keys.unlink()
    keys.mkdir()
    assert ask(gate, "/v1/models", bearer(KEY))[0] == 401


def test_the_file_beside_the_module_is_the_default(
    inner: Inner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KEY_GATE_FILE", raising=False)
    gate = KeyGate(inner)
    assert gate._keys._path == Path(key_gate.__file__).with_name("allowed_keys")


# --------------------------------------------------------------------------- other connections


def test_a_websocket_is_closed_before_it_opens(gate: KeyGate, inner: Inner) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"authorization", f"Bearer {KEY}".encode())]
    scope = {"type": "websocket", "path": "/v1/realtime", "headers": headers}
    asyncio.run(gate(scope, receive, send))

    assert sent == [{"type": "websocket.close", "code": 1008}]
    assert inner.scopes == []


def test_the_server_s_own_start_and_end_pass(gate: KeyGate, inner: Inner) -> None:
    scope = {"type": "lifespan"}
    asyncio.run(gate(scope, _never, _ignored))
    assert inner.scopes == [scope]


def test_an_unknown_kind_of_connection_is_refused(gate: KeyGate, inner: Inner) -> None:
    with pytest.raises(ValueError, match="webtransport"):
        asyncio.run(gate({"type": "webtransport"}, _never, _ignored))
    assert inner.scopes == []


async def _never() -> Message:
    raise AssertionError("nothing is to be received")


async def _ignored(message: Message) -> None:
    del message


# --------------------------------------------------------------------------- in a real application


@pytest.fixture
def client(keys: Path) -> httpx.AsyncClient:
    assert keys.exists()

    async def health(_: Request) -> JSONResponse:
        return JSONResponse({})

    async def echo(request: Request) -> JSONResponse:
        return JSONResponse({"got": await request.json(), "headers": list(request.headers)})

    app = Starlette(
        routes=[
            Route("/health", health),
            Route("/invocations", echo, methods=["POST"]),
            Route("/v1/chat/completions", echo, methods=["POST"]),
        ]
    )
    app.add_middleware(KeyGate)
    transport = httpx.ASGITransport(app=app)
    return httpx.AsyncClient(transport=transport, base_url="http://endpoint")


def test_in_front_of_a_starlette_application(client: httpx.AsyncClient) -> None:
    async def conversation() -> list[httpx.Response]:
        async with client:
            return [
                await client.get("/health"),
                await client.post("/invocations", json={"messages": []}),
                await client.post("/invocations", json={}, headers=bearer(KEY)),
                await client.post("/v1/chat/completions", json={"a": 1}),
                await client.post("/v1/chat/completions", json={"a": 1}, headers=bearer(KEY)),
                await client.get("/%68ealth"),
                await client.get("/health/"),
                await client.options("/v1/chat/completions", headers={"Origin": "http://o"}),
            ]

    seen = asyncio.run(conversation())

    assert [response.status_code for response in seen] == [200, 401, 404, 401, 200, 401, 401, 401]
    assert seen[1].json() == {"error": "Unauthorized"}
    assert seen[2].json() == {"detail": "Not Found"}
    assert seen[4].json()["got"] == {"a": 1}
    assert "authorization" not in seen[4].json()["headers"]


# --------------------------------------------------------------------------- the module itself


def test_only_the_standard_library_is_imported() -> None:
    tree = ast.parse(Path(key_gate.__file__).read_text())
    imported = {
        name
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names


def test_bodies_are_vllm_s() -> None:
    assert json.loads(key_gate.UNAUTHORIZED[1]) == {"error": "Unauthorized"}
    assert json.loads(key_gate.NOT_FOUND[1]) == {"detail": "Not Found"}


def replace(path: Path, content: str) -> None:
    new = path.with_name("new")
    new.write_text(content)
    new.replace(path)
