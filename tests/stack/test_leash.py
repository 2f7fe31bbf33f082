"""Machines that can be taken away or end themselves: what `refresh` says and `up` does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.stack.world import Done, Emulator, Stack
from tests.vllm.polling import eventually

SMALL = {"model": "qwen2.5-0.5b-1x4090", "minReliability": "0.9"}


@pytest.fixture
def stack(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    one = Stack(tmp_path_factory.mktemp("stack"), emulator, name="leash")
    yield one
    done = one.destroy()
    assert done.status == 0, done.outcome()
    assert emulator.status()["dollars_per_hour"] == 0


def contract(emulator: Emulator) -> dict[str, Any]:
    """The one that there is."""
    (only,) = emulator.status()["contracts"]
    return dict(only)


def up(stack: Stack, **settings: Any) -> Done:
    stack.configure(**SMALL, **settings)
    done = stack.up()
    assert done.status == 0, done.outcome()
    return done


def answers(stack: Stack) -> bool:
    known = stack.outputs()
    headers = {"Authorization": f"Bearer {known['api_key']}"}
    url = str(known["endpoint_url"])
    with httpx.Client(verify=False, trust_env=False, headers=headers) as client:  # noqa: S501
        return client.get(f"{url}/models").status_code == httpx.codes.OK


def take_away(emulator: Emulator, stack: Stack, *params: str) -> str:
    """Outbid the machine and give what a refresh says of it."""
    emulator.command("fault", "outbid", *params)
    eventually(lambda: contract(emulator)["actual_status"] == "stopped")
    done = stack.refresh()
    assert done.status == 0, done.outcome()
    return done.output


@pytest.mark.timeout(900)
def test_an_interruptible_machine_is_won_back_waited_for_replaced_and_then_let_be(
    emulator: Emulator, stack: Stack
) -> None:
    bids = {"contract": "interruptible"}
    stack.configure(**SMALL, **bids)
    preview = stack.preview()
    assert "interruptible: the bid on the best of them is $" in preview.output, preview.outcome()
    assert "takes the machine away" in preview.output
    up(stack, **bids, whenOutbid="rebid")
    first = contract(emulator)["id"]

    said = take_away(emulator, stack)
    assert f"instance {first} was outbid (stopped)" in said
    assert "raises the bid to $" in said
    before = emulator.last_request()
    up(stack, **bids, whenOutbid="rebid")
    assert contract(emulator)["id"] == first
    assert f"PUT /api/v0/instances/bid_price/{first}/" in emulator.writes(before)
    assert answers(stack)

    said = take_away(emulator, stack, "--param", "seconds=20000")
    assert "raises the bid to $" in said
    before = emulator.last_request()
    done = up(stack, **bids, whenOutbid="wait")
    assert "waits for its GPUs; its disk is billed on at $" in done.output
    assert contract(emulator)["id"] == first
    assert emulator.writes(before) == []
    assert answers(stack)

    take_away(emulator, stack)
    up(stack, **bids, whenOutbid="rerent")
    second = contract(emulator)["id"]
    assert second != first
    assert answers(stack)

    said = take_away(emulator, stack)
    stack.configure(**SMALL, **bids, whenOutbid="rerent", rerentTries=1)
    before = emulator.last_request()
    done = stack.up()
    assert done.status != 0
    assert "2 machines were lost within a day and rerentTries is 1" in done.output
    assert contract(emulator)["id"] == second
    assert emulator.writes(before) == []


def test_a_machine_whose_time_is_up_ends_itself_and_the_next_refresh_says_why(
    emulator: Emulator, stack: Stack
) -> None:
    done = up(stack, timeToLiveHours="2", idleMinutes=30)
    assert (
        "the machine ends itself 2 h after its first start or after 30 min without" in done.output
    )
    first = contract(emulator)["id"]
    started_at = stack.outputs()["boot_seconds"]

    # Shorter by far, told in place: nothing restarts, and the machine does what it was told.
    done = up(stack, timeToLiveHours="0.0003", idleMinutes=30)
    assert "restarts on the same host" not in done.output
    assert stack.outputs()["boot_seconds"] == started_at
    eventually(lambda: emulator.status()["contracts"] == [], within=60)

    (end,) = [
        call
        for call in emulator.requests()
        if call["method"] == "DELETE" and call["path"] == f"/api/v0/instances/{first}/"
    ]
    assert end["caller"] == f"instance {first}"
    said = stack.refresh()
    assert said.status == 0, said.outcome()
    assert f"instance {first} is gone" in said.output
    assert "its time to live of 0.0003 h was over at" in said.output
