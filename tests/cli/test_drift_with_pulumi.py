"""What becomes of a machine behind Pulumi's back, told and mended by the real CLI.

The first one has weights that crawl (F09); each test goes on with what the one above it leaves.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from components.resources.context import Context
from components.vast.api.client import VastApi
from components.vast.api.payloads import RentRequest
from components.vast.market.query import parse_query
from tests.helpers.stack_fixtures import own_emulator, own_stack
from tests.helpers.stack_world import PROJECT, Emulator, Stack

IMAGE = "vllm/vllm-openai:v0.33.0"
SMALL = {
    "model": "qwen2.5-0.5b-1x4090",
    "datacenterOnly": False,
    "minReliability": "0.5",
    "readyMinutes": 3,
}
CRAWLS = "0.0005"
"""Mbit/s: so little that the host check sees not a byte in its time, and gives no verdict."""


emulator = own_emulator()
stack = own_stack("drift", SMALL)


@pytest.fixture(scope="module")
def account(stack: Stack) -> VastApi:
    """The same account, as another program of the same person uses it."""
    return Context(environment=stack.environment).market()


class Website:
    """What can be clicked on Vast's own site; a person clicks again if it is too soon."""

    def __init__(self, emulator: Emulator) -> None:
        # In the query: a session's calls are not counted with those of the key in the header.
        key = {"api_key": emulator.key}
        self._http = httpx.Client(base_url=f"{emulator.url}/api/v0", params=key, trust_env=False)

    def click(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answers: list[httpx.Response] = []

        def is_admitted() -> bool:
            answers.append(self._http.request(method, path, json=body))
            return answers[-1].status_code != httpx.codes.TOO_MANY_REQUESTS

        until(is_admitted, f"{method} {path}")
        return dict(answers[-1].raise_for_status().json())

    def close(self) -> None:
        self._http.close()


@pytest.fixture(scope="module")
def website(emulator: Emulator) -> Iterator[Website]:
    one = Website(emulator)
    yield one
    one.close()


def rent_a_stray(account: VastApi, label: str) -> int:
    """Rent what no state will know of."""
    offers = account.search({**parse_query("num_gpus=1"), "order": [["dph_total", "asc"]]})
    order = RentRequest(image=IMAGE, disk_gb=20.0, label=label, onstart="true", ports=(8000,))
    return account.rent(offers[0].id, order)


def recorded(stack: Stack) -> dict[str, Any]:
    """The instance's outputs in the state."""
    for resource in stack.state()["resources"]:
        if resource["type"].endswith("vast:Instance"):
            return dict(resource["outputs"])
    return {}


def until(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    pause = threading.Event()
    while not done():
        assert time.monotonic() < deadline, what
        pause.wait(0.1)


def one_line(text: str) -> str:
    return " ".join(text.split())


def test_a_host_too_slow_for_its_deadline_is_marked_and_replaced(stack, emulator):
    emulator.arm("download_slow", mbps=CRAWLS)

    failed = stack.up()

    said = " ".join(failed.output.split())
    assert failed.status != 0, failed.outcome()
    assert "the download is too slow" in said
    assert "is marked unfit and costs $" in said
    label = emulator.contract()["label"]
    assert label.startswith(f"{PROJECT}/{stack.name}/endpoint-instance/unfit-download_slow-")

    unfit, before = emulator.contract(), emulator.last_request()
    done = stack.up()
    assert done.status == 0, done.outcome()
    said = " ".join(done.output.split())
    assert emulator.contract()["machine_id"] != unfit["machine_id"]
    assert stack.outputs()["machine_id"] == emulator.contract()["machine_id"]
    writes = [call.split()[0] for call in emulator.writes(after=before)]
    assert writes.index("DELETE") < writes.index("PUT"), "two machines were paid at once"
    assert "was marked unfit (download slow) when its server did not come up" in said
    assert "the next `pulumi up` ends it and rents another machine" in said


def test_the_host_check_is_in_the_state(stack):
    assert recorded(stack)["status"] == "running"
    facts = recorded(stack)["host_facts"]
    assert facts["gpu_names"] == ["NVIDIA GeForce RTX 4090"]
    assert facts["driver"] >= "580"
    assert facts["disk_free_gb"] > 40
    assert facts["shm_gib"] > 0
    assert facts["memory_gib"] > 0
    assert facts["download_mbps"] > 100


def test_a_foreign_label_and_a_second_contract_are_told_and_mended(
    stack, emulator, account, website
):
    known = recorded(stack)
    website.click("PUT", f"/instances/{known['instance_id']}/", {"label": "mine"})
    stray = rent_a_stray(account, f"{known['label_prefix']}another")
    before = emulator.last_request()

    told = stack.preview()
    assert told.status == 0, told.outcome()
    text = one_line(told.output)
    assert f"carries the label 'mine' instead of '{known['label']}'" in text
    assert f"is not alone: instance {stray} carries a label of the same resource" in text
    assert emulator.writes(after=before) == []

    done = stack.up()
    assert done.status == 0, done.outcome()
    assert sorted(emulator.writes(after=before)) == [
        f"DELETE /api/v0/instances/{stray}/",
        f"PUT /api/v0/instances/{known['instance_id']}/",
    ]
    (contract,) = emulator.status()["contracts"]
    assert contract["label"] == known["label"]


def test_a_machine_that_came_back_under_other_ports_is_kept(stack, emulator, website):
    known = recorded(stack)
    place = f"/instances/{known['instance_id']}/"
    website.click("PUT", place, {"state": "stopped"})
    until(lambda: emulator.status()["contracts"][0]["actual_status"] == "exited", "stopped")
    website.click("PUT", place, {"state": "running"})
    until(lambda: emulator.status()["contracts"][0]["actual_status"] == "running", "running")
    before = emulator.last_request()
    done = stack.up()
    assert done.status == 0, done.outcome()
    now = recorded(stack)
    assert now["instance_id"] == known["instance_id"]
    assert now["host_port"] != known["host_port"]
    assert "moved from 127.0.0.1 (SSH" in one_line(done.output)
    assert stack.outputs()["endpoint_url"] == f"https://127.0.0.1:{now['host_port']}/v1"
    assert emulator.writes(after=before) == []


def test_a_price_that_rose_is_told_and_the_machine_is_kept(stack, emulator, website):
    known = recorded(stack)
    emulator.arm("price_raised", id=known["instance_id"])
    listed = "/instances/pending-price-increases/"
    until(lambda: website.click("GET", listed, {})["pending_price_increases"], "asked for")
    (pending,) = website.click("GET", listed, {})["pending_price_increases"]
    accepted = {"pending_price_increase_id": pending["pending_price_increase_id"]}
    website.click("PUT", "/instances/accept-price-increase/", accepted)
    done = stack.refresh()
    assert done.status == 0, done.outcome()
    before, now = known["hourly_cost"], recorded(stack)["hourly_cost"]
    assert now > before
    assert f"costs ${now:.2f}/h instead of ${before:.2f}/h" in one_line(done.output)
    assert "the next `pulumi up` keeps it" in one_line(done.output)


def test_what_is_gone_is_forgotten_in_words(stack, emulator, website):
    id_ = recorded(stack)["instance_id"]
    website.click("DELETE", f"/instances/{id_}/", {})
    until(lambda: emulator.status()["contracts"] == [], "gone")
    told = stack.preview()
    assert told.status == 0, told.outcome()
    assert f"instance {id_} is gone" in told.output
    assert "the next `pulumi up` rents another machine" in one_line(told.output)
    assert "offers, best: 1x RTX 4090" in told.output
