"""What `HostClient` promises: the client over SSH to a real server, and the fakes of the scenes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncssh
import pytest

from components.core.record import Record, entries
from components.machine.recorded_ssh import RecordedSshClient
from components.machine.ssh import SshClient
from components.machine.ssh_types import FOLDER, HostAddress, HostClient, HostUnreachable
from tests.helpers import readiness_scene, server_scene
from tests.helpers.fakes import VirtualClock
from tests.helpers.places import ROOT
from tests.helpers.ssh_host import SshHost

KEY = asyncssh.generate_private_key("ssh-ed25519")
SCRIPTS = ROOT / "components/on_host"
AWAY = HostUnreachable(HostAddress("203.0.113.1", 22), "closed")


@dataclasses.dataclass(frozen=True)
class Host:
    """A host on which nothing was started."""

    client: HostClient
    write: Callable[[str], None]
    """Let `vllm.log` hold this, and nothing else."""
    go_away: Callable[[], None]


def of_the_client(folder: Path) -> Iterator[Host]:
    log = folder / FOLDER / "vllm.log"
    log.parent.mkdir(parents=True)
    private = KEY.export_private_key().decode()

    def write(text: str) -> None:
        log.write_text(text)

    with SshHost(folder, KEY) as server, SshClient(server.address, private) as client:
        yield Host(client, write, server.close)


def of_the_recording_client(folder: Path) -> Iterator[Host]:
    log = folder / FOLDER / "vllm.log"
    log.parent.mkdir(parents=True)
    private = KEY.export_private_key().decode()
    record = Record(folder / "record", VirtualClock(), print)

    def write(text: str) -> None:
        log.write_text(text)

    with (
        SshHost(folder, KEY) as server,
        RecordedSshClient(server.address, private, record=record) as client,
    ):
        yield Host(client, write, server.close)


def of_the_fake_of_servers(_: Path) -> Iterator[Host]:
    fake = server_scene.FakeHost(VirtualClock())
    yield Host(
        fake,
        lambda text: setattr(fake, "log", text),
        lambda: setattr(fake, "unreachable", True),
    )


def of_the_fake_of_waits(_: Path) -> Iterator[Host]:
    fake = readiness_scene.FakeHost(VirtualClock())
    fake.logs.clear()
    yield Host(
        fake,
        lambda text: fake.logs.update({"vllm.log": [(0.0, text)]}),
        lambda: fake.failures.append((0.0, 1e9, AWAY)),
    )


@pytest.fixture(
    params=[of_the_client, of_the_recording_client, of_the_fake_of_servers, of_the_fake_of_waits],
    ids=lambda made: made.__name__.removeprefix("of_the_"),
)
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    yield from request.param(tmp_path)


@pytest.fixture(
    params=[of_the_client, of_the_recording_client, of_the_fake_of_servers],
    ids=lambda made: made.__name__.removeprefix("of_the_"),
)
def host_with_files(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    yield from request.param(tmp_path)


def test_a_log_that_is_not_there_is_empty(host: Host) -> None:
    assert host.client.read_log("other.log", 0) == ("", 0)


def test_a_log_is_read_on_in_bytes_and_anew_when_it_was_emptied(host: Host) -> None:
    host.write("zażółć\n")
    text, offset = host.client.read_log("vllm.log", 0)
    assert (text, offset) == ("zażółć\n", 11)
    host.write("zażółć\nand on\n")
    assert host.client.read_log("vllm.log", offset) == ("and on\n", 18)
    assert host.client.read_log("vllm.log", 18) == ("", 18)
    host.write("anew\n")
    assert host.client.read_log("vllm.log", 18) == ("anew\n", 5)


def test_a_host_that_is_away_is_an_error_of_each_call(host: Host) -> None:
    host.go_away()
    with pytest.raises(HostUnreachable):
        host.client.read_log("vllm.log", 0)
    with pytest.raises(HostUnreachable):
        host.client.status()
    with pytest.raises(HostUnreachable):
        host.client.run("true")


def test_files_are_put_each_over_what_was_there(host_with_files: Host) -> None:
    client = host_with_files.client
    client.put({"a.env": (b"one\n", 0o600), "b.env": (b"two\n", 0o600)})
    client.put({"a.env": (b"three\n", 0o600)})
    assert client.read_log("a.env", 0)[0] == "three\n"
    assert client.read_log("b.env", 0)[0] == "two\n"


@pytest.mark.parametrize("name", ["../outside", "/etc/outside"])
def test_nothing_is_put_outside_of_the_folder(host_with_files: Host, name: str) -> None:
    with pytest.raises(ValueError, match="outside"):
        host_with_files.client.put({name: (b"", 0o600)})


def test_a_supervisor_that_was_not_started_is_stopped(host_with_files: Host) -> None:
    client = host_with_files.client
    names = ("supervise.sh", "prefetch.sh")
    client.put({name: ((SCRIPTS / name).read_bytes(), 0o700) for name in names})
    found = client.status()
    assert (found["supervisor"], found["phase"]) == ("stopped", "stopped")


def test_a_recorded_log_is_kept_piece_by_piece_without_a_secret(tmp_path):
    log = tmp_path / FOLDER / "vllm.log"
    log.parent.mkdir(parents=True)
    log.write_text("starts with hf_the-token\n")
    private = KEY.export_private_key().decode()
    record = Record(tmp_path / "record", VirtualClock(), print)
    with SshHost(tmp_path, KEY) as server:
        address = server.address
        with RecordedSshClient(
            address, private, record=record, secrets=("hf_the-token",)
        ) as client:
            _, offset = client.read_log("vllm.log", 0)
            client.read_log("vllm.log", offset)
            log.write_text("starts with hf_the-token\nand goes on\n")
            client.read_log("vllm.log", offset)
            client.run("echo not kept", timeout=10)
    first, second = entries(tmp_path / "record")
    assert (first["kind"], first["name"], first["offset"]) == ("log", "vllm.log", 0)
    assert first["text"] == "starts with ***\n"
    assert (second["offset"], second["text"]) == (offset, "and goes on\n")
    assert first["host"] == str(address)
