from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from emulator import contracts
from emulator.contract_types import Contract, Effect, Phase, Step
from emulator.contracts import actual_status, advance
from emulator.images import digest_of
from emulator.market import DAY, HOUR

T0 = 1_800_000_000.0


def rented(**fields: Any) -> Contract:
    contract = Contract(
        id=1001,
        machine_id=5,
        offer_id=50,
        num_gpus=2,
        disk_gb=720.0,
        label="a",
        image="vllm/vllm-openai:latest",
        runtype="ssh",
        env={},
        onstart=None,
        args=[],
        is_bid=False,
        gpu_per_hour=4.0,
        min_bid=1.0,
        storage_cost=0.1,
        inet_up_cost=0.01,
        inet_down_cost=0.02,
        start_date=T0,
        end_date=T0 + 30 * DAY,
        address="127.42.0.1",
        image_bytes=10e9,
        pull_seconds=100.0,
    )
    return contracts.open_contract(replace(contract, **fields), T0).contract


def running(**fields: Any) -> Contract:
    contract = advance(rented(**fields), T0 + 200).contract
    assert contract.phase is Phase.RUNNING
    return contract


def spent(step: Step) -> dict[str, float]:
    sums: dict[str, float] = {}
    for charge in step.charges:
        sums[charge.kind] = sums.get(charge.kind, 0.0) + charge.amount
    return sums


@pytest.mark.parametrize(
    ("image", "pulled"),
    [
        (f"vllm/vllm-openai:v0.33.0@{digest_of('vllm/vllm-openai', 'v0.33.0')}", True),
        (f"vllm/vllm-openai:v0.33.0@{digest_of('vllm/vllm-openai', 'v0.32.0')}", False),
        (f"vllm/vllm-openai@sha256:{'0' * 64}", True),
        ("localhost:5000/vllm", True),
    ],
)
def test_a_digest_is_that_of_its_tag_or_there_is_no_such_image(image, pulled):
    contract = advance(rented(image=image), T0 + 200).contract
    assert (contract.phase is Phase.RUNNING) is pulled
    assert ("manifest unknown" in str(contract.status_msg)) is not pulled


@pytest.mark.parametrize(
    ("seconds", "status"),
    [
        (0.5, None),
        (1.5, "created"),
        (3.5, "loading"),
        (102.5, "loading"),
        (103.5, "running"),
        (1e6, "running"),
    ],
)
def test_boot(seconds: float, status: str | None) -> None:
    assert actual_status(advance(rented(), T0 + seconds).contract) == status


def test_boot_starts_the_container_once() -> None:
    step = advance(rented(), T0 + 500)
    assert step.effects == (Effect.START,)
    assert advance(step.contract, T0 + 900).effects == ()


def test_gpu_is_charged_from_running_on_and_disk_from_the_start() -> None:
    step = advance(rented(), T0 + 103 + HOUR)
    assert spent(step) == pytest.approx(
        {"gpu": 4.0, "disk": 0.1 * (HOUR + 103) / HOUR, "bwd": 10 * 0.02}
    )


def test_small_steps_cost_what_a_large_one_does() -> None:
    contract, total = rented(), 0.0
    for second in range(0, 4000, 7):
        step = advance(contract, T0 + second)
        contract, total = step.contract, total + sum(spent(step).values())
    step = advance(contract, T0 + 4000)
    total += sum(spent(step).values())
    assert total == pytest.approx(sum(spent(advance(rented(), T0 + 4000)).values()))


def test_a_cached_image_costs_no_traffic() -> None:
    step = advance(rented(image_bytes=0.0, pull_seconds=10.0), T0 + 20)
    assert step.contract.phase is Phase.RUNNING
    assert "bwd" not in spent(step)


def test_stopped_bills_the_disk_alone() -> None:
    stopped = advance(contracts.stop(running(), T0 + 200), T0 + 300)
    assert stopped.contract.phase is Phase.STOPPED
    assert actual_status(stopped.contract) == "exited"
    assert stopped.effects == (Effect.KILL,)
    assert not stopped.contract.holds_gpus
    later = advance(stopped.contract, T0 + 300 + HOUR)
    assert spent(later) == pytest.approx({"disk": 0.1})
    assert later.contract.per_hour_now() == pytest.approx(0.1)


def test_start_needs_free_gpus_and_stays_queued_without() -> None:
    stopped = advance(contracts.stop(running(), T0 + 200), T0 + 300).contract
    queued = contracts.start(stopped, T0 + 300, gpus_free=False)
    assert queued.start_queued
    assert queued.phase is Phase.STOPPED
    started = contracts.start(queued, T0 + 300, gpus_free=True)
    assert actual_status(started) == "exited"
    up = advance(started, T0 + 400)
    assert up.contract.phase is Phase.RUNNING
    assert up.effects == (Effect.START,)
    assert not up.contract.start_queued


def test_a_queued_start_is_cancelled_by_stop() -> None:
    stopped = advance(contracts.stop(running(), T0 + 200), T0 + 300).contract
    queued = contracts.start(stopped, T0 + 300, gpus_free=False)
    assert not contracts.stop(queued, T0 + 301).start_queued


def test_reboot_keeps_the_gpus_and_the_ports() -> None:
    step = contracts.reboot(replace(running(), ports={"8000/tcp": 21000}), T0 + 200)
    assert step.effects == (Effect.KILL,)
    assert step.contract.holds_gpus
    assert actual_status(step.contract) == "rebooting"
    up = advance(step.contract, T0 + 300)
    assert up.effects == (Effect.START,)
    assert up.contract.ports == {"8000/tcp": 21000}


def test_recycle_pulls_and_wipes() -> None:
    step = contracts.recycle(running(), T0 + 200)
    assert step.effects == (Effect.KILL, Effect.WIPE)
    assert actual_status(step.contract) == "recycling"
    loading = advance(step.contract, T0 + 210).contract
    assert actual_status(loading) == "loading"
    up = advance(loading, T0 + 400)
    assert up.effects == (Effect.START,)
    assert spent(up)["bwd"] > 0


def test_destroy_stays_listed_for_a_moment_and_then_is_gone() -> None:
    ending = contracts.destroy(running(), T0 + 200)
    assert ending.phase is Phase.DESTROYING
    gone = advance(ending, T0 + 300)
    assert gone.contract.phase is Phase.GONE
    assert gone.effects == (Effect.KILL, Effect.REMOVE)
    # Section 15 of marketplace-facts.md: the GPUs are billed on for two minutes.
    assert spent(gone)["gpu"] == pytest.approx(4.0 * contracts.BILLED_AFTER_END / HOUR)
    assert max(charge.until for charge in gone.charges) <= T0 + 202
    assert advance(gone.contract, T0 + 1e6).charges == ()
    assert contracts.destroy(gone.contract, T0 + 301) is gone.contract


@pytest.mark.parametrize(
    ("fault", "status", "text"),
    [
        ({"stuck_loading": {}}, "loading", "Pulling from vllm/vllm-openai"),
        ({"stuck_loading": {"msg": "Verifying"}}, "loading", "Verifying"),
        ({"fatal_status": {}}, "created", "OCI runtime create failed"),
        ({"fatal_status": {"status": "offline", "msg": "x"}}, "offline", "x"),
        ({"image_denied": {}}, "created", "pull access denied for vllm/vllm-openai:latest"),
    ],
)
def test_boots_that_fail(fault: dict[str, Any], status: str, text: str) -> None:
    step = advance(rented(faults=fault), T0 + 30 * HOUR)
    assert actual_status(step.contract) == status
    assert text in (step.contract.status_msg or "")
    assert "gpu" not in spent(step)
    assert step.effects == ()


def test_a_contract_ends_with_the_host_and_is_deleted_two_days_later() -> None:
    contract = running(end_date=T0 + DAY)
    ended = advance(contract, T0 + DAY + 60).contract
    assert ended.phase is Phase.STOPPED
    assert contracts.start(ended, T0 + DAY + 60, gpus_free=True).phase is Phase.STOPPED
    assert advance(ended, T0 + 2.9 * DAY).contract.phase is Phase.STOPPED
    assert advance(ended, T0 + 3.1 * DAY).contract.phase is Phase.GONE


def test_an_offline_host_bills_nothing_and_comes_back_rebooted() -> None:
    lost = contracts.host_lost(running(), T0 + 200, seconds=HOUR)
    assert lost.effects == (Effect.KILL,)
    assert actual_status(lost.contract) == "offline"
    assert lost.contract.per_hour_now() == 0
    away = advance(lost.contract, T0 + 200 + HOUR - 1)
    assert away.charges == ()
    back = advance(away.contract, T0 + 200 + HOUR + 1)
    assert back.effects == (Effect.START,)
    assert actual_status(back.contract) == "running"


def test_outbid_reads_as_a_stop_and_gives_the_gpus_up() -> None:
    """Section 1: the intended state is ahead by a tick, and the message is what it was."""
    begun = running(is_bid=True, gpu_per_hour=2.0)
    going = contracts.outbid(begun, T0 + 200, floor=2.5).contract
    assert (actual_status(going), going.intended) == ("running", "stopped")
    lost = advance(going, T0 + 203)
    assert lost.effects == (Effect.KILL,)
    assert (actual_status(lost.contract), lost.contract.intended) == ("exited", "stopped")
    assert lost.contract.status_msg == begun.status_msg
    assert (lost.contract.min_bid, lost.contract.start_queued) == (2.5, True)
    assert not lost.contract.holds_gpus


def test_outbid_as_older_clients_remember_it() -> None:
    """Section 1, the other form: `stopped`, and to run."""
    begun = running(is_bid=True, gpu_per_hour=2.0)
    lost = contracts.outbid(begun, T0 + 200, floor=2.5, older=True)
    assert lost.effects == (Effect.KILL,)
    assert (actual_status(lost.contract), lost.contract.intended) == ("stopped", "running")
    again = contracts.start(lost.contract, T0 + 300, gpus_free=True)
    stopped = advance(contracts.stop(advance(again, T0 + 400).contract, T0 + 400), T0 + 500)
    assert actual_status(stopped.contract) == "exited"


def test_a_container_that_exits_leaves_its_contract_running() -> None:
    """Section 1: a crash or a reboot of the host is no stop."""
    begun = running(ports={"8000/tcp": 21000})
    exits = contracts.container_exits(begun, T0 + 200, seconds=300.0)
    assert exits.effects == (Effect.KILL,)
    assert (actual_status(exits.contract), exits.contract.intended) == ("exited", "running")
    assert exits.contract.holds_gpus
    back = advance(exits.contract, T0 + 501)
    assert back.effects == (Effect.START,)
    assert (actual_status(back.contract), back.contract.ports) == ("running", begun.ports)
    crashed = contracts.container_exits(begun, T0 + 200, seconds=None).contract
    assert actual_status(advance(crashed, T0 + DAY).contract) == "exited"


def test_a_bid_that_was_beaten_for_a_time_reaches_the_floor_again() -> None:
    begun = running(is_bid=True, gpu_per_hour=2.0, min_bid=1.5)
    going = contracts.outbid(begun, T0 + 200, floor=2.5, seconds=600.0).contract
    lost = advance(going, T0 + 202).contract
    waiting = advance(lost, T0 + 799).contract
    assert (waiting.min_bid, waiting.start_queued) == (2.5, True)
    again = advance(waiting, T0 + 801).contract
    assert (again.min_bid, again.phase, again.start_queued) == (1.5, Phase.STOPPED, True)
    assert "gpu" not in spent(advance(lost, T0 + HOUR))


@pytest.mark.parametrize("ended", ["stopped", "loading"])
def test_nothing_is_billed_on_for_what_did_not_run(ended: str) -> None:
    """Section 15: only a container that ran when it was destroyed."""
    if ended == "stopped":
        begun = advance(contracts.stop(running(), T0 + 200), T0 + 300).contract
    else:
        begun = advance(rented(), T0 + 50).contract
    gone = advance(contracts.destroy(begun, T0 + 300), T0 + 400)
    assert gone.contract.phase is Phase.GONE
    assert "gpu" not in spent(gone)


def test_what_is_said_while_an_image_is_loaded() -> None:
    """Section 16 of marketplace-facts.md: one message for the whole pull, then that it is there."""
    said = [advance(rented(), T0 + second).contract.status_msg for second in (2, 4, 60, 101)]
    assert said[0] is None
    assert len(set(said[1:])) == 1
    loaded = advance(rented(), T0 + 102.5)
    assert actual_status(loaded.contract) == "loading"
    assert loaded.contract.status_msg == "Successfully loaded vllm/vllm-openai:latest\n"
    assert spent(loaded)["bwd"] == pytest.approx(10 * 0.02)


def test_rented_to_be_stopped_never_runs_and_pulls_its_image_when_it_is_started() -> None:
    step = advance(rented(intended="stopped"), T0 + HOUR)
    assert step.contract.phase is Phase.STOPPED
    assert Effect.START not in step.effects
    started = contracts.start(step.contract, T0 + HOUR, gpus_free=True)
    assert actual_status(started) == "loading"
    up = advance(started, T0 + 2 * HOUR)
    assert up.effects == (Effect.START,)
    assert spent(up)["bwd"] > 0


def test_stop_while_the_image_is_pulled() -> None:
    loading = advance(rented(), T0 + 50).contract
    stopping = contracts.stop(loading, T0 + 50)
    assert actual_status(stopping) == "loading"
    step = advance(stopping, T0 + HOUR)
    assert step.contract.phase is Phase.STOPPED
    assert "gpu" not in spent(step)
