"""A key of the counters opens those of the router, and no other route of it or its machines."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

import pytest

from components.core.keys import digest, machine_key, metrics_key
from components.on_host.key_gate import GUARDED, OPEN
from components.router.config import METRICS_KEYS, VERSION_PATH
from components.router.inputs import KeyDigest
from components.router.state import RouterState
from tests.helpers import gates
from tests.helpers.router_scene import Scene
from tests.helpers.router_world import SCOPE, STACK_KEY, Fleet, fleet

METRICS_KEY = metrics_key(STACK_KEY, SCOPE)
ENDED = "an-ended-key-of-the-counters"
DIGESTS = (
    KeyDigest(digest=digest(METRICS_KEY)),
    KeyDigest(digest=digest(ENDED), ends=int(time.time()) - 1),
)
PATHS = (*OPEN, *GUARDED, VERSION_PATH, "/", "/metrics/", "/Metrics", "/%6detrics", "/nothing")
METHODS = ("GET", "HEAD", "POST", "PUT", "OPTIONS")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("machines")
    with fleet(folder, [7, 8], metrics_digests=DIGESTS) as one:
        yield one


def test_it_opens_the_counters_and_is_an_unknown_key_elsewhere(world):
    with world.router.client(METRICS_KEY) as client, world.router.client("unknown") as unknown:
        for path in PATHS:
            for method in METHODS:
                answer, other = client.request(method, path), unknown.request(method, path)
                if (path, method) == ("/metrics", "GET"):
                    assert (answer.status_code, other.status_code) == (200, 401)
                    assert "haproxy_backend_current_sessions" in answer.text
                else:
                    found = (path, method, answer.status_code, answer.content)
                    assert found == (path, method, other.status_code, other.content)
                    is_open = OPEN.get(path) == method
                    assert answer.status_code == (200 if is_open else 401)
    assert world.servers[7].requests == world.servers[8].requests == []


BEARER = "Authorization"
HEADERS = {
    "bearer": ({BEARER: f"Bearer {METRICS_KEY}"}, 200),
    "x-api-key": ({"X-Api-Key": METRICS_KEY}, 200),
    "a wrong one and the right x-api-key": (
        {BEARER: "Bearer wrong", "X-Api-Key": METRICS_KEY},
        200,
    ),
    "the right one and a wrong x-api-key": (
        {BEARER: f"Bearer {METRICS_KEY}", "X-Api-Key": "wrong"},
        200,
    ),
    "beside a client's": ({BEARER: f"Bearer {STACK_KEY}", "X-Api-Key": METRICS_KEY}, 200),
    "basic": ({BEARER: f"Basic {METRICS_KEY}"}, 401),
    "its digest": ({BEARER: f"Bearer {digest(METRICS_KEY)}"}, 401),
    "an ended one": ({BEARER: f"Bearer {ENDED}"}, 401),
    "a machine's": ({BEARER: f"Bearer {machine_key(METRICS_KEY, SCOPE, 7)}"}, 401),
    "none": ({}, 401),
}


@pytest.mark.parametrize(("headers", "status"), HEADERS.values(), ids=HEADERS)
def test_it_is_right_or_refused(world, headers, status):
    with world.router.client("") as client:
        assert client.get("/metrics?x=/v1/models", headers=headers).status_code == status


def test_clients_keep_their_routes_and_their_counters(world):
    with world.router.client() as client:
        assert client.get("/v1/models").status_code == 200
        assert client.get("/metrics").status_code == 200


def test_nothing_that_the_router_writes_or_shows_has_it(world):
    with world.router.client(METRICS_KEY) as client:
        counters = client.get("/metrics").text
    assert METRICS_KEY not in counters
    assert digest(METRICS_KEY) not in counters
    files = [one for one in world.router.folder.iterdir() if one.is_file()]
    assert METRICS_KEYS in {one.name for one in files}
    assert not any(METRICS_KEY in one.read_text() for one in files)
    assert METRICS_KEY not in world.router.log()


def test_a_router_without_such_keys_knows_none(tmp_path):
    with fleet(tmp_path, [7]) as world:
        assert not (world.router.folder / METRICS_KEYS).exists()
        with world.router.client(METRICS_KEY) as client:
            assert client.get("/metrics").status_code == 401


def statuses(here: Scene, state: RouterState, *keys: str, path: str = "/metrics") -> list[int]:
    with here.client(state, "") as client:
        return [client.get(path, headers=gates.bearer(key)).status_code for key in keys]


def test_switching_it_on_and_off_reloads_the_router(here: Scene):
    plain = here.wanted(*here.servers(41))
    wanted = dataclasses.replace(plain, metrics_key_digest=digest(METRICS_KEY))
    next_key = metrics_key("another", SCOPE)
    both = (METRICS_KEY, next_key)
    state = here.up(plain)
    assert statuses(here, state, *both) == [401, 401]
    state = here.up(wanted, state)
    assert statuses(here, state, *both) == [200, 401]
    assert statuses(here, state, METRICS_KEY, path="/v1/models") == [401]
    state = here.up(dataclasses.replace(wanted, metrics_key_digest=digest(next_key)), state)
    assert statuses(here, state, *both) == [200, 200]
    state = here.up(plain, state)
    assert statuses(here, state, *both) == [401, 401]
    assert not [name for name in state.to_bag() if "metrics" in name]
