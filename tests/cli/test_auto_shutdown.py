"""Machines that can be taken away or end themselves: what `refresh` says and `up` does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.helpers.plain_http import NO_TLS
from tests.helpers.polling import eventually
from tests.helpers.stack_world import Done, Emulator, Stack

SMALL = {"model": "qwen2.5-0.5b-1x4090", "minReliability": "0.9"}


@pytest.fixture
def stack(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    one = Stack(tmp_path_factory.mktemp("stack"), emulator, "leash", is_forked=True)
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


def take_away(emulator: Emulator, stack: Stack, status: str, **params: str) -> str:
    """Outbid the machine and give what a refresh says of it."""
    if status == "stopped":
        params["older"] = "true"
    emulator.arm("outbid", **params)
    return told_of(emulator, stack, status)


def told_of(emulator: Emulator, stack: Stack, status: str) -> str:
    """Wait until the machine has a status, and give what a refresh says of it."""
    eventually(lambda: contract(emulator)["actual_status"] == status)
    done = stack.refresh()
    assert done.status == 0, done.outcome()
    return " ".join(done.output.split())


def stop_by_hand(emulator: Emulator) -> None:
    """What its owner does on Vast's own site."""
    key = {"api_key": emulator.key}
    path = f"{emulator.url}/api/v0/instances/{contract(emulator)['id']}/"

    def is_admitted() -> bool:
        answer = httpx.put(
            path, json={"state": "stopped"}, params=key, trust_env=False, verify=NO_TLS
        )
        return answer.status_code == httpx.codes.OK

    eventually(is_admitted)


def jobs(emulator: Emulator) -> list[dict[str, Any]]:
    """What the market is to do by itself."""
    path = f"{emulator.url}/api/v0/commands/schedule_job/"
    return list(
        httpx.get(path, params={"api_key": emulator.key}, trust_env=False, verify=NO_TLS).json()
    )


def losses(stack: Stack) -> list[str]:
    """The machines that the lease has counted as lost."""
    (lease,) = (one for one in stack.state()["resources"] if one["type"].endswith("vast:Lease"))
    return list(lease["outputs"]["losses"])


@pytest.mark.timeout(900)
def test_an_interruptible_machine_is_won_back_waited_for_replaced_and_then_let_be(
    emulator: Emulator, stack: Stack
) -> None:
    """Section 1 of marketplace-facts.md: in the states that were measured, and in the older ones.

    Losses are counted, limits are held, `wait` and `rebid` are honoured. Which states are a loss
    is the matter of `unit/vast/lifecycle/test_preemption.py`; here each is met twice.
    """
    bids = {"contract": "interruptible"}
    done = up(stack, **bids, whenOutbid="rebid")
    assert "interruptible: the bid on the best offer is $" in done.output, done.outcome()
    assert "takes the machine away" in done.output
    first = contract(emulator)["id"]

    said = take_away(emulator, stack, "exited")
    assert f"instance {first} was outbid (exited)" in said
    assert losses(stack) == [str(first)]
    assert "raises the bid to $" in said
    before = emulator.last_request()
    up(stack, **bids, whenOutbid="rebid")
    assert contract(emulator)["id"] == first
    assert f"PUT /api/v0/instances/bid_price/{first}/" in emulator.writes(before)
    assert answers(stack)

    said = take_away(emulator, stack, "stopped", seconds="36000")
    assert f"instance {first} was outbid (stopped)" in said
    assert "raises the bid to $" in said
    before = emulator.last_request()
    done = up(stack, **bids, whenOutbid="wait")
    assert "waits for its GPUs; its disk is billed on at $" in done.output
    assert contract(emulator)["id"] == first
    assert emulator.writes(before) == []
    assert answers(stack)

    take_away(emulator, stack, "stopped")
    up(stack, **bids, whenOutbid="rerent")
    second = contract(emulator)["id"]
    assert second != first
    assert answers(stack)

    take_away(emulator, stack, "exited")
    assert sorted(losses(stack)) == sorted([str(first), str(second)])
    stack.configure(**SMALL, **bids, whenOutbid="rerent", rerentTries=1)
    before = emulator.last_request()
    done = stack.up()
    assert done.status != 0
    assert "2 machines were lost within a day and rerentTries is 1" in done.output
    assert contract(emulator)["id"] == second
    assert emulator.writes(before) == []


@pytest.mark.timeout(900)
def test_an_interruptible_machine_that_is_stopped_by_hand_or_crashes_was_not_outbid(
    emulator: Emulator, stack: Stack
) -> None:
    """Section 1: told, not counted, nothing destroyed; a crash is replaced, and not counted."""
    settings = {"contract": "interruptible", "rerentTries": 0}
    up(stack, **settings)
    first = contract(emulator)["id"]
    stop_by_hand(emulator)
    said = told_of(emulator, stack, "exited")
    assert f"instance {first} is stopped (exited), by the market or by hand" in said
    assert "is not counted as outbid" in said
    before = emulator.last_request()
    up(stack, **settings)
    assert contract(emulator)["id"] == first
    assert emulator.writes(before) == [f"PUT /api/v0/instances/{first}/"]
    assert answers(stack)
    assert losses(stack) == []

    emulator.command("fault", "container_exits")
    said = told_of(emulator, stack, "exited")
    assert f"instance {first} does not run (exited, to be running)" in said
    up(stack, **settings)
    assert contract(emulator)["id"] != first
    assert answers(stack)
    assert losses(stack) == []


def test_a_machine_whose_time_is_up_ends_itself_and_the_next_refresh_says_why(
    emulator: Emulator, stack: Stack
) -> None:
    # The market's own end follows emulated time, the machine's follows the real one.
    done = up(stack, timeToLiveHours="200", idleMinutes=30, marketEnd=True)
    assert (
        "the machine ends itself 200 h after its first start or after 30 min without" in done.output
    )
    first = contract(emulator)["id"]
    started_at = stack.outputs()["boot_seconds"]
    (job,) = jobs(emulator)
    assert job["api_endpoint"] == f"/api/v0/instances/{first}/"

    # A longer life is none where the market would end the machine before that.
    emulator.command("fault", "job_refused")
    stack.configure(**SMALL, timeToLiveHours="500", idleMinutes=30, marketEnd=True)
    done = stack.up()
    assert done.status != 0
    assert f"does not take the end of instance {first} (marketEnd)" in " ".join(done.output.split())
    assert jobs(emulator) == [job]

    # Shorter by far, told in place: nothing restarts, and the machine does what it was told.
    done = up(stack, timeToLiveHours="0.0003", idleMinutes=30)
    assert "restarts on the same host" not in done.output
    assert jobs(emulator) == []
    assert stack.outputs()["boot_seconds"] == started_at
    eventually(lambda: emulator.status()["contracts"] == [], within=60)

    # On a busy computer it may ask again before it has gone.
    ends = [
        call["caller"]
        for call in emulator.requests()
        if call["method"] == "DELETE" and call["path"] == f"/api/v0/instances/{first}/"
    ]
    assert set(ends) == {f"instance {first}"}
    said = stack.refresh()
    assert said.status == 0, said.outcome()
    assert f"instance {first} is gone" in said.output
    assert "its time to live of 0.0003 h was over at" in said.output
