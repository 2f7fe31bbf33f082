"""The loop on a stack of the emulator: another replica under load, a locked stack, and back."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from components.outputs import unfolded
from components.scaling.running import LEASE_HOURS, VARIABLE, Extras, Lease
from tests.helpers.places import ROOT
from tests.helpers.ports import free_port
from tests.helpers.stack_fixtures import own_emulator
from tests.helpers.stack_world import LEAN, PATH, Done, Emulator, ending_with_us, run
from tests.helpers.state_secrets import outputs_of
from toolchain.scale.memory import Memory
from toolchain.scale.situation import Reading

PASSPHRASE = "a passphrase of this test alone"

SETTINGS = {
    "model": "mistral-small-4-nvfp4-1xh200",
    "minReliability": "0.9",
    # A machine that goes would wait 20 seconds for clients who might come.
    "drainMinutes": 0,
    "replicasMax": 2,
}

emulator = own_emulator()


class LocalStack:
    """The stack `local`, as `make` has it on an emulator."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self.home = home
        self.environment = environment
        self.memory = home / "memory.json"

    def command(self, *words: str) -> Done:
        """Run one of the project's commands on the emulator."""
        return run(["python", "-m", "toolchain.on_emulator", *words], self.environment)

    def turn(self, *readings: Reading) -> Done:
        """Play one turn of the loop after these readings."""
        self.memory.write_text(Memory(readings=readings).model_dump_json())
        words = ["--budget", "100000/day", "--once", "--sessions", "1"]
        memory = ["--memory", str(self.memory)]
        return run(["python", "-m", "toolchain.scale", *words, *memory], self.environment)

    def checkpoint(self) -> dict[str, Any]:
        """The state as it lies on the disk."""
        file = self.home / "state/.pulumi/stacks/vast-vllm/local.json"
        return dict(json.loads(file.read_text())["checkpoint"])

    def resources(self, kind: str) -> dict[str, dict[str, Any]]:
        """Outputs of the resources of a type, by name."""
        found = self.checkpoint()["latest"]["resources"]
        return {
            one["urn"].split("::")[-1]: one["outputs"]
            for one in found
            if one["type"].endswith(kind)
        }

    def outputs(self) -> dict[str, Any]:
        """The stack's, with its secrets."""
        return unfolded(outputs_of(self.checkpoint(), PASSPHRASE))

    def configuration(self) -> dict[str, str]:
        """What Pulumi reads as configuration, and what is committed."""
        files = [self.home / "stacks/Pulumi.local.yaml", ROOT / "Pulumi.local.yaml"]
        return {str(file): file.read_text() for file in files}

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Let somebody else work on the stack."""
        lock = self.home / "state/.pulumi/locks/organization/vast-vllm/local/somebody.json"
        lock.parent.mkdir(parents=True, exist_ok=True)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60))
        holder = {"pid": os.getpid(), "username": "x", "hostname": socket.gethostname()}
        lock.write_text(json.dumps({**holder, "timestamp": now}))
        yield
        lock.unlink()


@pytest.fixture
def stack(emulator: Emulator, tmp_path: Path) -> Iterator[LocalStack]:
    for part in ("state", "home", "emulated", "bin"):
        (tmp_path / part).mkdir()
    (tmp_path / "home/plugins").symlink_to(ROOT / ".tools/home/plugins")
    (tmp_path / "passphrase").write_text(PASSPHRASE)
    # A computer without systemd, whichever this one is.
    systemctl = tmp_path / "bin/systemctl"
    systemctl.write_text("#!/bin/sh\nexit 1\n")
    systemctl.chmod(0o755)
    settings = SETTINGS | {"routerPort": free_port()}
    config = {f"vast-vllm:{key}": value for key, value in settings.items()}
    (tmp_path / "emulated/Pulumi.local.yaml").write_text(yaml.safe_dump({"config": config}))
    # A socket's path has room for a short folder alone.
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as routers:
        environment = {
            "PATH": f"{tmp_path / 'bin'}:{PATH}",
            "HOME": str(tmp_path),
            "GOGC": LEAN["GOGC"],
            "STACK_HOME": str(tmp_path),
            "EMULATOR_HOME": str(emulator.folder / "emulator"),
            "VASTVLLM_ROUTERS": routers,
            "NO_COLOR": "1",
        }
        local = LocalStack(tmp_path, environment)
        yield local
        done = local.command("destroy")
        assert done.status == 0, done.outcome()
    assert emulator.status()["contracts"] == []


def past(minutes: int, *, waiting: float, serving: int) -> tuple[Reading, ...]:
    """Readings of the last minutes, five minutes apart, and none of now."""
    now = time.time()
    return tuple(
        Reading(at=now - 60.0 * ago, waiting=waiting, running=0.0, serving=serving)
        for ago in range(minutes, 0, -5)
    )


@contextlib.contextmanager
def asked_by(clients: int, known: dict[str, Any]) -> Iterator[None]:
    """Have so many answers in the middle of their streams."""
    context = ssl.create_default_context(cadata=known["ca_certificate"])
    with contextlib.ExitStack() as open_ones:
        for number in range(clients):
            client = open_ones.enter_context(
                httpx.Client(verify=context, trust_env=False, timeout=60)
            )
            answer = open_ones.enter_context(
                client.stream(
                    "POST",
                    f"{known['endpoint_url']}/chat/completions",
                    headers={"Authorization": f"Bearer {known['api_key']}"},
                    json={
                        "model": known["model"],
                        "messages": [{"role": "user", "content": f"Question {number}"}],
                        "stream": True,
                        "max_tokens": 64,
                        "vllm_xargs": {"emulator_pause_seconds": 20},
                    },
                )
            )
            assert answer.status_code == httpx.codes.OK
        yield


def rents_another_under_load(stack: LocalStack) -> None:
    one = stack.outputs()
    assert len(one["replicas"]) == 1
    assert stack.resources("scaling:Scale")["endpoint-scale"]["extras"] == {}
    with asked_by(8, one):
        turn = stack.turn(*past(20, waiting=9, serving=1))
    assert turn.status == 0, turn.outcome()
    assert re.search(
        r" UTC  1 to 2 replicas: more than 4 requests have waited for 10 minutes \(7 now\) ",
        turn.output,
    ), turn.outcome()
    assert turn.output.count("\n") == 1
    two = stack.outputs()
    assert len(two["replicas"]) == 2
    for key in ("endpoint_url", "api_key", "instance_id"):
        assert two[key] == one[key]
    # The machine ends itself unless somebody extends its lease, and the first one does not.
    machines = stack.resources("vast:Instance")
    assert machines["endpoint-instance"]["ends_itself_at"] == 0
    assert machines["endpoint-r1-instance"]["leash"]["time_to_live_hours"] == LEASE_HOURS
    assert 0 < machines["endpoint-r1-instance"]["ends_itself_at"] - time.time() < LEASE_HOURS * 3600


def extends_its_lease_in_place(stack: LocalStack) -> None:
    """As if two and a half hours had passed; nothing restarts."""
    served, before = stack.resources("vllm:Server"), stack.resources("vast:Instance")
    lease = Lease(since=time.time() - 2.5 * 3600, hours=LEASE_HOURS)
    order = Extras(endpoint="endpoint", leases={1: lease}).model_dump_json()
    up = ["python", "-m", "toolchain.on_emulator", "up"]
    aged = run(up, {**stack.environment, VARIABLE: order})
    assert aged.status == 0, aged.outcome()
    turn = stack.turn()
    assert turn.status == 0, turn.outcome()
    assert "2 replicas stay" in turn.output
    assert "; replica 1 may live longer" in turn.output
    name = "endpoint-r1-instance"
    extended = stack.resources("vast:Instance")[name]
    assert extended["leash"]["time_to_live_hours"] == pytest.approx(2.5 + LEASE_HOURS, abs=0.1)
    later = extended["ends_itself_at"] - before[name]["ends_itself_at"]
    assert later == pytest.approx(2.5 * 3600, abs=360)
    for server, outputs in stack.resources("vllm:Server").items():
        assert outputs["started_at"] == served[server]["started_at"]


def skips_a_locked_stack_and_then_ends_one(stack: LocalStack) -> None:
    calm = past(65, waiting=0, serving=2)
    first, _ = stack.outputs()["replicas"]
    with stack.locked():
        turn = stack.turn(*calm)
    assert turn.status == 0, turn.outcome()
    assert "skipped: the stack local is at work" in turn.output
    assert "it was to be: 2 to 1 replicas: 1 could have carried the load" in turn.output
    assert len(stack.outputs()["replicas"]) == 2
    turn = stack.turn(*calm)
    assert turn.status == 0, turn.outcome()
    assert " UTC  2 to 1 replicas: 1 could have carried the load for 60 minutes" in turn.output
    (left,) = stack.outputs()["replicas"]
    assert left["instance_id"] == first["instance_id"]


def ends_at_ctrl_c_between_two_turns(stack: LocalStack) -> None:
    loop = subprocess.Popen(
        ending_with_us(["python", "-m", "toolchain.scale", "--budget", "9/day"]),
        cwd=ROOT,
        env=stack.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert loop.stdout is not None
    assert loop.stdout.readline().startswith("1 to 2 replicas of the stack local, for at most $9 a")
    assert "UTC  1 replica stays" in loop.stdout.readline()
    loop.send_signal(signal.SIGINT)
    said, _ = loop.communicate(timeout=60)
    assert loop.returncode == 130, said
    assert re.match(r"the loop has ended; \$\d+\.\d\d/h is billed for 1 of the stack's mach", said)
    assert "Traceback" not in said


def test_the_loop_has_another_replica_while_it_is_needed_and_writes_no_configuration(stack):
    up = stack.command("up")
    assert up.status == 0, up.outcome()
    configuration = stack.configuration()
    rents_another_under_load(stack)
    # Nobody's own `up` changes the number.
    unchanged = stack.command("pulumi", "preview", "--expect-no-changes")
    assert unchanged.status == 0, unchanged.outcome()
    assert "2 of at most 2 replicas run (replicasMax)" in unchanged.output
    extends_its_lease_in_place(stack)
    skips_a_locked_stack_and_then_ends_one(stack)
    ends_at_ctrl_c_between_two_turns(stack)
    assert stack.configuration() == configuration
