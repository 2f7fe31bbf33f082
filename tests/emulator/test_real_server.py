"""The emulator as its users start it, driven by the official clients as they are."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from components.machine.ssh_library import asyncssh
from tests.helpers import forked
from tests.helpers.documented import block
from tests.helpers.emulator_world import until
from tests.helpers.places import ROOT
from tests.helpers.plain_http import NO_TLS

REPOSITORY = ROOT
SERVER = """
import http.server, json, os
address = json.load(open(os.environ["EMULATED_HOST"]))["address"]
http.server.test(http.server.SimpleHTTPRequestHandler, port=8000, bind=address)
"""
ONSTART = f"""
echo hello from onstart >> started
echo hello
python3 -c '{SERVER}' &
"""
IMAGE = "ubuntu:24.04"


@dataclass
class Emulator:
    """One emulator in a state directory of its own, and the clients' environment for it."""

    state: Path

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command, forked off an interpreter that has loaded it. The server is its own."""
        return forked.run(
            ["emulator", words[0], "--state", str(self.state), *words[1:]],
            folder=REPOSITORY,
            environment=os.environ,
            into=self.state.parent,
        )

    def up(self, *options: str) -> None:
        # Calm: nobody else rents what a test has just found.
        steady = ("--port", "0", "--speed", "600", "--no-throttle", "--calm")
        done = self.command("up", *steady, *options)
        assert done.returncode == 0, done.stdout + done.stderr

    @property
    def server(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.state / "server.json").read_text())
        return found

    @property
    def key(self) -> str:
        return (self.state / "api_key").read_text().strip()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        answer = httpx.request(
            method,
            f"{self.server['url']}{path}",
            json=body,
            headers={"Authorization": f"Bearer {self.key}"},
            trust_env=False,
            verify=NO_TLS,
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    def instance(self, number: int) -> Any:
        return self.call("GET", f"/api/v0/instances/{number}/")["instances"]

    def status(self, number: int) -> str | None:
        row = self.instance(number)
        return row["actual_status"] if row else None

    def rent(self, **body: Any) -> int:
        query = {"gpu_name": {"eq": "H200"}, "num_gpus": {"eq": 2}, "rentable": {"eq": True}}
        offer = self.call("POST", "/api/v0/bundles/", query)["offers"][0]["id"]
        asked = {
            "image": IMAGE,
            "disk": 10,
            "env": {"-p 8000:8000": "1"},
            "onstart": ONSTART,
            "runtype": "ssh_direc ssh_proxy",
        }
        number: int = self.call("PUT", f"/api/v0/asks/{offer}/", asked | body)["new_contract"]
        until(lambda: self.status(number) == "running")
        return number

    def get_served(self, number: int, path: str) -> str | None:
        port = self.instance(number)["ports"]["8000/tcp"][0]["HostPort"]
        try:
            address = f"http://127.0.0.1:{port}/{path}"
            return httpx.get(address, trust_env=False, verify=NO_TLS).text
        except httpx.TransportError:
            return None

    def serves(self, number: int) -> bool:
        return (self.get_served(number, "started") or "").startswith("hello from onstart")

    def client_environment(self) -> dict[str, str]:
        home = self.state / "client"
        home.mkdir(exist_ok=True)
        bin_directory = Path(sys.executable).parent
        return {
            "PATH": f"{bin_directory}:{os.environ['PATH']}",
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_CACHE_HOME": str(home / "cache"),
            "XDG_STATE_HOME": str(home / "state"),
            "VAST_URL": self.server["url"],
            "VAST_API_KEY": self.key,
            "VASTAI_NO_UPDATE_CHECK": "1",
            "NO_PROXY": "127.0.0.1",
        }


@dataclass
class VastClients:
    """The official clients, loaded once: that takes half a second, and each run forks off it."""

    printed: Path
    process: subprocess.Popen[str]

    def cli(self, *words: str) -> str:
        return self._run({"words": words})

    def sdk(self, script: str) -> str:
        return self._run({"script": script})

    def _run(self, asked: dict[str, Any]) -> str:
        typed, ended = self.process.stdin, self.process.stdout
        assert typed is not None
        assert ended is not None
        typed.write(json.dumps(asked | {"printed": str(self.printed)}) + "\n")
        typed.flush()
        assert ended.readline() == "0\n", self.printed.with_suffix(".errors").read_text()
        return self.printed.read_text()


CLIENTS = """
import json, os, sys
from vastai.cli.main import main
# In the order in which `main` loads them.
from vastai.cli.commands import (
    instances, offers, machines, teams, keys, endpoints, billing, storage, auth, misc, deployments,
    metrics, benchmarks, price_increase, repl, update, uninstall
)
import argcomplete, vastai.cli.selfupdate
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if not child:
        printed = asked["printed"]
        for number, place in ((1, printed), (2, f"{printed}.errors")):
            os.dup2(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        if "script" in asked:
            exec(asked["script"], {"__name__": "__main__"})
            sys.exit()
        sys.argv = ["vastai", *asked["words"]]
        sys.exit(main())
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    one = Emulator(tmp_path_factory.mktemp("emulator") / "state")
    one.up()
    yield one
    assert one.command("down").returncode == 0
    assert not any(str(one.state) in " ".join(words) for words in _command_lines())


@pytest.fixture(scope="module")
def clients(started: Emulator) -> Iterator[VastClients]:
    with subprocess.Popen(
        [sys.executable, "-c", CLIENTS],
        env=started.client_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield VastClients(started.state / "printed", process)


@pytest.fixture
def emulator(started: Emulator) -> Emulator:
    """One that all share, since a start takes a second of CPU: each test has an account anew."""
    try:
        started.call("POST", "/emulator/reset", {})
    except (FileNotFoundError, httpx.TransportError):  # a test that failed has left it down
        started.up()
        started.call("POST", "/emulator/reset", {})
    return started


def _command_lines() -> list[list[str]]:
    return [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]


def test_the_readme_s_lines_start_it_and_search(tmp_path: Path) -> None:
    """But for the port, which may be taken here, and the end of the emulator with this process."""
    lines = block("emulator/README.md", "Vast.ai on this machine")
    assert ":8765 " in lines
    begin, then = lines.replace("http://127.0.0.1:8765", "$URL").split("\n", 1)
    up = f"{begin} --port 0 --end-with {os.getpid()}"
    ask = "import json; print(json.load(open('.emulator/server.json'))['url'])"
    url = f'URL=$(python -c "{ask}")'
    done = subprocess.run(
        ["bash", "-euc", f"{up}\n{url}\n{then}\npython -m emulator down"],
        cwd=tmp_path,
        env={
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "PYTHONPATH": str(REPOSITORY),
            "EMULATOR_HOME": str(tmp_path / ".emulator"),
            "VASTAI_NO_UPDATE_CHECK": "1",
            "NO_PROXY": "127.0.0.1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"2x +H200", done.stdout)) >= 3, done.stdout


def test_the_official_cli_goes_through_the_recipe(emulator: Emulator, clients: VastClients) -> None:
    vastai = clients.cli
    offers = json.loads(
        vastai(
            "search",
            "offers",
            "gpu_name=H200 num_gpus=2 direct_port_count>=1 rentable=true disk_space>=500 "
            "cuda_vers>=12.2",
            *("--raw", "--limit", "20", "--storage", "500", "-o", "dph_total"),
        )
    )
    offer = str(offers[0]["id"])
    created = json.loads(
        vastai(
            *("create", "instance", offer, "--image", IMAGE, "--env", "-p 8000:8000"),
            # Without these nothing is published (section 9 of marketplace-facts.md).
            *("--ssh", "--direct", "--disk", "500", "--onstart-cmd", ONSTART, "--raw"),
        )
    )
    number = created["new_contract"]
    until(lambda: emulator.status(number) == "running")
    seen = emulator.call("GET", "/emulator/requests")["requests"][-1]["n"]
    row = json.loads(vastai("show", "instance", str(number), "--raw"))
    assert row["actual_status"] == "running"
    assert row["extra_env"] == {"-p 8000:8000": "1"}
    until(lambda: emulator.serves(number))
    listed = json.loads(vastai("show", "instances", "--raw"))
    assert [one["id"] for one in listed] == [number]
    assert "hello" in vastai("logs", str(number))
    vastai("label", "instance", str(number), "mine")
    vastai("stop", "instance", str(number))
    until(lambda: emulator.status(number) == "exited")
    vastai("start", "instance", str(number))
    until(lambda: emulator.status(number) == "running")
    vastai("reboot", "instance", str(number))
    until(lambda: emulator.status(number) == "running")
    until(lambda: emulator.serves(number))
    assert (emulator.get_served(number, "started") or "").count("hello") == 3
    vastai("destroy", "instance", str(number), "-y")
    until(lambda: emulator.status(number) is None)
    requests = emulator.call("GET", "/emulator/requests")["requests"]
    _assert_recorded_search_and_create(requests, offer)
    by_client = [one for one in requests if one["n"] > seen]
    _assert_recorded_flow(by_client, number)


def _assert_recorded_search_and_create(requests: list[dict[str, Any]], offer: str) -> None:
    search = next(one for one in requests if one["path"] == "/api/v0/bundles/")
    assert search["body"] == {
        "verified": {"eq": True},
        "external": {"eq": False},
        "rentable": {"eq": True},
        "gpu_name": {"eq": "H200"},
        "num_gpus": {"eq": "2"},
        "direct_port_count": {"gte": "1"},
        "disk_space": {"gte": "500"},
        "cuda_max_good": {"gte": "12.2"},
        "order": [["dph_total", "asc"]],
        "type": "on-demand",
        "limit": 20,
        "allocated_storage": 500.0,
    }
    create = next(one for one in requests if one["path"] == f"/api/v0/asks/{offer}/")
    assert create["method"] == "PUT"
    assert create["body"] == {
        "client_id": "me",
        "image": IMAGE,
        "env": {"-p 8000:8000": "1"},
        "price": None,
        "disk": 500.0,
        "label": None,
        "extra": None,
        "onstart": ONSTART,
        "image_login": None,
        "python_utf8": False,
        "lang_utf8": False,
        "use_jupyter_lab": False,
        "jupyter_dir": None,
        "force": False,
        "cancel_unavail": False,
        "template_hash_id": None,
        "user": None,
        "runtype": "ssh_direc ssh_proxy",
    }


def _assert_recorded_flow(requests: list[dict[str, Any]], number: int) -> None:
    path = f"/api/v0/instances/{number}/"
    log = f"/api/v0/instances/request_logs/{number}/"
    one_page = {
        "select_filters": "{}",
        "order_by": '[{"col": "id", "dir": "asc"}]',
        "limit": "25",
    }
    writes = [
        (one["method"], one["path"], one["body"]) for one in requests if one["method"] != "GET"
    ]
    assert writes == [
        ("PUT", log, {}),
        ("PUT", path, {"label": "mine"}),
        ("PUT", path, {"state": "stopped"}),
        ("PUT", path, {"state": "running"}),
        ("PUT", f"/api/v0/instances/reboot/{number}/", {}),
        ("DELETE", path, {}),
    ]
    reads = [(one["path"], one["query"], one["caller"]) for one in requests]
    assert (path, {"owner": "me"}, "account") in reads
    assert ("/api/v1/instances/", one_page, "account") in reads
    links = [
        (one["status"], one["caller"])
        for one in requests
        if one["path"].startswith("/instance_logs/")
    ]
    assert links == [(403, "anybody"), (403, "anybody"), (200, "anybody")]


SDK_SCRIPT = """
import json, sys, time
from vastai import VastAI
vast = VastAI()
offers = vast.search_offers(query="gpu_name=H200 num_gpus=2", storage=100, order="dph_total")
made = vast.create_instance(
    id=offers[0]["id"], image="ubuntu:24.04", disk=100, env={"-p 8000:8000": "1"}, label="sdk"
)
number = made["new_contract"]
row = None
for _ in range(200):
    row = vast.show_instance(id=number)
    if row and row["actual_status"] == "running":
        break
    time.sleep(0.05)
listed = vast.show_instances()
vast.label_instance(id=number, label="other")
vast.destroy_instance(id=number)
print(json.dumps({"offers": len(offers), "row": row, "listed": [one["label"] for one in listed],
                  "credit": vast.show_user()["credit"]}))
"""


def test_the_official_sdk(emulator: Emulator, clients: VastClients) -> None:
    assert emulator.server
    told = json.loads(clients.sdk(SDK_SCRIPT).strip().splitlines()[-1])
    assert told["offers"] >= 3
    assert told["row"]["actual_status"] == "running"
    assert told["row"]["extra_env"] == {"-p 8000:8000": "1"}
    assert told["listed"] == ["sdk"]
    assert 90 < told["credit"] < 100


def test_up_is_idempotent_and_keeps_its_key(emulator: Emulator) -> None:
    key, pid = emulator.key, emulator.server["pid"]
    assert key.startswith("emulator-")
    assert stat.S_IMODE((emulator.state / "api_key").stat().st_mode) == 0o600
    again = emulator.command("up")
    assert again.returncode == 0
    assert "already up" in again.stdout
    assert emulator.server["pid"] == pid
    assert emulator.command("down").returncode == 0
    assert not (emulator.state / "server.json").exists()
    assert emulator.command("status").returncode == 1
    emulator.up()
    assert emulator.key == key


def test_it_listens_on_loopback_alone(emulator: Emulator) -> None:
    process = psutil.Process(emulator.server["pid"])
    listening = [one.laddr.ip for one in process.net_connections() if one.status == "LISTEN"]
    assert listening
    assert all(address.startswith("127.") for address in listening)


def test_a_killed_server_takes_its_containers_up_again(emulator: Emulator) -> None:
    number = emulator.rent(label="kept")
    until(lambda: emulator.serves(number))
    before, spent = emulator.instance(number), emulator.call("GET", "/emulator/ledger")["total"]
    clock = emulator.call("GET", "/emulator/status")["clock"]
    os.kill(emulator.server["pid"], signal.SIGKILL)
    emulator.up()
    after = emulator.instance(number)
    assert (after["ports"], after["ssh_port"]) == (before["ports"], before["ssh_port"])
    assert after["label"] == "kept"
    assert emulator.get_served(number, "started") == "hello from onstart\n"
    assert emulator.call("GET", "/emulator/status")["clock"] >= clock
    assert emulator.call("GET", "/emulator/ledger")["total"] >= spent
    emulator.call("DELETE", f"/api/v0/instances/{number}/", {})
    until(lambda: emulator.status(number) is None)
    assert not (emulator.state / "containers" / str(number)).exists()


def test_down_and_up_is_a_reboot_of_the_hosts(emulator: Emulator) -> None:
    number = emulator.rent()
    until(lambda: emulator.serves(number))
    ports = emulator.instance(number)["ports"]
    url = emulator.server["url"]
    emulator.command("down")
    emulator.up()
    assert emulator.server["url"] == url  # others know it by its address
    until(lambda: emulator.serves(number))
    assert emulator.instance(number)["ports"] == ports
    assert emulator.get_served(number, "started") == "hello from onstart\n" * 2


def test_down_unless_used_leaves_it_to_whoever_uses_it(emulator: Emulator) -> None:
    number = emulator.rent()
    assert "it stays up" in emulator.command("down", "--unless-used").stdout
    assert emulator.instance(number)["id"] == number
    emulator.call("DELETE", f"/api/v0/instances/{number}/", {})
    until(lambda: emulator.instance(number) is None)
    assert "is down" in emulator.command("down", "--unless-used").stdout
    emulator.up()


def test_ssh_by_both_addresses_with_one_host_key(emulator: Emulator) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    public = key.export_public_key().decode().strip()
    emulator.call("POST", "/api/v0/ssh/", {"ssh_key": public})
    number = emulator.rent()
    row = emulator.instance(number)
    ports = [int(row["ports"]["22/tcp"][0]["HostPort"]), row["ssh_port"]]

    async def visit(port: int) -> tuple[str, str]:
        async with asyncssh.connect(
            "127.0.0.1", port, username="root", client_keys=[key], known_hosts=None, config=[]
        ) as connection:
            host_key = connection.get_server_host_key()
            assert host_key is not None
            done = await connection.run("echo $CONTAINER_ID; cat started")
            return str(done.stdout), host_key.get_fingerprint()

    (first, one), (second, other) = [asyncio.run(visit(port)) for port in ports]
    assert first == second == f"{number}\nhello from onstart\n"
    assert one == other
    down, up = (
        emulator.call("GET", "/emulator/ledger")["contracts"][0]["quantities"][kind]
        for kind in ("bwd", "bwu")
    )
    assert down > 1000
    assert up > 1000


def test_status_logs_faults_and_reset_by_command(emulator: Emulator) -> None:
    number = emulator.rent(label="shown")
    shown = emulator.command("status").stdout
    assert "shown" in shown
    told = json.loads(emulator.command("status", "--json").stdout)
    assert [one["id"] for one in told["contracts"]] == [number]
    assert emulator.command("logs", str(number)).stdout.startswith("hello\n")
    assert "contract" in emulator.command("logs").stdout
    armed = emulator.command("fault", "driver_old", "--next", "2", "--param", "version=535.1.1")
    assert armed.returncode == 0
    assert "driver_old" in emulator.command("fault", "--list").stdout
    faults = emulator.call("GET", "/emulator/faults")["armed"]
    assert [(one["name"], one["left"], one["params"]) for one in faults] == [
        ("driver_old", 2, {"version": "535.1.1"})
    ]
    assert emulator.command("fault", "--clear").returncode == 0
    unknown = emulator.command("fault", "nonsense")
    assert unknown.returncode == 1
    assert "nonsense" in unknown.stderr
    key = emulator.key
    assert emulator.command("reset").returncode == 0
    assert emulator.call("GET", "/emulator/status")["contracts"] == []
    assert "no contracts, $0.00/h" in emulator.command("status").stdout
    assert list((emulator.state / "containers").iterdir()) == []
    assert emulator.key == key


def test_a_scenario_comes_from_a_file(emulator: Emulator, tmp_path: Path) -> None:
    file = tmp_path / "scenario.yaml"
    file.write_text(block("emulator/README.md", "Faults"))
    done = emulator.command("fault", "--scenario", str(file))
    assert done.stdout == (
        "offer_taken strikes the next 2.\n"
        "rate_limited strikes the next 3.\n"
        "driver_old strikes the next 1.\n"
    ), done.stderr
    armed = emulator.call("GET", "/emulator/faults")["armed"]
    assert [(one["name"], one["left"], one["params"]) for one in armed] == [
        ("offer_taken", 2, {}),
        ("rate_limited", 3, {"route": "/instances/", "shape": "detail", "retry_after": "1"}),
        ("driver_old", 1, {}),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- {name: nonsense}", "nonsense"),
        ("name: offer_taken", "is no scenario"),
        ("- {name: [", "is not YAML"),
        (None, "cannot be read"),
    ],
)
def test_a_scenario_that_cannot_be_is_refused(
    emulator: Emulator, tmp_path: Path, text: str | None, said: str
) -> None:
    file = tmp_path / "scenario.yaml"
    if text is not None:
        file.write_text(text)
    done = emulator.command("fault", "--scenario", str(file))
    assert done.returncode == 1
    assert said in done.stderr
    assert emulator.call("GET", "/emulator/faults")["armed"] == []


def test_killed_in_a_call_before_or_after_it_acts(emulator: Emulator) -> None:
    number = emulator.rent(label="kept")
    for when, alive in (("before", True), ("after", False)):
        emulator.command("fault", "killed", "--param", "method=DELETE", "--param", f"when={when}")
        with pytest.raises(httpx.TransportError):
            emulator.call("DELETE", f"/api/v0/instances/{number}/", {})
        emulator.up()
        last = emulator.call("GET", "/emulator/requests")["requests"][-1]
        assert (last["method"], last["note"]) == ("DELETE", "killed")
        assert (emulator.status(number) == "running") is alive


def test_a_port_in_use_is_named(emulator: Emulator, tmp_path: Path) -> None:
    port = str(emulator.server["port"])
    other = Emulator(tmp_path / "other")
    done = other.command("up", "--port", port)
    assert done.returncode == 1
    assert port in done.stderr
    assert "--port" in done.stderr


def test_an_unreachable_port_times_out(emulator: Emulator) -> None:
    emulator.command("fault", "port_unreachable")
    number = emulator.rent()
    port = emulator.instance(number)["ports"]["8000/tcp"][0]["HostPort"]
    with pytest.raises(httpx.ConnectTimeout):
        httpx.get(f"http://127.0.0.1:{port}/", timeout=0.5, trust_env=False, verify=NO_TLS)
    emulator.command("fault", "port_unreachable", "--param", "how=refused")
    other = emulator.rent()
    port = emulator.instance(other)["ports"]["8000/tcp"][0]["HostPort"]
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/", timeout=0.5, trust_env=False, verify=NO_TLS)


def test_ssh_alone_is_unreachable_when_it_is_named(emulator: Emulator) -> None:
    shut = ("--param", "port=22", "--param", "how=refused")
    emulator.command("fault", "port_unreachable", *shut)
    ports = emulator.instance(emulator.rent())["ports"]
    ssh, server = (int(ports[name][0]["HostPort"]) for name in ("22/tcp", "8000/tcp"))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", ssh), timeout=5)
    # Nothing listens in the container yet: that its open port resets may show at once.
    with contextlib.suppress(ConnectionResetError):
        socket.create_connection(("127.0.0.1", server), timeout=5).close()
