"""Which member answers: a conversation stays where its beginning is cached."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from components.router.config import BUFFER_BYTES, PLACES
from tests.helpers.router_world import CHAT, Fleet, asked, conversation, fleet

CONTRACTS = (31, 32, 33)
CONVERSATIONS = 24


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("machines"), CONTRACTS) as one:
        yield one


@pytest.fixture
def client(world: Fleet) -> Iterator[httpx.Client]:
    with world.router.client() as one:
        yield one


def places_of(client: httpx.Client) -> dict[int, int]:
    return {
        number: asked(client, conversation(f"question {number}")) for number in range(CONVERSATIONS)
    }


def now_places_of(world: Fleet) -> dict[int, int]:
    """Ask on a new connection."""
    with world.router.client() as client:
        return places_of(client)


def test_removing_a_member_moves_no_conversation_of_the_others_and_it_gets_its_own_back(tmp_path):
    with fleet(tmp_path, CONTRACTS) as world:
        first = now_places_of(world)
        assert set(first.values()) == set(CONTRACTS)
        members = world.router.inputs.members
        world.router.reload(members=members[1:])
        then = now_places_of(world)
        assert set(then.values()) == {32, 33}
        assert {n: then[n] for n in first if first[n] != 31} == {
            n: place for n, place in first.items() if place != 31
        }
        # In another order, with a stranger in front: neither has a say.
        world.router.reload(members=members[::-1])
        assert now_places_of(world) == first


def test_ids_that_haproxy_places_alike_both_get_requests(tmp_path):
    with (
        fleet(tmp_path, [5, 5 + PLACES, 5 + 2 * PLACES]) as world,
        world.router.client() as client,
    ):
        assert set(places_of(client).values()) == set(world.servers)


def system(text: str, *questions: str) -> dict[str, Any]:
    head = {"role": "system", "content": text}
    return {"messages": [head, *conversation(*questions)["messages"]]}


def parts(*texts: str) -> dict[str, Any]:
    body = conversation(*texts)
    for message in body["messages"]:
        message["content"] = [{"type": "text", "text": message["content"]}]
    return body


LONG = "word " * 20_000
LONGER = "word " * 120_000
PICTURE = "A" * 4_000_000
HEADS = {
    "no system prompt": conversation,
    "parts": parts,
    "100 kB system prompt": lambda name, *more: system(name + LONG, "the same", *more),
    "one system prompt": lambda name, *more: system("the same", name, *more),
    "600 kB system prompt": lambda name, *more: system(name + LONGER, "the same", *more),
    "600 kB question": lambda name, *more: conversation(name + LONGER, *more),
    "4 MB picture": lambda name, *more: conversation(name + PICTURE, *more),
    "a prompt": lambda name, *_: {"prompt": name},
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_a_conversation_stays_on_one_member(client, head):
    """A head beyond HAProxy's buffer is known by its first 2 kB."""
    few = len(json.dumps(head(""))) > BUFFER_BYTES
    for name in ("first", "second", "third", "fourth")[: 2 if few else 4]:
        turns = [head(name), head(name, "more"), head(name, "more", "and more")]
        answers = [client.post(CHAT, json=turn).json() for turn in turns]
        assert len({answer["contract"] for answer in answers}) == 1
        for answer, turn in zip(answers, turns, strict=True):
            assert answer["bytes"] == len(json.dumps(turn, separators=(",", ":")))


def test_conversations_with_one_system_prompt_are_several(client):
    answered = {asked(client, system("You help.", f"question {n}")) for n in range(CONVERSATIONS)}
    assert answered == set(CONTRACTS)


def test_the_clients_own_word_for_its_conversation_wins(client):
    by_field = {
        asked(client, {**conversation(f"question {n}"), "prompt_cache_key": "mine"})
        for n in range(8)
    }
    by_header = {
        asked(client, conversation(f"question {n}"), **{"x-session-id": "mine"}) for n in range(8)
    }
    assert len(by_field) == len(by_header) == 1


def test_conversations_stay_with_a_member_that_is_busier_than_the_others(tmp_path):
    with fleet(tmp_path, CONTRACTS) as world, world.router.client() as client:
        first = asked(client, conversation("one"))
        with contextlib.ExitStack() as stack:
            for _ in range(6):
                stack.enter_context(world.router.stream(client, "one"))
            assert asked(client, conversation("one", "more")) == first
            assert len(world.servers[first].requests) == 8
            world.servers[first].let_go_on()


def test_least_connections_lets_nobody_wait_behind_another(tmp_path):
    with (
        fleet(tmp_path, CONTRACTS, routing="least-connections") as world,
        world.router.client() as client,
        world.router.stream(client, "one"),
        world.router.stream(client, "one"),
        world.router.stream(client, "one"),
    ):
        assert [len(server.requests) for server in world.servers.values()] == [1, 1, 1]
        for server in world.servers.values():
            server.let_go_on()


def test_what_fits_into_the_buffer_is_repeated_elsewhere_and_a_larger_request_is_not(tmp_path):
    # Nobody checks meanwhile, so only requests find out that the member is gone.
    with (
        fleet(tmp_path, [31, 32], check_milliseconds=60_000) as world,
        world.router.client() as client,
    ):
        small = next(n for n in range(99) if asked(client, conversation(f"question {n}")) == 31)
        large = next(
            n for n in range(99) if asked(client, conversation(f"question {n}" + LONGER)) == 31
        )
        world.servers[31].die()
        assert asked(client, conversation(f"question {small}")) == 32
        body = conversation(f"question {large}" + LONGER)
        assert len(json.dumps(body)) > BUFFER_BYTES
        assert status_or_cut(client, body) in {0, 503}


def status_or_cut(client: httpx.Client, body: dict[str, Any]) -> int:
    """What is answered; 0 if the connection is closed while the client still sends."""
    try:
        return client.post(CHAT, json=body).status_code
    except httpx.TransportError:
        return 0
