"""How far a host's rehearsal is: a server with dummy weights, started while the weights come."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Literal

from emulator.standins import gpus
from emulator.standins.host import Host
from emulator.standins.processes import born, is_alive

Course = Literal["none", "begun", "on the GPUs", "ended"]
"""Of the newest one on this host, however it ended."""


def note(host: Host, pid: int) -> None:
    """Write down that process `pid` is the host's rehearsal."""
    (host.directory / "rehearsal.json").write_text(json.dumps({"pid": pid, "born": born(pid)}))


def course(host: Host) -> Course:
    """Return how far it is."""
    with suppress(OSError, ValueError):
        noted = json.loads((host.directory / "rehearsal.json").read_text())
        if not is_alive(noted["pid"], noted["born"]):
            return "ended"
        return "on the GPUs" if gpus.claim_file(host, noted["pid"]).exists() else "begun"
    return "none"
