"""F09: weights that crawl. The host is marked on the account, and the next `up` takes another."""

from __future__ import annotations

import httpx

from tests.stack.world import PROJECT, Emulator, Stack

SMALL = {"model": "qwen2.5-0.5b-1x4090", "minReliability": "0.9", "readyMinutes": "3"}
CRAWLS = "0.0005"
"""Mbit/s: so little that the host check sees not a byte in its time, and gives no verdict."""


def arm(emulator: Emulator, fault: str, **params: str) -> None:
    wanted = {"name": fault, "next": 1, "params": params}
    httpx.post(f"{emulator.url}/emulator/faults", json=wanted, trust_env=False).raise_for_status()


def test_a_host_too_slow_for_its_deadline_is_marked_and_replaced(emulator, tmp_path):
    stack = Stack(tmp_path / "stack", emulator, name="unfit")
    stack.configure(**SMALL)
    arm(emulator, "download_slow", mbps=CRAWLS)

    failed = stack.up()

    said = " ".join(failed.output.split())
    assert failed.status != 0, failed.outcome()
    assert "the download is too slow" in said
    assert "is marked unfit and costs $" in said
    (unfit,) = emulator.status()["contracts"]
    assert unfit["label"].startswith(f"{PROJECT}/unfit/endpoint-instance/unfit-download_slow-")

    before = emulator.last_request()
    done = stack.up()

    said = " ".join(done.output.split())
    assert done.status == 0, done.outcome()
    assert "was marked unfit (download slow) when its server did not come up" in said
    assert "the next `pulumi up` ends it and rents another machine" in said
    (works,) = emulator.status()["contracts"]
    assert works["machine_id"] != unfit["machine_id"]
    assert stack.outputs()["machine_id"] == works["machine_id"]
    writes = [call.split()[0] for call in emulator.writes(after=before)]
    assert writes.index("DELETE") < writes.index("PUT"), "two machines were paid at once"
    assert stack.preview("--expect-no-changes").status == 0

    done = stack.destroy()
    assert done.status == 0, done.outcome()
    assert emulator.status()["contracts"] == []
