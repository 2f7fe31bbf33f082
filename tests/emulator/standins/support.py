"""An emulated container in a temporary directory, and the commands on its PATH."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from emulator.standins import COMMANDS
from emulator.standins.host import Host, read_host
from tests.helpers import forked
from tests.helpers.places import ROOT
from tests.helpers.plain_http import KEPT_SECONDS, NO_TLS
from tests.helpers.ports import is_listening

REPOSITORY = ROOT
SPEED = 2000.0
MISTRAL = "mistralai/Mistral-Small-4-119B-2603"
QWEN = "Qwen/Qwen2.5-0.5B-Instruct"

H200X2: dict[str, Any] = {
    "speed": SPEED,
    "instance_id": 1001,
    "gpu_name": "H200",
    "num_gpus": 2,
    "gpu_ram_mib": 143771,
    "driver_version": "580.95.05",
    "cuda": 13.0,
    "inet_down_mbps": 5000.0,
    "disk_gb": 500.0,
    "shm_gib": 64.0,
    "cpu_ram_mb": 515000,
    "cpu_cores": 48,
    "faults": {},
}


def until(done: Callable[[], bool], *, within: float = 60.0, what: str) -> None:
    """Ask again and again; fail with `what` if it has not come true `within` seconds."""
    deadline = time.monotonic() + within
    pause = threading.Event()
    while not done():
        assert time.monotonic() < deadline, f"{what}: not within {within} s"
        pause.wait(0.02)


def own_address() -> str:
    """Give an address of this process alone: servers of tests beside one another bind there."""
    return f"127.42.{os.getpid() // 250 % 250}.{os.getpid() % 250 + 1}"


@dataclass
class Container:
    directory: Path
    facts: dict[str, Any] = field(default_factory=dict)
    alone: bool = False
    """Whether each command is an interpreter of its own, as on a host, and not forked off one."""

    def __post_init__(self) -> None:
        for name in ("root", "bin", "tmp"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        (self.directory / "traffic").write_text("0")
        self.facts = H200X2 | {"address": own_address()} | self.facts
        (self.directory / "host.json").write_text(json.dumps(self.facts))

    @property
    def home(self) -> Path:
        return self.directory / "root"

    @property
    def address(self) -> str:
        return str(self.facts["address"])

    @property
    def traffic(self) -> int:
        return int((self.directory / "traffic").read_text())

    def environment(self, **more: str) -> dict[str, str]:
        return {
            "PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "TMPDIR": str(self.directory / "tmp"),
            "LANG": "C.UTF-8",
            "EMULATED_HOST": str(self.directory / "host.json"),
            **more,
            "PYTHONPATH": ":".join(
                part for part in (str(REPOSITORY), more.get("PYTHONPATH", "")) if part
            ),
        }

    def words(self, command: str, *arguments: str) -> list[str]:
        return [sys.executable, "-P", "-m", COMMANDS[command], *arguments]

    def run(
        self, command: str, *arguments: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        if not self.alone:
            return forked.run(
                [COMMANDS[command], *arguments],
                folder=self.home,
                environment=self.environment(**environment),
                into=self.directory,
            )
        return subprocess.run(
            self.words(command, *arguments),
            cwd=self.home,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @contextmanager
    def started(
        self, command: str, *arguments: str, **environment: str
    ) -> Iterator[subprocess.Popen[bytes] | forked.Forked]:
        printed = self.directory / "printed.log"
        if not self.alone:
            with forked.started(
                [COMMANDS[command], *arguments],
                folder=self.home,
                environment=self.environment(**environment),
                stdout=printed,
            ) as fork:
                yield fork
            return
        with (
            # One file, as supervise.sh has it: bars stand between the lines.
            printed.open("wb") as log,
            subprocess.Popen(
                self.words(command, *arguments),
                cwd=self.home,
                env=self.environment(**environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            ) as process,
        ):
            try:
                yield process
            finally:
                process.kill()

    def printed(self) -> str:
        log = self.directory / "printed.log"
        return log.read_bytes().decode(errors="replace") if log.exists() else ""


@dataclass
class Server:
    container: Container
    process: subprocess.Popen[bytes] | forked.Forked
    url: str

    def client(self, **more: Any) -> httpx.Client:
        options = {
            "timeout": 20,
            "trust_env": False,
            "verify": NO_TLS,
            "limits": httpx.Limits(keepalive_expiry=KEPT_SECONDS),
            **more,
        }
        return httpx.Client(base_url=self.url, **options)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)


@contextmanager
def serving(
    container: Container,
    *options: str,
    model: str = MISTRAL,
    scheme: str = "http",
    **environment: str,
) -> Iterator[Server]:
    """Start `vllm serve` and wait until it answers."""
    port = free_port(container.address)
    arguments = ["serve", model, "--port", str(port), *options]
    with container.started("vllm", *arguments, **environment) as process:
        server = Server(container, process, f"{scheme}://{container.address}:{port}")

        def ready() -> bool:
            assert process.poll() is None, container.printed()
            # It says so just before it listens.
            return "Application startup complete." in container.printed() and is_listening(
                port, container.address
            )

        until(ready, what="the server's start")
        yield server


def free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


def host_with(directory: Path, **facts: Any) -> Host:
    """The facts of a container as the stand-ins' own functions take them."""
    Container(directory, facts)
    return read_host({"EMULATED_HOST": str(directory / "host.json")})
