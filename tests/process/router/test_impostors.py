"""Another machine where a proven member was: it is not believed, and gets no request."""

from __future__ import annotations

import pytest

from components.tls.authorities import Authority
from tests.helpers.polling import eventually
from tests.helpers.router_world import asked, conversation, fleet, identity

OTHER = Authority.made(1_700_000_000.0)

IMPOSTORS = {
    "a sibling's own leaf": lambda: identity(8),
    "another authority's": lambda: identity(7, OTHER),
}


@pytest.mark.parametrize("pem", IMPOSTORS.values(), ids=IMPOSTORS)
def test_who_takes_a_members_address_gets_no_request(tmp_path, pem):
    with fleet(tmp_path, [7, 8]) as world, world.router.client() as client:
        assert {asked(client, conversation(f"question {n}")) for n in range(12)} == {7, 8}
        true = world.servers[7]
        true.die()
        impostor = world.machines.add(7, pem(), port=true.port)
        # Before the next health check as well as after it.
        assert {asked(client, conversation(f"question {n}")) for n in range(12)} == {8}
        eventually(lambda: world.router.status(7) == "DOWN")
        assert {asked(client, conversation(f"question {n}")) for n in range(12)} == {8}
        assert impostor.requests == []
        assert impostor.connections == set()


def test_the_true_machine_is_believed_again(tmp_path):
    with fleet(tmp_path, [7, 8]) as world, world.router.client() as client:
        true = world.servers[7]
        true.die()
        impostor = world.machines.add(7, identity(8), port=true.port)
        eventually(lambda: world.router.status(7) == "DOWN")
        impostor.die()
        world.machines.add(7, port=true.port)
        eventually(lambda: world.router.status(7) == "UP")
        assert {asked(client, conversation(f"question {n}")) for n in range(12)} == {7, 8}
