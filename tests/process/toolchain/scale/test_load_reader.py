"""The router's counters as HAProxy gives them, over TLS and with the stack's key."""

from __future__ import annotations

import pytest

from components.core.keys import machine_key
from tests.helpers.fakes import VirtualClock
from tests.helpers.polling import eventually
from tests.helpers.router_world import AUTHORITY, SCOPE, STACK_KEY, fleet
from toolchain.scale.load_reader import AskOverHttps, Served, read
from toolchain.scale.metrics import LoadUnknown

VLLM = 'vllm:num_requests_waiting{engine="0"} 1.0\n'


def test_requests_at_a_real_router_are_counted_and_a_dead_member_is_not_asked(tmp_path):
    clock = VirtualClock()
    over_https = AskOverHttps(clock)
    with fleet(tmp_path, [41, 42]) as world, world.router.client() as client:
        machines = {one: f"https://127.0.0.1:{at.port}" for one, at in world.servers.items()}
        served = Served(world.router.url, STACK_KEY, AUTHORITY.certificate, "", SCOPE, machines)
        asked = []

        def ask(url: str, key: str, served: Served) -> str:
            asked.append(url)
            return over_https(url, key, served) if url.startswith(served.url) else VLLM

        with world.router.stream(client, "a question"):
            load = read(served, ask, clock)
            assert (load.waiting, load.running, load.serving) == (1.0, 0.0, 2)
            assert len(asked) == 3
        for server in world.servers.values():
            server.let_go_on()
        eventually(lambda: read(served, ask, clock).waiting == 0)
        world.servers[42].die()
        eventually(lambda: world.router.status(42) == "DOWN")
        asked.clear()
        assert read(served, ask, clock).serving == 1
        assert asked[1:] == [f"{machines[41]}/metrics"]
        # A machine's gate takes its own key, and its certificate is of the same authority.
        assert "contract" in over_https(
            f"{machines[41]}/metrics", machine_key(STACK_KEY, SCOPE, 41), served
        )
        for key, url in (("wrong", served.url), (STACK_KEY, machines[41])):
            with pytest.raises(LoadUnknown, match=f"{url}/metrics answers 401"):
                over_https(f"{url}/metrics", key, served)
