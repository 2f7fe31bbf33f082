"""What becomes of a machine behind Pulumi's back, told and mended by the real CLI."""

from __future__ import annotations

import subprocess
import sys
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
from tests.helpers.places import ROOT
from tests.helpers.stack_world import PROJECT, Emulator, Stack

IMAGE = "vllm/vllm-openai:v0.33.0"
SMALL = {"model": "qwen2.5-0.5b-1x4090", "datacenterOnly": False, "minReliability": "0.5"}


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with Emulator(tmp_path_factory.mktemp("market"), speed=300) as one:
        yield one


@pytest.fixture(scope="module")
def stack(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    one = Stack(tmp_path_factory.mktemp("stack"), emulator)
    one.configure(**SMALL)
    for done in (one.preview(), one.up()):
        assert done.status == 0, done.outcome()
    yield one
    done = one.destroy()
    assert done.status == 0, done.outcome()
    assert emulator.status()["contracts"] == []


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
    assert stack.preview("--expect-no-changes").status == 0


def test_orphans_are_shown_and_only_those_of_known_stacks_are_ended(stack, emulator, account):
    ours = rent_a_stray(account, f"{PROJECT}/{stack.name}/nobody/abc")
    theirs = rent_a_stray(account, f"{PROJECT}/colleague/endpoint-instance/abc")
    kept = {recorded(stack)["instance_id"], theirs}

    shown = orphans(stack)
    assert shown.returncode == 1, shown.stderr
    assert f"{PROJECT}/{stack.name}/nobody/abc" in shown.stdout
    assert "not known here" in shown.stdout
    assert "2 contracts in no state" in shown.stdout
    assert len(emulator.status()["contracts"]) == 3

    ended = orphans(stack, "--delete")
    assert ended.returncode == 1, ended.stderr
    assert f"instance {ours} is gone and costs nothing any more" in ended.stdout
    assert {one["id"] for one in emulator.status()["contracts"]} == kept

    ended = orphans(stack, "--delete", "--unknown-stacks")
    assert ended.returncode == 0, ended.stderr
    assert {one["id"] for one in emulator.status()["contracts"]} == kept - {theirs}
    assert "no orphans: 1 contracts in 1 stacks" in one_line(orphans(stack).stdout)


def orphans(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "toolchain.orphans", *arguments],
        cwd=ROOT,
        env=stack.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


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
    emulator.command("fault", "price_raised", "--param", f"id={known['instance_id']}")
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


def test_a_lost_host_is_told_and_the_next_up_takes_another_machine(stack, emulator):
    known = recorded(stack)
    emulator.command("fault", "host_offline", "--param", f"id={known['instance_id']}")
    until(lambda: emulator.status()["contracts"][0]["actual_status"] == "offline", "offline")
    done = stack.up()
    assert done.status == 0, done.outcome()
    assert "has lost its host (offline)" in done.output
    assert "ends it and rents another machine" in one_line(done.output)
    now = recorded(stack)
    assert now["instance_id"] != known["instance_id"]
    assert [one["id"] for one in emulator.status()["contracts"]] == [now["instance_id"]]


def test_what_is_gone_is_forgotten_in_words(stack, emulator, website):
    id_ = recorded(stack)["instance_id"]
    website.click("DELETE", f"/instances/{id_}/", {})
    until(lambda: emulator.status()["contracts"] == [], "gone")
    told = stack.preview()
    assert told.status == 0, told.outcome()
    assert f"instance {id_} is gone" in told.output
    assert "the next `pulumi up` rents another machine" in one_line(told.output)
    assert "offers, best: 1x RTX 4090" in told.output
