"""An endpoint has several machines, more, one, and several again, behind a real HAProxy.

The first machine is never touched: it is the same contract, and its server has not restarted.
"""

from __future__ import annotations

import json
import os
import signal
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from components.on_host.key_gate import GUARDED
from tests.helpers.polling import eventually
from tests.helpers.ports import free_port
from tests.helpers.stack_fixtures import own_emulator
from tests.helpers.stack_world import Emulator, Stack, run
from tests.helpers.state_secrets import exported_in_clear
from tests.helpers.watched_stack import hurry, prometheus
from toolchain.day_two.dashboard.targets import targets
from toolchain.day_two.fleet import fleet_of

SETTINGS = {
    "model": "mistral-small-4-nvfp4-1xh200",
    "minReliability": "0.9",
    # A machine that goes would wait 20 seconds for clients who might come.
    "drainMinutes": 0,
    "metrics": True,
}

STAYS = ("endpoint_url", "api_key", "ca_certificate", "instance_id")
"""Outputs of several machines that their number does not change."""

emulator = own_emulator()


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def stack(emulator: Emulator, tmp_path: Path) -> Iterator[Stack]:
    own = Stack(tmp_path, emulator, "several", is_forked=True)
    # A computer without systemd, whichever this one is.
    (tmp_path / "bin").mkdir()
    systemctl = tmp_path / "bin/systemctl"
    systemctl.write_text("#!/bin/sh\nexit 1\n")
    systemctl.chmod(0o755)
    # A socket's path has room for a short folder alone.
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as routers:
        one = own.with_environment(
            {"PATH": f"{tmp_path / 'bin'}:{own.environment['PATH']}", "VASTVLLM_ROUTERS": routers}
        )
        yield one
        done = one.destroy()
        assert done.status == 0, done.outcome()
    assert emulator.status()["contracts"] == []


def brought_up(stack: Stack, **settings: Any) -> dict[str, Any]:
    stack.configure(**SETTINGS, **settings)
    done = stack.up()
    assert done.status == 0, done.outcome()
    assert "Traceback" not in done.output, done.outcome()
    machines = settings.get("replicas", 1)
    assert machines == 1 or f"{machines} machines, no two of them the same" in done.output
    return stack.outputs()


def servers(stack: Stack) -> dict[str, tuple[Any, ...]]:
    """By name of a machine: what must not change of one that nothing is done to."""
    found = {}
    for one in stack.state()["resources"]:
        if one["type"].endswith("vllm:Server"):
            name = one["urn"].split("::")[-1].removesuffix("-server")
            outs = one["outputs"]
            found[name] = (outs["instance_id"], outs["started_at"], outs["key_digest"])
    return found


def answer(known: dict[str, Any], *, key: str | None = None) -> httpx.Response:
    """What a client gets that trusts the stack's authority, and has its key unless told another."""
    return httpx.post(
        f"{known['endpoint_url']}/chat/completions",
        headers={"Authorization": f"Bearer {key or known['api_key']}"},
        json={
            "model": known["model"],
            "messages": [{"role": "user", "content": "Who is there?"}],
            "max_tokens": 1,
        },
        verify=ssl.create_default_context(cadata=known["ca_certificate"]),
        trust_env=False,
        timeout=30,
    )


def watch(stack: Stack) -> list[str]:
    """Ask each target of the dashboard for the whole table of routes; give the targets' roles."""
    found = targets(fleet_of(stack.name, exported_in_clear(stack.state(), stack.passphrase)))
    for one in found:
        named = {"sni_hostname": one.server_name} if one.server_name else {}
        with httpx.Client(
            base_url=f"https://{one.address}",
            verify=ssl.create_default_context(cadata=one.authorities),
            headers={"Authorization": f"Bearer {one.key}"},
            trust_env=False,
            timeout=30,
        ) as client:
            for path, method in GUARDED.items():
                answered = client.request(method, path, extensions=named)
                is_read = path == "/metrics"
                assert answered.status_code == (200 if is_read else 401), (one.name, path)
                counts = "haproxy_" if one.role == "router" else "vllm:num_requests_running"
                assert not is_read or counts in answered.text
    return [one.role for one in found]


def written_for_prometheus(stack: Stack) -> None:
    """Type the command, which prints no secret, and let a real Prometheus ask with its files."""
    command = ["python", "-m", "toolchain.day_two.dashboard", "--stack", stack.name]
    belongings = {"STACK_HOME": str(stack.folder / "belongings")}
    done = run([*command, "--account", "--json"], stack.environment | belongings, apart=True)
    assert done.status == 0, done.outcome()
    answer = json.loads(done.output)
    assert (answer["verdict"], answer["checked"], len(answer["targets"])) == ("well", True, 4)
    keys = [file.read_text() for file in Path(answer["folder"]).glob("*.key")]
    assert len(set(keys)) == 4
    assert not any(key in done.outcome() for key in keys)
    hurry(Path(answer["folder"]) / "prometheus.yml")
    with prometheus(Path(answer["folder"]), stack.folder) as running:
        eventually(lambda: running.up() == ["machine", "machine", "machine", "router"])


def ended_by_the_market(emulator: Emulator, contract: str) -> None:
    def is_gone() -> bool:
        answered = httpx.delete(
            f"{emulator.url}/api/v0/instances/{contract}/",
            params={"api_key": emulator.key},
            trust_env=False,
        )
        return answered.status_code == httpx.codes.OK

    eventually(is_gone)


def kill_router(stack: Stack) -> None:
    """Kill it as a crash would; without systemd nobody but the next `up` starts it."""
    (folder,) = (
        one["outputs"]["folder"]
        for one in stack.state()["resources"]
        if one["type"].endswith("router:Router")
    )
    os.kill(int((Path(folder) / "haproxy.pid").read_text()), signal.SIGKILL)


def contracts(emulator: Emulator) -> set[str]:
    return {str(one["id"]) for one in emulator.status()["contracts"]}


def test_from_several_machines_to_one_and_back(stack, emulator, port):
    two = brought_up(stack, replicas=2, routerPort=port)
    first = servers(stack)["endpoint"]
    assert two["endpoint_url"] == f"https://127.0.0.1:{port}/v1"
    assert answer(two).status_code == httpx.codes.OK
    assert two["release"]["proven"] is True
    assert len({one["machine_id"] for one in two["replicas"]}) == 2
    assert contracts(emulator) == {str(int(one["instance_id"])) for one in two["replicas"]}
    assert two["hourly_cost"] == pytest.approx(sum(one["hourly_cost"] for one in two["replicas"]))

    lost = servers(stack)["endpoint-r1"][0]
    ended_by_the_market(emulator, lost)
    kill_router(stack)
    three = brought_up(stack, replicas=3, routerPort=port)
    now = servers(stack)
    assert now["endpoint"] == first
    assert now.keys() == {"endpoint", "endpoint-r1", "endpoint-r2"}
    assert now["endpoint-r1"][0] != lost
    assert contracts(emulator) == {one[0] for one in now.values()}
    for name in STAYS:
        assert three[name] == two[name]
    assert answer(three).status_code == httpx.codes.OK
    assert watch(stack) == ["machine", "machine", "machine", "router"]
    written_for_prometheus(stack)

    alone = brought_up(stack, routerPort=port)
    assert servers(stack) == {"endpoint": first}
    assert contracts(emulator) == {first[0]}
    assert alone["ca_certificate"] == two["ca_certificate"]
    assert {"router", "replicas"}.isdisjoint(alone)
    assert answer(alone).status_code == httpx.codes.OK
    assert watch(stack) == ["machine"]
    assert alone["metrics_key"] not in {three["metrics_key"], three["api_key"], alone["api_key"]}
    with pytest.raises(httpx.ConnectError):
        answer(three)

    again = brought_up(stack, replicas=2, routerPort=port)
    assert servers(stack)["endpoint"] == first
    for name in STAYS:
        assert again[name] == two[name]
    assert answer(again).status_code == httpx.codes.OK
    assert answer(again, key=alone["api_key"]).status_code == httpx.codes.UNAUTHORIZED
    # Who still calls the first machine by its own address and key is served as before.
    assert answer(alone).status_code == httpx.codes.OK
