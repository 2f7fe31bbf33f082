"""What becomes of requests while members come, go, drain and die, and the router reloads."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator

import httpx
import pytest

from components.core.keys import digest
from components.router.inputs import KeyDigest, Member
from tests.helpers.gates import bearer
from tests.helpers.polling import eventually
from tests.helpers.router_world import (
    AUTHORITY,
    CHAT,
    STACK_KEY,
    Fleet,
    Machines,
    Router,
    asked,
    conversation,
    fleet,
    short_folder,
)
from toolchain.scale_out.loopback import LOOPBACK

NEXT_KEY = "e1" * 24
TRIES = 16


@pytest.fixture
def world(tmp_path) -> Iterator[Fleet]:
    with fleet(tmp_path, [41, 42]) as one:
        yield one


def answering(client: httpx.Client) -> set[int]:
    """Who answers requests of several conversations, each of which succeeds."""
    return {asked(client, conversation(f"question {n}")) for n in range(TRIES)}


def words_for(client: httpx.Client, contract: int) -> str:
    """A question that this member answers."""
    words = (f"question {n}" for n in range(99))
    return next(one for one in words if asked(client, conversation(one)) == contract)


def drained(member: Member) -> Member:
    return member.model_copy(update={"state": "draining"})


def test_a_contract_that_comes_back_at_another_port_is_served_there(world):
    """A file of the servers' states would bring the previous port back."""
    world.servers[41].die()
    eventually(lambda: world.router.status(41) == "DOWN")
    moved = world.machines.add(41)
    members = (moved.member, world.router.inputs.members[1])
    with world.router.client() as client:
        world.router.reload(members=members)
        assert answering(client) == {41, 42}
    assert moved.requests


def test_http_2_is_not_offered_and_a_refused_body_gets_its_answer(world):
    context = ssl.create_default_context(cadata=AUTHORITY.certificate)
    context.set_alpn_protocols(["h2", "http/1.1"])
    address = (LOOPBACK, world.router.port)
    with (
        socket.create_connection(address) as raw,
        context.wrap_socket(raw, server_hostname=LOOPBACK) as connection,
    ):
        assert connection.selected_alpn_protocol() == "http/1.1"
    with world.router.client(key="wrong") as client:
        for path, size in ((CHAT, 10), (CHAT, 300_000), ("/nothing", 300_000)):
            assert client.post(path, content=b"x" * size).status_code == 401


def test_clients_share_the_routers_connections_to_a_member(tmp_path):
    with fleet(tmp_path, [41]) as world:
        for number in range(TRIES):
            with world.router.client() as client:
                assert asked(client, conversation(f"question {number}")) == 41
        assert len(world.servers[41].connections) == 1


def test_a_connection_that_breaks_without_an_answer_costs_no_request(world):
    with world.router.client() as client:
        for server in world.servers.values():
            words = words_for(client, server.contract)
            server.breaks = 1
            assert asked(client, conversation(words)) in {41, 42}
            assert server.breaks == 0


def test_a_connection_that_the_member_closed_while_it_was_idle_costs_no_request(tmp_path):
    with short_folder() as folder, Machines(tmp_path) as machines:
        server = machines.add(41, idle_seconds=0)
        with Router(folder, members=(server.member,)) as router, router.client() as client:
            assert answering(client) == {41}
        assert len(server.connections) > 1


def test_a_new_member_that_does_not_serve_yet_costs_no_request(world):
    late = world.machines.add(43, serves=False)
    with world.router.client() as client:
        world.router.reload(members=(*world.router.inputs.members, late.member))
        assert answering(client) <= {41, 42}
        late.serve()
        eventually(lambda: world.router.status(43) == "UP")
        assert 43 in answering(client)


def test_an_answer_that_has_begun_outlives_a_reload_without_its_member(world):
    with world.router.client() as client, world.router.client() as other:
        words = words_for(client, 41)
        with world.router.stream(client, words) as lines:
            world.router.reload(members=world.router.inputs.members[1:])
            assert answering(other) == {42}
            assert world.router.workers() == 2
            world.servers[41].let_go_on()
            assert list(lines) == ["end"]
    eventually(lambda: world.router.workers() == 1)


def test_an_answer_without_end_does_not_keep_the_previous_worker(tmp_path):
    with (
        fleet(tmp_path, [41], old_worker_seconds=1) as world,
        world.router.client() as client,
        world.router.stream(client, "one") as lines,
    ):
        world.router.reload()
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)
        eventually(lambda: world.router.workers() == 1)


def test_a_connection_from_before_a_reload_meets_the_new_members_and_keys(tmp_path):
    with fleet(tmp_path, tuple(range(11, 16))) as world, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(world.router.client()) for _ in range(12)]
        first = [asked(client, conversation(f"of {n}")) for n, client in enumerate(clients)]
        members = world.router.inputs.members
        assert set(first) - {one.contract for one in members[:2]}
        for server in world.servers.values():
            server.allow(STACK_KEY, NEXT_KEY)
        keys = tuple(KeyDigest(digest=digest(key)) for key in (NEXT_KEY, STACK_KEY))
        world.router.reload(members=members[:2], key_digests=keys)
        for n, client in enumerate(clients):
            new = bearer(NEXT_KEY)
            answer = client.post(CHAT, json=conversation(f"of {n}", "more"), headers=new)
            assert answer.status_code == 200
            assert answer.json()["contract"] in {11, 12}
            # It was the previous worker's last answer to this client.
            assert answer.headers["connection"] == "close"
            assert "connection" not in client.get("/v1/models", headers=new).headers
        eventually(lambda: world.router.workers() == 1)


def test_a_member_that_drains_gets_nothing_new_and_ends_what_it_has(world):
    with world.router.client() as client, world.router.client() as other:
        words = words_for(client, 41)
        with world.router.stream(client, words) as lines:
            world.servers[41].folder.drain()
            eventually(lambda: world.router.status(41).startswith("NOLB"))
            had = len(world.servers[41].requests)
            assert answering(other) == {42}
            assert len(world.servers[41].requests) == had
            world.servers[41].let_go_on()
            assert list(lines) == ["end"]
        world.servers[41].folder.drain(on=False)
        eventually(lambda: world.router.status(41) == "UP")
        assert asked(other, conversation(words)) == 41


def test_a_member_that_the_file_calls_draining_gets_nothing_new(world):
    first, second = world.router.inputs.members
    with world.router.client() as client:
        world.router.reload(members=(drained(first), second))
        assert answering(client) == {42}
        assert client.get("/health").status_code == 200
        world.router.reload(members=(drained(first), drained(second)))
        assert client.get("/health").status_code == 503
        refused = client.post(CHAT, json=conversation("question"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, 503)


def test_a_member_that_dies_costs_the_answers_that_it_had_begun_alone(world):
    with world.router.client() as client, world.router.client() as other:
        mine, neighbours = words_for(client, 41), words_for(client, 42)
        with (
            world.router.stream(client, mine) as cut,
            world.router.stream(client, neighbours) as whole,
        ):
            world.servers[41].die()
            assert answering(other) == {42}
            with pytest.raises(httpx.RemoteProtocolError):
                list(cut)
            world.servers[42].let_go_on()
            assert list(whole) == ["end"]
        eventually(lambda: world.router.status(41) == "DOWN")
        assert asked(other, conversation(mine)) == 42


def test_a_request_that_no_server_can_bear_ejects_nobody(world):
    with world.router.client() as client:
        for number in range(2 * TRIES):
            answer = client.post(CHAT, json={**conversation(f"question {number}"), "status": 500})
            assert answer.status_code == 500
        assert [world.router.status(contract) for contract in (41, 42)] == ["UP", "UP"]
        assert answering(client) == {41, 42}


def test_a_key_is_replaced_without_a_refused_request_and_ends_without_a_reload(world):
    for server in world.servers.values():
        server.allow(STACK_KEY, NEXT_KEY)
    router = world.router
    ends = int(time.time()) + 2
    router.reload(
        key_digests=(
            KeyDigest(digest=digest(NEXT_KEY)),
            KeyDigest(digest=digest(STACK_KEY), ends=ends),
        )
    )
    with router.client() as previous, router.client(NEXT_KEY) as current:
        assert answering(current) == {41, 42}
        if time.time() < ends - 1:
            assert asked(previous, conversation("question")) in {41, 42}
        eventually(lambda: previous.get("/v1/models").status_code == 401)
        assert time.time() >= ends
        assert answering(current) == {41, 42}
