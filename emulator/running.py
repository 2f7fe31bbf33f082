"""What runs for a state directory: the server, and the processes of its containers."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from emulator.keys import new_key

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Running:
    """What server.json says about the process that serves a state directory."""

    url: str
    pid: int
    port: int
    speed: float
    pace: float = 1.0


def prepare_directory(state: Path) -> str:
    """Make the state directory, readable by its owner alone, and return the account's key."""
    state.mkdir(parents=True, exist_ok=True)
    state.chmod(0o700)
    path = state / "api_key"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(f"{new_key()}\n")
    return path.read_text().strip()


def read_running(state: Path) -> Running | None:
    """Return what server.json says, or None if there is none."""
    try:
        return Running(**json.loads((state / "server.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def container_processes(root: Path, contract_id: int | None) -> list[psutil.Process]:
    """Return the live processes whose environment names a container under `root`."""
    wanted = None if contract_id is None else str(contract_id)
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and _belongs(process.environ(), root, wanted):
                found[process.pid] = process
    return list(found.values())


def _belongs(environment: Mapping[str, str], root: Path, contract_id: str | None) -> bool:
    facts = environment.get("EMULATED_HOST")
    if facts is None or Path(facts).parent.parent != root:
        return False
    return contract_id is None or environment.get("CONTAINER_ID") == contract_id
