"""The emulated host that a stand-in runs on: facts read once from the file EMULATED_HOST names."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EVERYWHERE = frozenset({"", "0.0.0.0", "::", "[::]"})  # noqa: S104  (recognised, never bound)
"""Addresses by which a server asks for all interfaces of its network namespace."""

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1", "[::1]"})
"""Those of the namespace's own loopback: a port of it that is not published is nobody else's."""


class NotEmulatedError(Exception):
    """The command was not started inside an emulated container: one sentence for a person."""


@dataclass(frozen=True)
class Host:
    """What host.json says. Memory in MiB, GiB or MB as the names say, the link in Mbit/s.

    `directory` is the container's own directory, with root/ (its HOME), tmp/ and `traffic`.
    `speed` is emulated seconds in a real one. `faults` is fault name -> parameters.
    """

    directory: Path
    speed: float
    instance_id: int
    address: str
    gpu_name: str
    num_gpus: int
    gpu_ram_mib: int
    driver_version: str
    cuda: float
    inet_down_mbps: float
    disk_gb: float
    shm_gib: float
    cpu_ram_mb: float
    cpu_cores: float
    image_gb: float = 0.0
    image_cuda: float = 13.0
    """The CUDA that the image is built with."""
    faults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    serving_speed: float | None = None
    """Emulated seconds in a real one once a server answers, where that is another speed."""

    def fault(self, name: str) -> Mapping[str, Any] | None:
        """Return the parameters of a fault that is switched on here, or None."""
        return self.faults.get(name)

    def wait(self, seconds: float) -> None:
        """Let emulated seconds pass."""
        time.sleep(seconds / self.speed)

    def bind_address(self, asked: str | None) -> str:
        """Return the address to bind for `asked`: all interfaces are ours, and so is loopback."""
        return self.address if (asked or "") in EVERYWHERE | LOOPBACK else str(asked)

    @property
    def root(self) -> Path:
        """The directory that stands for the container's file system."""
        return self.directory / "root"


def read_host(environ: Mapping[str, str]) -> Host:
    """Read the facts of this host.

    Raises:
        NotEmulatedError: EMULATED_HOST is unset, or its file is missing or incomplete.
    """
    name = environ.get("EMULATED_HOST")
    if not name:
        raise NotEmulatedError(
            "this is the emulator's stand-in and runs only inside an emulated container: "
            "EMULATED_HOST does not name a host.json"
        )
    path = Path(name)
    try:
        facts = json.loads(path.read_text())
        known = {key: facts[key] for key in Host.__dataclass_fields__ if key in facts}
        return Host(directory=path.resolve().parent, **known)
    except (OSError, ValueError, TypeError) as error:
        raise NotEmulatedError(
            f"EMULATED_HOST names {name}, which is no readable host.json: {error}"
        ) from error


def host_or_exit(command: str, environ: Mapping[str, str]) -> Host:
    """Read the facts of this host, or end `command` with one sentence and status 1."""
    try:
        return read_host(environ)
    except NotEmulatedError as error:
        print(f"{command}: {error}", file=sys.stderr)  # noqa: T201  (a command speaks there)
        raise SystemExit(1) from error
