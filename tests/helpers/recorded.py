"""What is recorded of a machine's life on an emulator in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from components.core.record import FOLDER, Record, entries
from components.vast.api.client import VastApi
from components.vast.api.payloads import RentRequest
from components.vast.api.recording import RecordingTransport
from tests.helpers.emulator_world import H200, IMAGE, KEY, URL, InProcess, World, make_world

LABEL = "acme-corp/dev/endpoint-instance/0123456789"


def record_life(folder: Path, world: World | None = None) -> list[dict[str, Any]]:
    """Search, rent, look on until it runs, change, be charged, end; return what was recorded."""
    world = world or make_world()
    record = Record(folder / FOLDER, world.time, print)
    transport = RecordingTransport(InProcess(world, KEY), record, KEY)
    api = VastApi(transport, URL, world.time, folder, print, key=KEY)
    offers = api.search({**H200, "type": "on-demand", "allocated_storage": 200.0})
    order = RentRequest(IMAGE, 200.0, LABEL, "#!/bin/sh\necho secret-in-the-script\n", (8000,))
    number = api.rent(offers[0].id, order)
    for seconds in (0, 30, 600, 60):
        world.pass_time(seconds)
        api.instances()
        api.instance(number)
    api.set_label(number, f"{LABEL}0")
    api.log_link(number, "vast-vllm")
    api.price_asked(number)
    api.credit()
    api.scheduled_ends()
    api.destroy(number)
    world.pass_time(120)
    assert api.instance(number) is None
    api.charges(world.time.epoch() - 86400, world.time.epoch() + 1)
    return list(entries(folder / FOLDER))
