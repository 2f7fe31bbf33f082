"""A machine rented by hand, as the recipe says, becomes a stack's own, with the real commands."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.helpers.plain_http import NO_TLS
from tests.helpers.polling import eventually
from tests.helpers.stack_world import Done, Emulator, Stack, run

IMAGE = "mistralllm/vllm-ms4:latest"
RECIPE = (
    "gpu_name=H200 num_gpus=2 direct_port_count>=1 rentable=true disk_space>=500 cuda_vers>=12.2"
)
SERVE = (
    "vllm serve mistralai/Mistral-Small-4-119B-2603 --host 0.0.0.0 --port 8000 "
    "--tensor-parallel-size 2 --max-model-len 131072 --attention-backend FLASH_ATTN_MLA "
    "--tool-call-parser mistral --enable-auto-tool-choice --reasoning-parser mistral "
    "--api-key by-hand"
)


@pytest.fixture
def stack(emulator: Emulator, tmp_path: Path) -> Iterator[Stack]:
    one = Stack(tmp_path, emulator, is_forked=True)
    one.configure(offerQuery=RECIPE, diskGb=500, image=IMAGE)
    yield one
    if emulator.status()["contracts"]:
        one.destroy()


def vastai(stack: Stack, *arguments: str) -> Done:
    """The official client, as it is installed."""
    environment = {**stack.environment, "VASTAI_NO_UPDATE_CHECK": "1"}
    return run(["vastai", *arguments], environment, apart=True)


def rented_by_hand(stack: Stack, emulator: Emulator) -> int:
    """Follow the recipe until its server answers; give the instance's id."""
    number = eventually(lambda: rented(stack), within=60)
    eventually(lambda: emulator.contract()["actual_status"] == "running", within=60)
    known = json.loads(vastai(stack, "show", "instance", str(number), "--raw").output)
    port = known["ports"]["8000/tcp"][0]["HostPort"]
    health = f"http://{known['public_ipaddr'].strip()}:{port}/health"

    def answers() -> bool:
        try:
            return (
                httpx.get(health, trust_env=False, timeout=5, verify=NO_TLS).status_code
                == httpx.codes.OK
            )
        except httpx.TransportError:
            return False

    eventually(answers, within=60)
    return number


def rented(stack: Stack) -> int | None:
    """Rent an offer that the image runs on; somebody else may be faster."""
    found = vastai(stack, "search", "offers", RECIPE, "--raw")
    fit = [one for one in json.loads(found.output or "[]") if one["cuda_max_good"] >= 13]
    if not fit:
        return None
    offer = fit[0]["id"]
    order = [
        "--ssh",
        "--direct",
        "--image",
        IMAGE,
        "--env",
        "-p 8000:8000",
        "--disk",
        "500",
        "--onstart-cmd",
        SERVE,
    ]
    done = vastai(stack, "create", "instance", str(offer), *order, "--raw")
    return json.loads(done.output)["new_contract"] if "new_contract" in done.output else None


def test_what_was_rented_by_hand_is_adopted_answers_and_is_destroyed(emulator, stack):
    by_hand = rented_by_hand(stack, emulator)
    before = emulator.last_request()

    stack.configure(offerQuery=RECIPE, diskGb=600, image="vllm/vllm-openai:v0.33.0", adopt=by_hand)
    refused = stack.preview()
    assert refused.status != 0
    assert f"instance {by_hand}" in refused.output
    assert "its image is mistralllm/vllm-ms4:latest" in refused.output, refused.outcome()
    assert "its disk has 500 GB and the stack needs 600" in refused.output
    assert emulator.writes(before) == []

    stack.configure(offerQuery=RECIPE, diskGb=500, image=IMAGE, adopt=by_hand)
    up = stack.up()
    assert up.status == 0, up.outcome()
    assert "fits and becomes this stack's" in up.output, up.outcome()
    writes = emulator.writes(before)
    assert not [call for call in writes if "/asks/" in call or "reboot" in call], writes
    assert not [call for call in writes if call.startswith("DELETE")]
    known = stack.outputs()
    assert known["instance_id"] == by_hand
    assert known["smoke_report"]["ok"]
    assert re.search(r"its \S+ of weights are the stack's", up.output), up.outcome()

    stack.configure(offerQuery=RECIPE, diskGb=500, image=IMAGE)
    again = stack.up()
    assert again.status == 0, again.outcome()
    assert [one["id"] for one in emulator.status()["contracts"]] == [by_hand]

    down = stack.destroy()
    assert down.status == 0, down.outcome()
    assert emulator.status()["contracts"] == []
