"""What a client of an endpoint promises: `Endpoint` against the stand-in for vLLM, and its fake.

The stand-in has the key gate of the hosts before it, and answers in this process.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import httpcore2
import pytest

from components.vllm.client import Endpoint
from components.vllm.client_types import ANSWER_TIMEOUT, ModelInfo, Refused, Traffic, Unreachable
from components.vllm.server_access import Endpoint as EndpointOfServers
from emulator.standins.vllm.app import build_app
from emulator.standins.vllm.engine import Engine, Speed
from emulator.standins.vllm.metrics import Metrics
from emulator.standins.vllm.model import ModelShape
from emulator.standins.vllm.pace import RECIPE
from emulator.standins.vllm.served import Served
from emulator.standins.vllm.settings import Settings
from tests.helpers.fake_endpoint import FakeEndpoint
from tests.helpers.fakes import VirtualClock
from tests.helpers.gates import KEY, Folder
from tests.helpers.in_process import AppNetwork
from tests.helpers.network import Network

MODEL, ALIAS = "org/model", "alias"
LENGTH = 4096
INFO = ModelInfo((MODEL, ALIAS), LENGTH, MODEL)
URL = "http://endpoint.test"
SHAPE = ModelShape(
    architecture="MistralForCausalLM",
    layers=2,
    heads=4,
    max_positions=LENGTH,
    latent=None,
    kv_heads=2,
    head_dim=64,
    qk_nope=None,
    vision=False,
    expert_bytes=0.0,
    mistral=False,
)


@dataclasses.dataclass(frozen=True)
class Server:
    """An endpoint with one key, and time that passes when its client waits."""

    client: EndpointOfServers
    clock: VirtualClock
    stop: Callable[[], None]
    """Let nobody listen any more."""


class Stoppable(AppNetwork):
    """A way to an application that can be closed."""

    is_open = True

    def connect_tcp(self, *where: object, **how: object) -> httpcore2.NetworkStream:
        if self.is_open:
            return super().connect_tcp(*where, **how)
        try:
            raise ConnectionRefusedError  # noqa: TRY301  (as below a socket)
        except ConnectionRefusedError as error:
            # As the backend over sockets says it.
            raise httpcore2.ConnectError from error


def of_the_fake(_: Path) -> Server:
    clock = VirtualClock()
    fake = FakeEndpoint(clock, INFO, {KEY})
    return Server(fake, clock, lambda: setattr(fake, "up_at", 1e9))


def of_the_client_and_the_stand_in(folder: Path) -> Server:
    network = Stoppable(Folder.make(folder).gate(build_app(served())))
    clock = VirtualClock()
    client = Endpoint(URL, clock=clock, network=network)
    return Server(client, clock, lambda: setattr(network, "is_open", False))


def served() -> Served:
    metrics = Metrics()
    engine = Engine(
        Speed(1e6, VirtualClock().monotonic),
        metrics,
        max_num_seqs=4,
        max_num_batched_tokens=LENGTH,
        speeds=RECIPE,
        kv_tokens=4 * LENGTH,
        hangs=False,
        set_busy=lambda _busy: None,
    )
    return Served(
        settings=Settings(model=MODEL, served_names=(MODEL, ALIAS)),
        shape=SHAPE,
        names=(MODEL, ALIAS),
        root=MODEL,
        max_model_len=LENGTH,
        kv_tokens=4 * LENGTH,
        engine=engine,
        metrics=metrics,
    )


@pytest.fixture(
    params=[of_the_fake, of_the_client_and_the_stand_in],
    ids=lambda made: made.__name__.removeprefix("of_the_"),
)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Server:
    made: Server = request.param(tmp_path)
    return made


def test_it_says_what_it_serves(server: Server) -> None:
    assert server.client.models(KEY) == INFO


def test_it_completes_under_each_of_its_names(server: Server) -> None:
    for name in INFO.ids:
        assert isinstance(server.client.complete(KEY, name), str)


def test_a_model_that_it_does_not_serve_is_refused(server: Server) -> None:
    found = server.client.complete(KEY, "other/model")
    assert isinstance(found, Refused)
    assert found.status == 404
    assert "other/model" in found.text


def test_nobody_counts_while_nothing_is_asked(server: Server) -> None:
    found = server.client.traffic(KEY)
    assert isinstance(found, Traffic)
    assert (found.under_way, found.ended) == (0, 0)


def test_who_does_not_know_the_key_is_refused_everywhere(server: Server) -> None:
    client, key = server.client, "another-key"
    for found in (client.models(key), client.complete(key, MODEL), client.traffic(key)):
        assert isinstance(found, Refused)
        assert (found.status, found.text) == (401, '{"error":"Unauthorized"}')


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        ("/v1/models", KEY, 200),
        ("/v1/models", None, 401),
        ("/v1/models", "another-key", 401),
        ("/health", None, 200),
        ("/invocations", KEY, 404),
        ("/invocations", None, 401),
        ("/nothing-is-here", KEY, 404),
    ],
)
def test_the_gate_answers_for_what_is_behind_it(
    server: Server, path: str, key: str | None, status: int
) -> None:
    assert server.client.status_of(path, key) == status


def test_one_that_stopped_refuses_the_connection_at_once(server: Server) -> None:
    server.stop()
    client, refused = server.client, Unreachable("refused")
    assert client.models(KEY) == refused
    assert client.complete(KEY, MODEL) == refused
    assert client.traffic(KEY) == refused
    assert client.status_of("/v1/models", KEY) == refused
    assert server.clock.passed == 0


def silent_fake(clock: VirtualClock) -> EndpointOfServers:
    fake = FakeEndpoint(clock, INFO, {KEY})
    fake.found = Unreachable("timed_out")
    fake.completion = lambda: Unreachable("timed_out")
    return fake


def silent_client(clock: VirtualClock) -> EndpointOfServers:
    network = Network(clock, [[(3600.0, b"late")] for _ in range(2)])
    return Endpoint(URL, clock=clock, network=network)


@pytest.mark.parametrize("made", [silent_fake, silent_client])
def test_an_answer_that_does_not_come_takes_its_time(
    made: Callable[[VirtualClock], EndpointOfServers],
) -> None:
    clock = VirtualClock()
    client = made(clock)
    assert client.models(KEY) == Unreachable("timed_out")
    assert clock.passed == pytest.approx(ANSWER_TIMEOUT)
    assert client.complete(KEY, MODEL) == Unreachable("timed_out")
    assert clock.passed == pytest.approx(2 * ANSWER_TIMEOUT)
