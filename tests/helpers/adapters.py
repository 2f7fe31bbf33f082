"""What the tests of the resources' hooks stand on: an HTTP API, a machine, and rows of a state."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.core.property_bag import Properties
from components.machine.ssh_library import asyncssh
from components.resources.context import Context, using
from components.vast.lifecycle.order import order_for
from components.vast.market.view import forget_what_was_shown
from tests.helpers.fake_api import KEY, FakeVast
from tests.helpers.fakes import VirtualClock
from tests.helpers.processes import end_all
from tests.helpers.ssh_host import SshHost
from tests.helpers.states import PREFIX, inputs, search

COMMANDS = {
    "nvidia-smi": """
case "$1" in
  --query-gpu*) echo "NVIDIA H200, 143771, 4, 580.95.05"; echo "NVIDIA H200, 143771, 4, 580.95.05";;
esac""",
    "python3": 'echo "started 2"',
    "df": 'echo "overlay 999999999 1048576 998951423 1% /"',
    "free": 'echo "Mem: 527433728 1 1"',
    "hf": 'echo "Error: no Hub here" >&2; exit 1',
}
"""What the machine answers to the host check."""


@pytest.fixture
def vast(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeVast]:
    forget_what_was_shown()
    with FakeVast() as fake:
        monkeypatch.setenv("VAST_URL", fake.url)
        monkeypatch.setenv("VAST_API_KEY", KEY)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        with using(Context(clock=VirtualClock(time.time()))):
            yield fake


@pytest.fixture
def client_key() -> asyncssh.SSHKey:
    return asyncssh.generate_private_key("ssh-ed25519")


@pytest.fixture
def machine(
    vast: FakeVast, client_key: asyncssh.SSHKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SshHost]:
    """A machine behind every contract of the fake: its SSH port, and one where nobody listens."""
    home, commands = tmp_path / "home", tmp_path / "bin"
    home.mkdir()
    commands.mkdir()
    for name, script in COMMANDS.items():
        (commands / name).write_text(f"#!/bin/sh\n{script}\n")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:/usr/bin:/bin")
    with socket.socket() as free, SshHost(home, client_key) as host:
        free.bind(("127.0.0.1", 0))
        vast.host_keys = [one.export_public_key().decode() for one in host.host_keys]
        vast.contract = {
            "public_ipaddr": "127.0.0.1\n",
            "ports": {
                "22/tcp": [{"HostIp": "0.0.0.0", "HostPort": str(host.address.port)}],
                "8000/tcp": [{"HostIp": "0.0.0.0", "HostPort": str(free.getsockname()[1])}],
            },
        }
        yield host
        # The watch of its life outlives its login.
        end_all(home)


def outputs(result: Any) -> Properties:
    """What a hook gave out."""
    assert result.outs is not None
    return dict(result.outs)


def reasons(result: Any) -> str:
    return " ".join(failure.reason for failure in result.failures)


def vast_label() -> str:
    return order_for(inputs(), "http://vast.test").label


TAKEN = {
    "search": search(contract="interruptible"),
    "interruptible": True,
    "status": "stopped",
    "min_bid": 2.0,
    "storage_per_hour": 0.1,
}
"""An interruptible machine that others have now."""


def policy(when: str, tries: float = 3.0) -> Properties:
    return {"when": when, "tries": tries, "dollars": 10.0}


def lost(count: int) -> Properties:
    return {str(number): {"at": 1.0, "dollars": 0.0} for number in range(count)}


MEASURED = {
    "status": "exited",
    "intended_status": "stopped",
    "current_state": "stopped",
    "next_state": "stopped",
    "bid": 1.9,
}
"""What a refresh writes of such a machine (marketplace-facts, 1); TAKEN is the older form."""


STOPPED = {
    "is_bid": True,
    "actual_status": "exited",
    "intended_status": "stopped",
    "cur_state": "stopped",
    "next_state": "stopped",
    "dph_base": 1.9,
    "label": f"{PREFIX}abc",
    "ports": {},
}
"""The row of the market that says so."""


ASKED = {
    "pending_price_increase_id": 501,
    "contract_id": 9001,
    "new_gpu_costpersec": 7.0 / 3600,
    "ask_end_date": 1_820_000_000.0,
}
"""A host's wish for more, as Vast lists it."""
