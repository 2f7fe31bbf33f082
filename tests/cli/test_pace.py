"""The market's own pace, kept by the real commands one right after the other."""

from __future__ import annotations

import httpx

from tests.helpers.stack_world import REAL, Emulator, Stack


def test_preview_and_up_right_after_it_keep_vasts_pace(tmp_path):
    with Emulator(tmp_path / "market", speed=300, pace=REAL) as emulator:
        stack = Stack(tmp_path / "stack", emulator)
        stack.configure(model="qwen2.5-0.5b-1x4090", datacenterOnly=False, minReliability="0.5")
        for done in (stack.preview(), stack.up()):
            assert done.status == 0, done.outcome()
        assert stack.outputs()["instance_id"]
        done = stack.destroy()
        assert done.status == 0, done.outcome()
        too_soon = httpx.codes.TOO_MANY_REQUESTS
        assert [call for call in emulator.requests() if call["status"] == too_soon] == []
