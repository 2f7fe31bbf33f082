"""Draw the dashboard of a stack under load: `python -m tests.helpers.dashboard_picture`.

The server is the emulator's, at ten times its pace, so rates are ten times those of real time.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx

from components.core.clock import SystemClock
from tests.emulator.standins.support import QWEN
from tests.helpers.places import ROOT
from tests.helpers.watched_stack import Watched, watched
from toolchain.day_two.dashboard.picture import draw

SPEED = 10.0
SECONDS = 420
OPTIONS = ("--max-num-seqs", "32")
"""So that some of the clients wait."""

PLACE = ROOT / "docs/pictures/dashboard.svg"
CLIENTS = ((0, 3), (120, 48), (240, 12))
"""From which second on how many clients ask."""


def main() -> int:
    """Play, and draw."""
    with tempfile.TemporaryDirectory() as name, watched(Path(name), *OPTIONS, speed=SPEED) as world:
        began = time.monotonic()
        askers = [
            threading.Thread(target=ask, args=(world, number, began), daemon=True)
            for number in range(max(count for _, count in CLIENTS))
        ]
        for one in askers:
            one.start()
        for one in askers:
            one.join()
        draw(world.url, "old", SECONDS / 60, PLACE, SystemClock())
    return 0


def ask(world: Watched, number: int, began: float) -> None:
    """Ask one question after the other while this client is among those that ask."""
    body = {
        "model": QWEN,
        "messages": [{"role": "user", "content": f"Client {number} asks for a long story"}],
        "max_tokens": 400,
        "ignore_eos": True,
    }
    with world.router.client() as client:
        while (now := time.monotonic() - began) < SECONDS:
            wanted = [count for since, count in CLIENTS if now >= since][-1]
            if number >= wanted:
                time.sleep(0.5)
                continue
            try:
                client.post("/v1/chat/completions", json=body)
            except httpx.HTTPError:
                continue


if __name__ == "__main__":
    sys.exit(main())
