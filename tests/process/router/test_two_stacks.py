"""Members of two stacks in one file: each is believed by its own authority, asked by its own scope.

One key of clients has to open both stacks, since the router makes each member's key out of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from components.core.keys import digest, machine_key, scope_of
from components.router.config import AUTHORITY as AUTHORITIES
from components.router.inputs import KeyDigest, Member
from components.tls.authorities import Authority
from components.tls.certificates import joined
from tests.helpers.gates import bearer
from tests.helpers.polling import eventually
from tests.helpers.router_world import (
    AUTHORITY,
    CHAT,
    STACK_KEY,
    Machines,
    Router,
    Server,
    asked,
    conversation,
    identity,
    short_folder,
)

OURS = (61, 62)
THEIRS = (71, 72)
THEIR_SCOPE = scope_of("vast-vllm", "batch")
THEIR_AUTHORITY = Authority.made(time.time())
THEIR_KEY = "3c" * 24
QUESTIONS = 32


def theirs(server: Server, stack_key: str) -> Member:
    """A member of the other stack, whose gate takes a key of that stack's scope."""
    key = machine_key(stack_key, THEIR_SCOPE, server.contract)
    (server.folder.path / "allowed_keys").write_text(f"{digest(key)}\n")
    return server.member.model_copy(update={"scope": THEIR_SCOPE})


@contextmanager
def two_stacks(
    tmp_path: Path, their_key: str = STACK_KEY, authorities: Sequence[Authority] = ()
) -> Iterator[Router]:
    trusted = [one.certificate for one in authorities or (AUTHORITY, THEIR_AUTHORITY)]
    with short_folder() as folder, Machines(tmp_path) as machines:
        (folder / AUTHORITIES).write_text(joined(trusted))
        ours = [machines.add(contract).member for contract in OURS]
        others = [
            theirs(machines.add(contract, identity(contract, THEIR_AUTHORITY)), their_key)
            for contract in THEIRS
        ]
        keys = tuple(KeyDigest(digest=digest(key)) for key in {STACK_KEY: 0, their_key: 0})
        with Router(folder, members=(*ours, *others), key_digests=keys) as router:
            yield router


def answers(client: httpx.Client) -> list[httpx.Response]:
    return [
        client.post(CHAT, json=conversation(f"question {number}")) for number in range(QUESTIONS)
    ]


def test_two_stacks_with_one_key_serve_side_by_side(tmp_path):
    with two_stacks(tmp_path) as router, router.client() as client:
        first = {n: asked(client, conversation(f"question {n}")) for n in range(QUESTIONS)}
        assert set(first.values()) == {*OURS, *THEIRS}
        members = router.inputs.members
        router.reload(members=members[: len(OURS)])
        then = {n: asked(client, conversation(f"question {n}")) for n in range(QUESTIONS)}
        assert set(then.values()) == set(OURS)
        assert {n: then[n] for n in first if first[n] in OURS} == {
            n: place for n, place in first.items() if place in OURS
        }


def test_members_of_a_stack_with_another_key_refuse_the_first_ones(tmp_path):
    with two_stacks(tmp_path, their_key=THEIR_KEY) as router:
        for key, own in ((STACK_KEY, OURS), (THEIR_KEY, THEIRS)):
            with router.client(key) as client:
                given = answers(client)
            assert {one.status_code for one in given} == {200, 401}
            served = {one.json()["contract"] for one in given if one.status_code == 200}
            assert served == set(own)


def test_a_member_is_asked_by_its_own_stacks_scope_alone(tmp_path):
    with two_stacks(tmp_path) as router, router.client() as client:
        members = [one.model_copy(update={"scope": None}) for one in router.inputs.members]
        router.reload(members=tuple(members))
        given = answers(client)
        served = {one.json()["contract"] for one in given if one.status_code == 200}
        assert served == set(OURS)
        assert {one.status_code for one in given} == {200, 401}


def test_a_stack_whose_authority_is_not_named_gets_no_request(tmp_path):
    with two_stacks(tmp_path, authorities=[AUTHORITY]) as router, router.client() as client:
        eventually(lambda: [router.status(contract) for contract in THEIRS] == ["DOWN", "DOWN"])
        assert {one.json()["contract"] for one in answers(client)} == set(OURS)


def test_another_stacks_key_is_refused_at_the_router_where_it_is_not_named(tmp_path):
    with two_stacks(tmp_path) as router, router.client("") as client:
        assert client.get("/v1/models", headers=bearer(THEIR_KEY)).status_code == 401
