from __future__ import annotations

import asyncio
import json
import os
import shlex
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.machine.first_contact import MARK, fingerprint, named, proof_key
from components.machine.onstart import onstart
from components.machine.ssh_library import asyncssh
from emulator.containers import Containers, host_facts
from emulator.contract_types import Contract
from emulator.market import draw_market
from emulator.standins import COMMANDS
from tests.emulator.test_contracts import rented
from tests.helpers.emulator_world import until

MACHINE = next(one for one in draw_market(0) if one.gpu.name == "H200" and one.num_gpus == 8)


class Running:
    """Containers of some state directories, with one event loop behind their processes."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.loop = asyncio.Runner()
        self._made: list[Containers] = []

    def containers(self, name: str = "", vllm: str | None = None) -> Containers:
        self._made.append(Containers(self.place / name, speed=60.0, vllm=vllm))
        return self._made[-1]

    def start(self, containers: Containers, contract: Contract) -> None:
        containers.prepare(contract, MACHINE)
        environment = containers.environment(contract, "emulator-instance", {"ACCOUNT": "secret"})
        self.loop.run(containers.start(contract, MACHINE, environment))

    def close(self) -> None:
        for containers in self._made:
            self.loop.run(containers.kill())
        self.loop.close()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    started = Running(tmp_path)
    yield started
    started.close()


def test_host_facts_have_the_agreed_shape() -> None:
    contract = rented(num_gpus=2, disk_gb=500.0, faults={"driver_old": {}})
    facts = host_facts(contract, MACHINE, 60.0)
    assert list(facts) == [
        "speed",
        "instance_id",
        "address",
        "gpu_name",
        "num_gpus",
        "gpu_ram_mib",
        "driver_version",
        "cuda",
        "image_cuda",
        "inet_down_mbps",
        "disk_gb",
        "shm_gib",
        "cpu_ram_mb",
        "cpu_cores",
        "faults",
    ]
    assert facts["gpu_ram_mib"] == 143771
    assert facts["cpu_ram_mb"] == MACHINE.cpu_ram_mb // 4
    assert facts["faults"] == {"driver_old": {}}


def test_the_start_script_runs_with_the_containers_environment_alone(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAST_API_KEY", "sentinel-account-key")
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "sentinel-passphrase")
    containers = running.containers()
    contract = rented(
        env={"-p 8000:8000": "1", "A": "b c"},
        ports={"8000/tcp": 21001, "22/tcp": 21002},
        onstart="env | sort; pwd; echo done >&2",
    )
    running.start(containers, contract)
    until(lambda: "done" in containers.log(contract.id))
    printed = containers.log(contract.id)
    place = tmp_path / "containers" / "1001"
    assert "sentinel" not in printed
    for line in (
        "A=b c",
        "ACCOUNT=secret",
        "CONTAINER_ID=1001",
        "CONTAINER_API_KEY=emulator-instance",
        "PUBLIC_IPADDR=127.0.0.1",
        "VAST_TCP_PORT_8000=21001",
        "VAST_TCP_PORT_22=21002",
        "VAST_CONTAINERLABEL=C.1001",
        "GPU_COUNT=2",
        f"HOME={place / 'root'}",
        f"TMPDIR={place / 'tmp'}",
        f"EMULATED_HOST={place}/host.json",
        f"{place}/root",
    ):
        assert f"{line}\n" in printed
    assert f"PATH={place}/bin:" in printed
    assert json.loads((place / "host.json").read_text())["instance_id"] == 1001
    assert (place / "root" / "onstart.sh").read_text() == contract.onstart


def test_curl_takes_loopback_to_the_container_itself(running: Running) -> None:
    containers = running.containers()
    serve = (
        "from http.server import HTTPServer, BaseHTTPRequestHandler as Base\n"
        "class One(Base):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.end_headers(); self.wfile.write(b'its own')\n"
        "HTTPServer(('127.42.9.9', 8000), One).handle_request()\n"
    )
    contract = rented(
        address="127.42.9.9",
        env={"-p 8000:8000": "1"},
        ports={"8000/tcp": 21001},
        onstart=f'python3 -c "{serve}" & \n'
        "until curl -s --noproxy '*' http://127.0.0.1:8000/; do sleep 0.05; done",
    )
    running.start(containers, contract)
    until(lambda: "its own" in containers.log(contract.id))


def test_curl_reaches_the_market_where_it_listens_on_loopback(running: Running) -> None:
    containers = running.containers()
    with socket.create_server(("127.0.0.1", 0)) as market:
        port = market.getsockname()[1]
        (running.place / "server.json").write_text(json.dumps({"port": port, "pid": 1}, indent=1))
        asked = f"curl -s --max-time 10 http://127.0.0.1:{port}/ & wait"
        running.start(containers, rented(address="127.42.9.10", onstart=asked))
        market.settimeout(20)
        client, _ = market.accept()
        client.close()


def test_a_start_script_finds_the_host_key_and_the_output_of_its_container(
    running: Running,
) -> None:
    containers = running.containers()
    key = proof_key("PRIVATE", "p/s/r/1")
    contract = rented(onstart=onstart("ssh-ed25519 AAAA p/s", {}, key))
    running.start(containers, contract)
    until(lambda: MARK in containers.log(contract.id))
    private = asyncssh.read_private_key(containers.host_key(contract.id))
    shown = private.export_public_key().decode()
    assert named(containers.log(contract.id), key) == {fingerprint(shown)}


def test_every_command_is_on_the_path(tmp_path: Path) -> None:
    containers = Containers(tmp_path, speed=60.0)
    containers.prepare(rented(), MACHINE)
    bin_directory = tmp_path / "containers" / "1001" / "bin"
    for name, module in COMMANDS.items():
        text = (bin_directory / name).read_text()
        assert text.startswith("#!/bin/sh\n")
        assert f'{shlex.quote(sys.executable)} -P -m {module} "$@"' in text
        assert os.access(bin_directory / name, os.X_OK)
    done = subprocess.run(
        [bin_directory / "python3", "-c", "import asyncssh, sys; print(sys.prefix)"],
        capture_output=True,
        text=True,
        check=True,
        env={},
    )
    assert done.stdout.strip() == sys.prefix


def test_du_counts_what_sparse_files_hold(tmp_path: Path) -> None:
    containers = Containers(tmp_path, speed=60.0)
    containers.prepare(rented(), MACHINE)
    container = tmp_path / "containers" / "1001"
    folder = container / "root" / "the hub"
    folder.mkdir(parents=True)
    with (folder / "blob").open("wb") as file:
        file.truncate(1024 * 5_000_000)
    done = subprocess.run(
        [container / "bin" / "du", "-sk", "the hub"],
        cwd=folder.parent,
        capture_output=True,
        text=True,
        check=True,
        # As in the container, where the stand-in itself is the first `du`.
        env={"PATH": f"{container / 'bin'}:{os.environ['PATH']}"},
    )
    assert 5_000_000 <= int(done.stdout.split()[0]) < 5_000_010


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["serve", "m", "--port", "1"], "serve m --port 1 --host 127.42.0.1\n"),
        (["--version"], "--version\n"),
    ],
)
def test_a_real_vllm_in_the_stand_ins_place(
    tmp_path: Path, words: list[str], expected: str
) -> None:
    real = tmp_path / "vllm"
    real.write_text('#!/bin/sh\necho "$@"\n')
    real.chmod(0o755)
    Containers(tmp_path, speed=1.0, vllm=str(real)).prepare(rented(), MACHINE)
    wrapper = tmp_path / "containers" / "1001" / "bin" / "vllm"
    done = subprocess.run([wrapper, *words], capture_output=True, text=True, check=True)
    assert done.stdout == expected


def test_kill_finds_what_left_its_session(running: Running) -> None:
    containers = running.containers()
    one = rented(onstart="setsid sleep 600 & (sleep 600 &) ; sleep 600")
    other = rented(id=1002, onstart="sleep 600")
    running.start(containers, one)
    running.start(containers, other)
    until(lambda: len(containers.processes(1001)) == 4)
    until(lambda: len(containers.processes(1002)) == 2)
    running.loop.run(containers.kill(1001))
    assert containers.processes(1001) == []
    assert len(containers.processes(1002)) == 2
    running.loop.run(containers.kill())
    assert containers.processes() == []


def test_another_states_containers_are_not_ours(running: Running) -> None:
    ours, theirs = running.containers("a"), running.containers("b")
    running.start(theirs, rented(onstart="sleep 600"))
    until(lambda: len(theirs.processes(1001)) == 2)
    running.loop.run(ours.kill())
    assert len(theirs.processes(1001)) == 2


def test_args_run_vllm_or_what_they_say(running: Running, tmp_path: Path) -> None:
    real = tmp_path / "vllm"
    real.write_text('#!/bin/sh\necho "vllm $@"\n')
    real.chmod(0o755)
    containers = running.containers(vllm=str(real))
    running.start(containers, rented(runtype="args", args=["m", "--port", "8000"]))
    other = rented(id=1002, runtype="args", image="busybox", args=["echo", "hello"])
    running.start(containers, other)
    until(lambda: bool(containers.log(1001) and containers.log(1002)))
    assert containers.log(1001) == "vllm serve m --port 8000 --host 127.42.0.1\n"
    assert containers.log(1002) == "hello\n"
    until(lambda: not containers.main_alive(1001))


def test_the_main_process_is_known_by_more_than_its_number(
    running: Running, tmp_path: Path
) -> None:
    containers = running.containers()
    running.start(containers, rented(runtype="args", image="busybox", args=["sleep", "600"]))
    assert containers.main_alive(1001)
    note = tmp_path / "containers" / "1001" / "main.pid"
    note.write_text(json.dumps({"pid": os.getpid(), "create_time": 1.0}))
    assert not containers.main_alive(1001)


def test_recycling_leaves_nothing_of_the_old_disk(tmp_path: Path) -> None:
    containers = Containers(tmp_path, speed=1.0)
    contract = rented(ssh_keys=["ssh-ed25519 AAAA me"])
    containers.prepare(contract, MACHINE)
    (containers.home(1001) / "weights").write_text("x")
    key = containers.host_key(1001).read_bytes()
    containers.empty(contract, MACHINE)
    assert not (containers.home(1001) / "weights").exists()
    assert containers.host_key(1001).read_bytes() != key
    keys = containers.home(1001) / ".ssh" / "authorized_keys"
    assert keys.read_text() == "ssh-ed25519 AAAA me\n"
    assert stat.S_IMODE(containers.host_key(1001).stat().st_mode) == 0o600
    containers.remove(1001)
    assert not containers.directory(1001).exists()


def test_volumes_are_linked_and_kept(tmp_path: Path) -> None:
    containers = Containers(tmp_path, speed=1.0)
    containers.prepare(rented(), MACHINE)
    containers.mount(rented(), 7, "/models")
    containers.mount(rented(), 7, "/root/cache/hub")
    (containers.home(1001) / "models" / "w").write_text("x")
    assert (containers.home(1001) / "cache" / "hub" / "w").read_text() == "x"
    containers.remove(1001)
    assert (tmp_path / "volumes" / "7" / "w").read_text() == "x"
    containers.remove_volume(7)
    assert not (tmp_path / "volumes" / "7").exists()


def test_downloads_are_read_from_the_agreed_file(tmp_path: Path) -> None:
    containers = Containers(tmp_path, speed=1.0)
    containers.prepare(rented(), MACHINE)
    assert containers.downloaded(1001) == 0
    (containers.directory(1001) / "traffic").write_text("123\n")
    assert containers.downloaded(1001) == 123
    assert containers.downloaded(4) == 0
