"""What the gate does with bodies that are too large, and while its server drains."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from components.on_host.key_gate import BODY_BYTES, GUARDED, Body, Message, Receive, Scope, Send
from tests.helpers.gates import LOCAL_KEY, Folder, ask, asked, bearer, scope_of

CHAT = "/v1/chat/completions"
LIMIT = 100
CLOSES = (b"connection", b"close")


class Reader:
    """An application that reads a body to its end, as far as it gets, and then answers."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.complete = False
        self.calls = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        self.calls += 1
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            self.pieces.append(message["body"])
            more = message["more_body"]
        self.complete = not more
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"read"})


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder.make(tmp_path)


# --------------------------------------------------------------------------- bodies


@given(
    pieces=st.lists(st.binary(max_size=40), min_size=1, max_size=12),
    limit=st.integers(min_value=0, max_value=200),
)
def test_a_body_is_whole_or_refused(pieces: list[bytes], limit: int) -> None:
    reader = Reader()
    sent: list[Message] = []
    rest = list(pieces)

    async def receive() -> Message:
        return {"type": "http.request", "body": rest.pop(0), "more_body": bool(rest)}

    async def send(message: Message) -> None:
        sent.append(message)

    async def conversation() -> bool:
        body = Body(receive, send, limit)
        await reader({}, body.receive, body.send)
        if body.refused:
            await body.end()
        return body.refused

    refused = asyncio.run(conversation())
    too_large = sum(map(len, pieces)) > limit
    assert refused == too_large
    assert sent[0]["status"] == (413 if too_large else 200)
    assert [message["type"] for message in sent].count("http.response.start") == 1
    assert not sent[-1].get("more_body")
    assert reader.complete != too_large
    assert sum(map(len, reader.pieces)) <= limit
    assert rest == []
    if not too_large:
        assert reader.pieces == pieces


def test_a_body_that_says_its_size_is_refused_before_it_comes(folder: Folder) -> None:
    folder.limit(f"{LIMIT}\n")
    reader = Reader()
    gate = folder.gate(reader)
    headers = bearer() | {"Content-Length": str(LIMIT + 1)}
    answer = ask(gate, CHAT, headers, pieces=[b"x" * (LIMIT + 1)])
    assert answer.status == 413
    assert "larger than this server takes" in json.loads(answer.body)["error"]["message"]
    assert CLOSES in answer.headers.items()
    assert reader.calls == 0
    headers = bearer() | {"Content-Length": str(LIMIT)}
    assert ask(gate, CHAT, headers, pieces=[b"x" * LIMIT]).status == 200


def test_a_body_that_lies_about_its_size_is_counted(folder: Folder) -> None:
    folder.limit(f"{LIMIT}\n")
    reader = Reader()
    headers = bearer() | {"Content-Length": "1"}
    answer = ask(folder.gate(reader), CHAT, headers, pieces=[b"x" * 60, b"x" * 60, b"x"])
    assert answer.status == 413
    assert reader.pieces == [b"x" * 60]


@pytest.mark.parametrize("text", ["", "none", "-5", "1e9", "9" * 16, "\u00bd", " \n5"])
def test_without_a_number_the_limit_is_the_default(folder: Folder, text: str) -> None:
    folder.limit(text)
    gate = folder.gate(Reader())
    over = bearer() | {"Content-Length": str(BODY_BYTES + 1)}
    assert BODY_BYTES == 32 * 1024 * 1024
    assert ask(gate, CHAT, over).status == 413
    assert ask(gate, CHAT, bearer() | {"Content-Length": str(BODY_BYTES)}).status == 200


def test_the_limit_changes_without_a_restart(folder: Folder) -> None:
    gate = folder.gate(Reader())
    question = bearer() | {"Content-Length": "1000"}
    assert ask(gate, CHAT, question, pieces=[b"x" * 1000]).status == 200
    folder.limit("999\n")
    assert ask(gate, CHAT, question, pieces=[b"x" * 1000]).status == 413
    folder.limit("10000\n")
    assert ask(gate, CHAT, question, pieces=[b"x" * 1000]).status == 200


def test_who_has_no_key_learns_nothing_of_the_limit(folder: Folder) -> None:
    folder.limit("1\n")
    gate = folder.gate(Reader())
    for headers in ({}, bearer("another")):
        answer = ask(gate, CHAT, headers | {"Content-Length": "2"}, pieces=[b"xx"])
        assert answer.status == 401


def test_an_answer_that_has_begun_is_not_answered_twice(folder: Folder) -> None:
    async def hasty(scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        await send({"type": "http.response.start", "status": 200, "headers": []})
        message = await receive()
        last = await receive()
        assert (message["type"], last["type"]) == ("http.request", "http.disconnect")
        await send({"type": "http.response.body", "body": b"begun"})

    folder.limit("3\n")
    answer = ask(folder.gate(hasty), CHAT, bearer(), pieces=[b"xx", b"xx"])
    assert (answer.status, answer.body) == (200, b"begun")


def test_an_application_that_complains_of_the_refusal_changes_nothing(folder: Folder) -> None:
    async def complains(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, send
        if (await receive())["type"] == "http.disconnect":
            raise ConnectionError("the client has left")
        raise ValueError("its own")

    folder.limit("3\n")
    gate = folder.gate(complains)
    assert ask(gate, CHAT, bearer(), pieces=[b"xxxx"]).status == 413
    with pytest.raises(ValueError, match="its own"):
        ask(gate, CHAT, bearer(), pieces=[b"xxx"])


def test_in_front_of_an_application_that_parses_the_body(folder: Folder) -> None:
    async def echo(request: Request) -> JSONResponse:
        return JSONResponse(await request.json())

    app = Starlette(routes=[Route(CHAT, echo, methods=["POST"])])
    app.add_middleware(folder.module().KeyGate)
    folder.limit("12\n")
    small, large = [b'{"a":', b" 1}"], [b'{"a": "', b"x" * 9, b'"}']
    assert asyncio.run(asked(app, scope_of(CHAT, bearer()), small)).body == b'{"a":1}'
    assert asyncio.run(asked(app, scope_of(CHAT, bearer()), large)).status == 413


def test_a_client_that_sends_without_end_is_cut_off(folder: Folder) -> None:
    module = folder.module()
    gate = module.KeyGate(Reader())
    piece = b"x" * 1_000_000
    taken = 0

    async def receive() -> Message:
        nonlocal taken
        taken += len(piece)
        return {"type": "http.request", "body": piece, "more_body": True}

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    folder.limit("10\n")
    asyncio.run(gate(scope_of(CHAT, bearer()), receive, send))
    assert sent[0]["status"] == 413
    assert not sent[-1].get("more_body")
    assert taken <= module.LINGER_BYTES + 2 * len(piece)


def test_a_client_that_stops_sending_is_cut_off(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = folder.module()
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.0)
    sent: list[Message] = []

    async def never() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    folder.limit("10\n")
    headers = bearer() | {"Content-Length": "11"}
    asyncio.run(module.KeyGate(Reader())(scope_of(CHAT, headers), never, send))
    assert sent[0]["status"] == 413
    assert sent[-1] == {"type": "http.response.body", "body": b""}


# --------------------------------------------------------------------------- draining


def test_a_server_that_drains_says_so_to_a_balancer(folder: Folder) -> None:
    gate = folder.gate(Reader())
    assert ask(gate, "/health", method="GET").status == 200
    folder.drain()
    for headers in ({}, bearer()):
        answer = ask(gate, "/health", headers, method="GET")
        assert (answer.status, answer.body) == (404, b'{"detail":"Draining"}')
        assert CLOSES in answer.headers.items()
    folder.drain(on=False)
    answer = ask(gate, "/health", method="GET")
    assert answer.status == 200
    assert b"connection" not in answer.headers


def test_a_server_that_drains_answers_all_else_and_keeps_no_connection(folder: Folder) -> None:
    gate = folder.gate(Reader())
    for drains in (False, True):
        if drains:
            folder.drain()
        for path, method in GUARDED.items():
            for headers, status in ((bearer(), 200), ({}, 401), (bearer("another"), 401)):
                answer = ask(gate, path, headers, method=method)
                assert answer.status == status, path
                assert (CLOSES in answer.headers.items()) == drains
        for path in ("/invocations", "/health/", "/v1/models/x"):
            assert ask(gate, path, bearer()).status == 404
            assert ask(gate, path).status == 401
        assert ask(gate, "/health", bearer(), method="POST").status == 405
        assert ask(gate, "/v1/models", bearer(), method="DELETE").status == 405


def test_the_counters_are_read_while_the_server_drains(folder: Folder) -> None:
    gate = folder.gate(Reader())
    folder.drain()
    inside = ("127.0.0.1", 5)
    assert ask(gate, "/metrics", bearer(LOCAL_KEY), method="GET", client=inside).status == 200
    assert ask(gate, CHAT, bearer(LOCAL_KEY), client=inside).status == 401


def test_the_application_s_own_word_on_the_connection_is_replaced(folder: Folder) -> None:
    async def keeps(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        headers = [(b"Connection", b"keep-alive"), (b"a", b"b")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    gate = folder.gate(keeps)
    assert ask(gate, CHAT, bearer()).headers == {b"Connection": b"keep-alive", b"a": b"b"}
    folder.drain()
    assert ask(gate, CHAT, bearer()).headers == dict([(b"a", b"b"), CLOSES])
