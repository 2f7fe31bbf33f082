"""Sixteen machines that boot at once are followed with one call a poll interval, not sixteen."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from components.core.clock import SystemClock
from components.core.progress import Progress
from components.machine.inspection import Inspection
from components.machine.tcp_probe import ProbeResult
from components.resources.context import Context
from components.vast.api.models import Instance
from components.vast.errors import BootFailed
from components.vast.rental.attempts import Attempt
from components.vast.rental.boot import POLL, Boot, Deadlines
from tests.helpers.stack_world import Emulator

WAITING = 16
WAITED = 5 * POLL
"""Seconds."""


class NeverReached:
    """A machine whose image never comes, so that nobody ever gets to it."""

    def reach(self, instance: Instance, port: str) -> ProbeResult:
        raise AssertionError((instance.id, port))

    def log_in(self, instance: Instance) -> str:
        raise AssertionError(instance.id)

    def named_keys(self, instance: Instance) -> frozenset[str]:
        raise AssertionError(instance.id)

    def inspect(self, instance: Instance, *, adopted: bool) -> Inspection:
        raise AssertionError((instance.id, adopted))


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[Emulator]:
    with Emulator(tmp_path, speed=60, options=("--no-throttle",)) as one:
        yield one


def rent(emulator: Emulator, count: int) -> list[int]:
    """Rent machines that will wait for their image for ever."""
    headers = {"Authorization": f"Bearer {emulator.key}"}
    with httpx.Client(base_url=emulator.url, headers=headers, trust_env=False) as http:
        http.post("/emulator/faults", json={"name": "stuck_loading", "next": count})
        query = {"num_gpus": {"eq": 1}, "rentable": {"eq": True}}
        offers = http.post("/api/v0/bundles/", json=query).json()["offers"]
        order: dict[str, Any] = {"image": "ubuntu:24.04", "disk": 10, "runtype": "ssh"}
        return [
            http.put(f"/api/v0/asks/{offer['id']}/", json=order).json()["new_contract"]
            for offer in offers[:count]
        ]


def test_sixteen_waits_share_one_list_a_poll(emulator: Emulator) -> None:
    contracts = rent(emulator, WAITING)
    environment = {
        "VAST_URL": emulator.url,
        "VAST_API_KEY": emulator.key,
        "HOME": str(emulator.folder),
    }
    said: list[str] = []
    clock = SystemClock()

    def wait_for(contract: int) -> str:
        boot = Boot(
            Context(environment=environment).market(),
            clock,
            Progress(f"instance {contract}", clock, said.append),
            Deadlines(image=WAITED),
            attempt=Attempt(1, 0, "", 0.0),
            max_dollars_per_hour=100.0,
            interruptible=False,
            until=clock.monotonic() + 600,
        )
        with pytest.raises(BootFailed) as failed:
            boot.bring_up(contract, NeverReached(), ("22/tcp",), adopted=False)
        return str(failed.value)

    before, began = emulator.last_request(), time.monotonic()
    with ThreadPoolExecutor(WAITING) as apart:
        verdicts = list(apart.map(wait_for, contracts))
    took = time.monotonic() - began
    calls = [f"{call['method']} {call['path']}" for call in emulator.requests(before)]
    assert all("Pulling from ubuntu" in verdict for verdict in verdicts), verdicts
    assert took >= WAITED
    assert set(calls) == {"GET /api/v1/instances/"}
    assert len(calls) <= took / POLL + 1
