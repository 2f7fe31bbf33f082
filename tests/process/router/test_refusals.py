"""Whom the router refuses, and which members it refuses to believe."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator
from urllib.parse import unquote

import httpx
import pytest

from components.core.keys import digest, machine_key
from components.on_host.key_gate import GUARDED, OPEN
from components.router.config import CLIENT
from components.tls import certificates
from components.tls.authorities import Authority
from tests.helpers import gates
from tests.helpers.polling import eventually
from tests.helpers.router_world import (
    AUTHORITY,
    CHAT,
    SCOPE,
    STACK_KEY,
    Fleet,
    Machines,
    Router,
    asked,
    conversation,
    fleet,
    identity,
    short_folder,
)
from toolchain.scale_out.loopback import LOOPBACK, WITHIN

METHODS = ("GET", "HEAD", "POST", "PUT", "OPTIONS")
PATHS = (
    *OPEN,
    *(path for path in GUARDED if path != "/metrics"),
    "/",
    "/nothing",
    "/health/",
    "/%68ealth",
    "/v1/../v1/models",
    "/V1/models",
    "/v1/models?x=/health",
)
OTHER = Authority.made(1_700_000_000.0)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("machines"), [7, 8]) as one:
        yield one


class Connection:
    """Sends paths and headers as they are written."""

    def __init__(self, port: int) -> None:
        context = ssl.create_default_context(cadata=AUTHORITY.certificate)
        self._connection = http.client.HTTPSConnection(
            LOOPBACK, port, context=context, timeout=WITHIN
        )

    def ask(self, method: str, path: str, *headers: tuple[str, str]) -> tuple[int, bytes]:
        self._connection.putrequest(method, path)
        for name, value in headers:
            self._connection.putheader(name, value)
        self._connection.putheader("Content-Length", "0")
        self._connection.endheaders()
        answer = self._connection.getresponse()
        return answer.status, answer.read()


@pytest.fixture
def connection(world: Fleet) -> Iterator[Connection]:
    one = Connection(world.router.port)
    yield one
    one._connection.close()


async def everything(scope, receive, send) -> None:
    del scope, receive
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize("key", [None, "wrong", STACK_KEY], ids=["none", "wrong", "right"])
def test_routes_are_answered_as_the_gate_of_a_machine_answers_them(connection, tmp_path, key):
    folder = gates.Folder.make(tmp_path)
    (tmp_path / "allowed_keys").write_text(f"{digest(STACK_KEY)}\n")
    gate = folder.gate(everything)
    headers = gates.bearer(key) if key else {}
    for path in PATHS:
        literal = path.partition("?")[0]
        for method in METHODS:
            own = gates.ask(
                gate, unquote(literal), headers, method=method, raw_path=literal.encode()
            )
            status, body = connection.ask(method, path, *headers.items())
            assert (path, method, status) == (path, method, own.status)
            if status != 200 and method != "HEAD":
                assert body == own.body


OWN = machine_key(STACK_KEY, SCOPE, 7)
AUTHORIZATION = "Authorization"
WRONG = (AUTHORIZATION, "Bearer wrong")
BASIC = (AUTHORIZATION, "Basic eDp5")
KEYS = {
    "none": ([], 401),
    "bearer": ([(AUTHORIZATION, f"Bearer {STACK_KEY}")], 200),
    "bearer in small letters": ([("authorization", f"bearer {STACK_KEY}")], 200),
    "x-api-key": ([("X-Api-Key", STACK_KEY)], 200),
    "a wrong one and the right x-api-key": ([WRONG, ("X-Api-Key", STACK_KEY)], 200),
    "basic and the right x-api-key": ([BASIC, ("X-Api-Key", STACK_KEY)], 200),
    "the right one and a wrong x-api-key": (
        [(AUTHORIZATION, f"Bearer {STACK_KEY}"), ("X-Api-Key", "wrong")],
        200,
    ),
    "wrong": ([WRONG], 401),
    "wrong in both": ([WRONG, ("X-Api-Key", "wrong")], 401),
    "basic": ([BASIC], 401),
    "empty": ([(AUTHORIZATION, "Bearer ")], 401),
    "its digest": ([(AUTHORIZATION, f"Bearer {digest(STACK_KEY)}")], 401),
    "more than it": ([(AUTHORIZATION, f"Bearer {STACK_KEY}0")], 401),
    "a machine's": ([(AUTHORIZATION, f"Bearer {OWN}")], 401),
    "a machine's as x-api-key": ([("X-Api-Key", OWN)], 401),
    "two": ([(AUTHORIZATION, f"Bearer {STACK_KEY}"), WRONG], 400),
    "two of x-api-key": ([("X-Api-Key", STACK_KEY), ("X-Api-Key", STACK_KEY)], 400),
}


@pytest.mark.parametrize(("headers", "status"), KEYS.values(), ids=KEYS)
def test_a_key_is_right_or_refused(connection, headers, status):
    assert connection.ask("GET", "/v1/models", *headers)[0] == status


def test_the_routers_counters_want_a_key_and_name_none(connection):
    assert connection.ask("GET", "/metrics")[0] == 401
    status, body = connection.ask("GET", "/metrics", *gates.bearer(STACK_KEY).items())
    assert status == 200
    assert b"haproxy_backend_current_sessions" in body
    assert STACK_KEY.encode() not in body
    assert digest(STACK_KEY).encode() not in body


@pytest.mark.parametrize(
    "key", [STACK_KEY, machine_key(STACK_KEY, SCOPE, 8)], ids=["the client's", "a sibling's"]
)
def test_a_machine_takes_its_own_key_alone(world, key):
    context = ssl.create_default_context(cadata=AUTHORITY.certificate)
    url = f"https://{LOOPBACK}:{world.servers[7].port}/v1/models"
    with httpx.Client(verify=context, trust_env=False) as client:
        assert client.get(url, headers=gates.bearer(key)).status_code == 401
        assert client.get(url, headers=gates.bearer(OWN)).status_code == 200


def signed_by_a_machine(contract: int) -> str:
    """A certificate that a machine signs for its neighbour, with its own behind it."""
    pem = identity(8)
    own = pem[pem.index("-----BEGIN PRIVATE KEY") :]
    leaf = pem.removesuffix(own)
    return identity(contract, Authority(own, leaf)) + leaf


IMPOSTORS = {
    21: lambda: identity(21, OTHER),
    22: lambda: identity(8),
    23: lambda: signed_by_a_machine(23),
    24: lambda: identity(240),
}
"""Another authority's; a machine's own; one that a machine has signed; a name that begins alike."""


def await_refusal(router: Router, contract: int) -> None:
    """Wait until the handshake has failed, and nothing else."""
    eventually(lambda: router.status(contract) == "DOWN")
    eventually(lambda: router.row(contract)["check_status"].endswith("L6RSP"))


def test_an_impostor_gets_no_request(tmp_path):
    with short_folder() as folder, Machines(tmp_path) as machines:
        true = machines.add(7)
        impostors = [machines.add(contract, pem()) for contract, pem in IMPOSTORS.items()]
        members = tuple(server.member for server in (true, *impostors))
        with Router(folder, members=members) as router:
            for server in impostors:
                await_refusal(router, server.contract)
            eventually(lambda: router.status(7) == "UP")
            with router.client() as client:
                answered = {asked(client, conversation(f"question {n}")) for n in range(20)}
            assert answered == {7}
        assert [server.requests for server in impostors] == [[]] * len(impostors)


def test_where_clients_show_a_certificate_nobody_speaks_without_one(tmp_path):
    pem = tmp_path / "machine.pem"
    pem.write_text(identity(7))
    with fleet(tmp_path, [7], client_certificates=True) as world:
        router = world.router
        for nobody in (None, pem):
            with (
                router.client(identity=nobody) as client,
                pytest.raises((httpx.ReadError, httpx.RemoteProtocolError, httpx.ConnectError)),
            ):
                client.get("/health")
        with router.client(identity=router.folder / CLIENT) as client:
            assert asked(client, conversation("question")) == 7


def test_nothing_that_is_written_has_a_key(tmp_path):
    with fleet(tmp_path, [7]) as world, world.router.client() as client:
        assert asked(client, conversation("question")) == 7
        world.servers[7].die()
        eventually(lambda: world.router.status(7) == "DOWN")
        assert client.post(CHAT, json=conversation("another")).status_code == 503
        for file in world.router.folder.iterdir():
            if file.is_socket():
                assert file.stat().st_mode & 0o077 == 0
                continue
            text = file.read_text()
            assert STACK_KEY not in text
            assert OWN not in text
        assert "DOWN" in world.router.log()
        names = certificates.machine_name(7)
        assert f"verifyhost {names}" in (world.router.folder / "haproxy.cfg").read_text()
