"""A stack that a real Prometheus asks with the files of `make dashboard`.

The machines are the emulator's servers behind the gate of a host, over TLS; the router is HAProxy.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from components.core.keys import digest, machine_key
from components.router.inputs import KeyDigest, Member
from components.vllm.server_state import ServerState
from tests.emulator.standins.support import QWEN, SPEED, Container, serving
from tests.helpers.day_two import charge, contract
from tests.helpers.fleets import CONTRACT
from tests.helpers.gates import Folder
from tests.helpers.metered import OF_THE_STACK, STACK_KEY, metered, of_machine
from tests.helpers.plain_http import NO_TLS
from tests.helpers.polling import eventually
from tests.helpers.ports import free_port
from tests.helpers.router_world import AUTHORITY, SCOPE, Router, identity, short_folder
from toolchain.day_two.dashboard.command import make, promtool_here
from toolchain.day_two.dashboard.exporter import Facts, served
from toolchain.day_two.dashboard.rules import Aims
from toolchain.day_two.fleet import Fleet, Machine
from toolchain.day_two.status.seen import Seen, SeenMachine
from toolchain.prometheus import PROMETHEUS

# The server of the emulator says emulated seconds, and answers fast.
AIMS = Aims(first_token_seconds=600, dollars_per_day=300)
CHAT = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}


@contextlib.contextmanager
def machine(folder: Path, speed: float, *more: str) -> Iterator[tuple[str, int]]:
    """A server as it runs on the machine of the stack's first contract; gives where."""
    folder.mkdir()
    gate = Folder.make(folder)
    gate.add_metrics(of_machine())
    key = machine_key(STACK_KEY, SCOPE, CONTRACT)
    (folder / "allowed_keys").write_text(f"{digest(key)}\n")
    container = Container(folder / "container", {"num_gpus": 1, "speed": speed})
    pem = folder / "pem"
    pem.write_text(identity(CONTRACT, ip=container.address))
    options = ("--middleware", "metrics_gate.MetricsGate")
    files = ("--ssl-certfile", str(pem), "--ssl-keyfile", str(pem))
    with serving(
        container,
        "--enforce-eager",
        *options,
        *files,
        *more,
        model=QWEN,
        scheme="https",
        PYTHONPATH=str(folder),
    ) as server:
        yield container.address, int(server.url.rpartition(":")[2])


def placed(one: Machine, address: str, port: int) -> Machine:
    """The machine of the state, where it is in this test."""
    assert one.server is not None
    state: ServerState = one.server
    host = dataclasses.replace(
        state.inputs.host, address=dataclasses.replace(state.inputs.host.address, ip=address)
    )
    inputs = dataclasses.replace(state.inputs, host=host, host_port=port, tls=True)
    server = dataclasses.replace(state, inputs=inputs, ca_certificate=AUTHORITY.certificate)
    return dataclasses.replace(one, server=server)


@dataclasses.dataclass(frozen=True)
class Running:
    """A Prometheus."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]

    def ask(self, path: str, **words: str) -> Any:
        """Ask it, and give its data."""
        answer = get(f"{self.url}/api/v1/{path}", **words)
        return answer.json()["data"]

    def up(self) -> list[str]:
        """Roles of the targets whose last scrape went well, in their order."""
        found = self.ask("query", query="up == 1")["result"]
        return sorted(one["metric"]["role"] for one in found)


class Watched:
    """A stack that is watched by a Prometheus."""

    def __init__(self, running: Running, router: Router, folder: Path) -> None:
        self.url, self.router, self.folder, self.log = running.url, router, folder, running.log
        self.ask, self._process = running.ask, running.process

    def change(self, name: str, text: str) -> None:
        """Write another text into one of its files, and let it read its configuration again."""
        (self.folder / name).write_text(text)
        self._process.send_signal(signal.SIGHUP)

    def machine(self) -> tuple[str, str]:
        """Whether the last scrape of the machine went well, and else why not."""
        for one in self.ask("targets")["activeTargets"]:
            if one["labels"]["role"] == "machine":
                return one["health"], one["lastError"]
        return "", ""

    def query(self, expression: str) -> list[Any]:
        """Ask it for something now."""
        return list(self.ask("query", query=expression)["result"])


@contextlib.contextmanager
def watched(tmp_path: Path, *options: str, speed: float = SPEED) -> Iterator[Watched]:
    """Run all of it; the emulated server has that speed, and more options of `vllm serve`."""
    with (
        machine(tmp_path / "machine", speed, *options) as (address, port),
        short_folder() as short,
        Router(
            short,
            members=(Member(contract=CONTRACT, address=address, port=port),),
            metrics_digests=(KeyDigest(digest=digest(OF_THE_STACK)),),
        ) as router,
        contextlib.ExitStack() as stack,
    ):
        found = fleet_at(address, port, router)
        facts = Facts()
        facts.seen = seen(found)
        exporter = free_port()
        stack.callback(served(facts, exporter))
        folder = tmp_path / "dashboards" / "old"
        answer = make(
            found,
            time.time(),
            folder=folder,
            aims=AIMS,
            exporter_at=f"127.0.0.1:{exporter}",
            check=promtool_here(),
        )
        assert (answer.checked, answer.problems) == (True, ())
        hurry(folder / "prometheus.yml")
        with prometheus(folder, tmp_path) as running:
            yield Watched(running, router, folder)


def fleet_at(address: str, port: int, router: Router) -> Fleet:
    """The stack of the state with one machine behind a router, where they are in this test."""
    whole = metered(2)
    assert whole.router is not None
    return dataclasses.replace(
        whole,
        machines=(placed(whole.machines[0], address, port),),
        router=dataclasses.replace(
            whole.router, url=f"{router.url}/v1", certificate=AUTHORITY.certificate
        ),
    )


def seen(found: Fleet) -> Seen:
    """What the exporter has seen of it."""
    now = time.time()
    bill = dataclasses.replace(charge(), since=now - 3600, until=now)
    live = contract(end_date=now + 9 * 86_400)
    return Seen(
        fleet=found,
        now=now,
        asked_seldom_at=now,
        machines=(SeenMachine(found.machines[0], live, None),),
        public=None,
        contracts=(live,),
        charges=(bill,),
        credit=100.0,
        project="vast-vllm",
    )


def hurry(file: Path) -> None:
    """Let Prometheus ask each second, and nothing else differ."""
    text = file.read_text()
    for slow, quick in (
        ("scrape_interval: 15s", "scrape_interval: 1s"),
        ("scrape_timeout: 10s", "scrape_timeout: 1s"),
        ("evaluation_interval: 15s", "evaluation_interval: 1s"),
    ):
        assert slow in text
        text = text.replace(slow, quick)
    file.write_text(text)


@contextlib.contextmanager
def prometheus(folder: Path, tmp_path: Path) -> Iterator[Running]:
    """Run the real one with the files of a folder."""
    program = PROMETHEUS.program("prometheus")
    if program is None:
        pytest.fail("`prometheus` is not there: `make setup` says how to get it")
    port, log = free_port(), tmp_path / "prometheus.log"
    command = [
        str(program),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'series'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            eventually(lambda: answers(f"{url}/-/ready"))
            yield Running(url, log, process)
        finally:
            process.kill()


def get(url: str, **words: str) -> httpx.Response:
    """Ask a Prometheus, which has no TLS here."""
    return httpx.get(url, params=words, trust_env=False, verify=NO_TLS)


def answers(url: str) -> bool:
    try:
        return get(url).status_code == 200
    except httpx.HTTPError:
        return False
