"""F09: weights that crawl. The host is marked on the account, and the next `up` takes another."""

from __future__ import annotations

from components.resources.context import Context
from components.vast.quarantine import quarantine
from tests.helpers.stack_fixtures import own_emulator, own_stack
from tests.helpers.stack_world import PROJECT, Emulator, Stack

SMALL = {
    "model": "qwen2.5-0.5b-1x4090",
    "datacenterOnly": False,
    "minReliability": "0.5",
    "readyMinutes": 3,
}
CRAWLS = "0.0005"
"""Mbit/s: so little that the host check sees not a byte in its time, and gives no verdict."""


emulator = own_emulator()
stack = own_stack("unfit", SMALL)


def replaced(stack: Stack, emulator: Emulator) -> str:
    """Bring the stack up, which ends its marked machine and rents another; return what it said."""
    unfit = emulator.contract()
    before = emulator.last_request()
    done = stack.up()
    assert done.status == 0, done.outcome()
    assert emulator.contract()["machine_id"] != unfit["machine_id"]
    assert stack.outputs()["machine_id"] == emulator.contract()["machine_id"]
    writes = [call.split()[0] for call in emulator.writes(after=before)]
    assert writes.index("DELETE") < writes.index("PUT"), "two machines were paid at once"
    assert stack.preview("--expect-no-changes").status == 0
    return " ".join(done.output.split())


def test_a_host_too_slow_for_its_deadline_is_marked_and_replaced(stack, emulator):
    emulator.arm("download_slow", mbps=CRAWLS)

    failed = stack.up()

    said = " ".join(failed.output.split())
    assert failed.status != 0, failed.outcome()
    assert "the download is too slow" in said
    assert "is marked unfit and costs $" in said
    label = emulator.contract()["label"]
    assert label.startswith(f"{PROJECT}/unfit/endpoint-instance/unfit-download_slow-")

    said = replaced(stack, emulator)
    assert "was marked unfit (download slow) when its server did not come up" in said
    assert "the next `pulumi up` ends it and rents another machine" in said


def test_a_marked_host_that_a_server_stands_on_is_replaced_with_it(stack, emulator):
    before = stack.outputs()
    quarantine(
        Context(environment=stack.environment).market(), int(before["instance_id"]), "load_late"
    )

    assert "was marked unfit (load late)" in replaced(stack, emulator)
    assert stack.outputs()["started_at"] > before["started_at"]
