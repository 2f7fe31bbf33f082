"""The emulated Hub as the user's side asks it, by the very library that asks the real one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from components.core.clock import SystemClock
from components.vllm.hub_client import HubClient
from components.vllm.hub_references import (
    HubRefuses,
    HubUnavailable,
    Reference,
    Snapshot,
    matching,
)
from emulator.standins.hub import commit_of, look_up
from tests.helpers.plain_http import NO_TLS
from tests.helpers.stack_world import Emulator

QWEN = "Qwen/Qwen2.5-0.5B-Instruct"
GATED = "meta-llama/Llama-3.2-1B-Instruct"


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    folder: Path = tmp_path_factory.mktemp("market")
    with Emulator(folder, speed=60) as one:
        yield one


def snapshot(emulator: Emulator, name: str, revision: str = "main", token: str = "") -> Snapshot:
    client = HubClient(emulator.url, SystemClock())
    return client.snapshot(Reference(name, revision), token)


def arm(emulator: Emulator, fault: str, **params: str) -> None:
    wanted = {"name": fault, "next": 1, "params": params}
    httpx.post(
        f"{emulator.url}/emulator/faults", json=wanted, trust_env=False, verify=NO_TLS
    ).raise_for_status()


def test_it_says_what_its_hosts_fetch(emulator: Emulator) -> None:
    found = snapshot(emulator, QWEN)
    assert found.commit == commit_of(QWEN)
    there = {file.name: (file.size, file.etag) for file in look_up(QWEN, "main").files}
    told = {file.name: (file.bytes, file.digest.partition(":")[2]) for file in found.files}
    assert told == there
    (weights,) = matching(found.files, ["*.safetensors"])
    assert weights.digest.startswith("sha256:")


def test_a_commit_is_a_revision_too(emulator: Emulator) -> None:
    for number in (0, 1):
        at = commit_of(QWEN, number)
        assert snapshot(emulator, QWEN, at).commit == at


def test_main_moves_on_when_it_is_told_to(emulator: Emulator) -> None:
    arm(emulator, "hub_moved")
    assert snapshot(emulator, QWEN).commit == commit_of(QWEN, 1)
    assert snapshot(emulator, QWEN).commit == commit_of(QWEN)


@pytest.mark.parametrize(
    ("name", "revision", "token", "said"),
    [
        ("nobody/nothing", "main", "", "has no nobody/nothing that anybody may see"),
        ("nobody/nothing", "main", "hf_x", "has no nobody/nothing"),
        (QWEN, "next", "", "no branch, tag or commit 'next'"),
        (QWEN, "feature/x", "", "no branch, tag or commit 'feature/x'"),
        (QWEN, "f" * 40, "", "no branch, tag or commit"),
        (GATED, "main", "", "accept its terms"),
    ],
)
def test_what_it_refuses(
    emulator: Emulator, name: str, revision: str, token: str, said: str
) -> None:
    with pytest.raises(HubRefuses, match=said):
        snapshot(emulator, name, revision, token)


def test_a_token_opens_what_is_gated(emulator: Emulator) -> None:
    assert snapshot(emulator, GATED, token="hf_x").commit == commit_of(GATED)


@pytest.mark.parametrize(
    ("how", "said"),
    [("503", "answers 503"), ("garbled", "what is no answer"), ("flood", "sends more than 17 MB")],
)
def test_it_fails_on_demand(emulator: Emulator, how: str, said: str) -> None:
    arm(emulator, "hub_down", how=how)
    with pytest.raises(HubUnavailable, match=said):
        snapshot(emulator, QWEN)
    assert snapshot(emulator, QWEN).commit == commit_of(QWEN)
