"""An emulator in this process: hosts that only note what they are told, time that a test moves."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import requests
from starlette.applications import Starlette

from components.vast.api.client import VastApi
from components.vast.api.sdk import VastClient
from emulator.account import open_account
from emulator.app import create_app
from emulator.clock import EmulatedClock
from emulator.contract_types import Contract
from emulator.idle_host import IdleHost
from emulator.keys import PREFIX
from emulator.market import Machine
from emulator.marketplace import Marketplace
from emulator.network import Network
from emulator.store import Store
from emulator.throttle import Throttle
from tests.helpers.fakes import VirtualClock

KEY = f"{PREFIX}{'a' * 56}"
BIRTH = 1_800_000_000.0
H200 = {"gpu_name": {"eq": "H200"}, "num_gpus": {"eq": "2"}, "rentable": {"eq": True}}
URL = "http://127.0.0.1:8765"
IMAGE = "vllm/vllm-openai:latest"


class NotedHost(IdleHost):
    """A host door that starts nothing and remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__(Network(random.Random(1)))  # noqa: S311  (port numbers, not secrets)
        self.did: list[tuple[str, int]] = []
        self.logs: dict[int, str] = {}
        self.bytes_down: dict[int, int] = {}
        self.traffic: dict[int, tuple[int, int]] = {}
        self.alive = True
        self.secrets: dict[str, str] = {}
        self.broken: OSError | None = None
        self.full: OSError | None = None

    def prepare(self, contract: Contract, machine: Machine) -> None:
        assert machine.id == contract.machine_id
        if self.full is not None:
            raise self.full
        self.did.append(("prepare", contract.id))

    def authorize(self, contract: Contract) -> None:
        self.did.append(("authorize", contract.id))

    async def start(
        self,
        contract: Contract,
        machine: Machine,
        *,
        api_key: str,
        secrets: Mapping[str, str],
        taken: set[int],
    ) -> Contract:
        assert api_key.startswith(PREFIX)
        assert machine.id == contract.machine_id
        if self.broken is not None:
            raise self.broken
        self.secrets = dict(secrets)
        self.did.append(("start", contract.id))
        return await super().start(contract, machine, api_key=api_key, secrets=secrets, taken=taken)

    async def adopt(self, contract: Contract, *, api_key: str, secrets: Mapping[str, str]) -> None:
        assert api_key.startswith(PREFIX)
        self.secrets = dict(secrets)
        self.did.append(("adopt", contract.id))

    async def kill(self, contract_id: int) -> None:
        self.did.append(("kill", contract_id))

    def empty(self, contract: Contract, machine: Machine) -> None:
        assert machine.id == contract.machine_id
        self.did.append(("empty", contract.id))

    def remove(self, contract_id: int) -> None:
        self.did.append(("remove", contract_id))

    def mount(self, contract: Contract, volume_id: int, path: str) -> None:
        assert path.startswith("/")
        assert contract.volume_id == volume_id
        self.did.append(("mount", volume_id))

    def remove_volume(self, volume_id: int) -> None:
        self.did.append(("remove_volume", volume_id))

    def main_alive(self, contract_id: int) -> bool:
        assert contract_id
        return self.alive

    def downloaded(self, contract_id: int) -> int:
        return self.bytes_down.get(contract_id, 0)

    def take_traffic(self, contract_id: int) -> tuple[int, int]:
        return self.traffic.pop(contract_id, (0, 0))

    def log(self, contract_id: int) -> str:
        return self.logs.get(contract_id, "")

    async def execute(self, contract_id: int, words: list[str]) -> str:
        return f"{contract_id}: {' '.join(words)}\n"

    async def shut_down(self) -> None:
        self.did.append(("shut_down", 0))


@dataclass
class World:
    """One emulated marketplace and what drives it."""

    market: Marketplace
    host: NotedHost
    time: VirtualClock
    app: Starlette
    _client: httpx.AsyncClient

    def api(self, folder: Path, *, key: str = KEY) -> VastApi:
        """Give the project's client of this marketplace, and no socket between the two."""
        client = InProcess(self, key)
        return VastApi(client, URL, self.time, folder, print, key=key)

    def call(
        self, method: str, path: str, body: Any = None, *, key: str | None = KEY, **more: Any
    ) -> httpx.Response:
        """Send one request and return the answer, whatever its status."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return asyncio.run(self._client.request(method, path, json=body, headers=headers, **more))

    def send(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Send one request with nothing but what `more` says."""
        return asyncio.run(self._client.request(method, path, **more))

    def ask(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """Send one request that must succeed and return its JSON."""
        answer = self.call(method, path, body, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def pass_time(self, seconds: float) -> None:
        """Let emulated seconds pass (speed is 1) and carry everything forward."""
        self.time.sleep(seconds)
        asyncio.run(self.market.tick())

    def offers(self, **filters: Any) -> list[dict[str, Any]]:
        """Search 2x H200, with further filters."""
        found: list[dict[str, Any]] = self.ask("POST", "/api/v0/bundles/", {**H200, **filters})[
            "offers"
        ]
        return found

    def rent(self, **body: Any) -> int:
        """Rent the first 2x H200, with direct ports, and return the contract's id."""
        offer = self.offers()[0]["id"]
        asked = {
            "image": IMAGE,
            "disk": 100,
            "env": {"-p 8000:8000": "1"},
            "runtype": "ssh_direc ssh_proxy",
            **body,
        }
        answer = self.ask("PUT", f"/api/v0/asks/{offer}/", asked)
        number: int = answer["new_contract"]
        return number

    def rent_running(self, **body: Any) -> int:
        """Rent and let the time pass until the container runs."""
        number = self.rent(**body)
        self.pass_time(600)
        assert self.instance(number)["actual_status"] == "running"
        return number

    def instance(self, number: int) -> dict[str, Any]:
        """Read one instance that exists."""
        found: dict[str, Any] = self.ask("GET", f"/api/v0/instances/{number}/?owner=me")[
            "instances"
        ]
        return found

    def ledger(self) -> dict[str, Any]:
        """Read the admin ledger."""
        found: dict[str, Any] = self.ask("GET", "/emulator/ledger")
        return found


class InProcess(VastClient):  # type: ignore[misc]  # vastai ships no types
    """The official client: its addresses and headers, and the application instead of a socket."""

    def __init__(self, world: World, key: str) -> None:
        super().__init__(api_key=key, server_url=URL, retry=1)
        self._world = world

    def _request(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        json_data: Any = None,
        timeout: object = None,
    ) -> requests.Response:
        del timeout
        content = None if json_data is None else json.dumps(json_data)
        given = self._world.send(method, url, headers=headers, content=content)
        response = requests.Response()
        response.status_code = given.status_code
        response.headers.update(given.headers)
        response._content = given.content
        return response


def make_world(
    *,
    store: Store | None = None,
    throttle: bool = False,
    credit: float = 100.0,
    flickers: bool = False,
) -> World:
    """Return a fresh marketplace, or one on what `store` holds."""
    time = VirtualClock(BIRTH)
    kept = store or Store(":memory:")
    if kept.fact("seed") is None:
        open_account(kept, seed=0, credit=credit)
    clock = EmulatedClock(start=kept.fact("clock", BIRTH), speed=1.0, monotonic=time.monotonic)
    host = NotedHost()
    market = Marketplace(
        store=kept,
        clock=clock,
        host=host,
        chance=random.Random(1),  # noqa: S311  (port numbers, not secrets)
        account_key=KEY,
        wall_clock=time.epoch,
        flickers=flickers,
    )
    app = create_app(market, Throttle(time.monotonic, enabled=throttle), ticking=False)
    transport = httpx.ASGITransport(app)
    client = httpx.AsyncClient(transport=transport, base_url=URL)
    return World(market, host, time, app, client)


def until(condition: Callable[[], bool], *, within: float = 30.0) -> None:
    """Wait for a condition of a real process; fail if it does not come about in time."""
    pause = Event()
    for _ in range(int(within / 0.05)):
        if condition():
            return
        pause.wait(0.05)
    raise AssertionError(f"not within {within} s: {condition}")
