"""F09: weights that crawl. The host is marked on the account, and the next `up` takes another."""

from __future__ import annotations

from tests.helpers.stack_fixtures import own_emulator, own_stack
from tests.helpers.stack_world import PROJECT

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


def test_a_host_too_slow_for_its_deadline_is_marked_and_replaced(stack, emulator):
    emulator.arm("download_slow", mbps=CRAWLS)

    failed = stack.up()

    said = " ".join(failed.output.split())
    assert failed.status != 0, failed.outcome()
    assert "the download is too slow" in said
    assert "is marked unfit and costs $" in said
    label = emulator.contract()["label"]
    assert label.startswith(f"{PROJECT}/unfit/endpoint-instance/unfit-download_slow-")

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
