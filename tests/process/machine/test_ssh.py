from __future__ import annotations

import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.core.display import LONGEST_LINE
from components.machine import ssh as module
from components.machine.ssh import MOST_BYTES, SshClient
from components.machine.ssh_commands import log_command
from components.machine.ssh_library import asyncssh
from components.machine.ssh_types import (
    CommandFailed,
    HostAddress,
    HostKeyChanged,
    HostUnreachable,
    LoginRefused,
    Nonsense,
)
from tests.helpers.ssh_host import SshHost

KEY = asyncssh.generate_private_key("ssh-ed25519")
PRIVATE = KEY.export_private_key().decode()
SECRET = "hf_notarealtokenatall"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SshHost]:
    with SshHost(tmp_path, KEY) as server:
        yield server


@pytest.fixture
def host(server: SshHost) -> Iterator[SshClient]:
    with SshClient(server.address, PRIVATE, secrets=[SECRET]) as host:
        yield host


def test_runs_a_command_to_its_end(host: SshClient) -> None:
    result = host.run("cat; echo to-stderr >&2; exit 3", stdin="zażółć")

    assert (result.exit_status, result.stdout, result.stderr) == (3, "zażółć", "to-stderr\n")


def test_commands_share_one_connection_also_between_threads(
    host: SshClient, server: SshHost
) -> None:
    host.run("true")
    said: list[str] = []
    thread = threading.Thread(target=lambda: said.append(host.run("echo there").stdout))
    thread.start()
    thread.join()

    assert said == ["there\n"]
    assert server.logins == 1


def test_first_contact_records_the_host_key(host: SshClient, server: SshHost) -> None:
    assert host.host_key is None

    seen = host.connect()

    line = server.host_keys[0].export_public_key().decode()
    assert seen == host.host_key == " ".join(line.split()[:2])


def test_recorded_host_key_is_accepted_with_its_comment(server: SshHost) -> None:
    line = server.host_keys[0].export_public_key().decode().strip() + " a comment"
    with SshClient(server.address, PRIVATE, known_host_key=line) as host:
        assert host.run("echo in").stdout == "in\n"


def test_of_several_host_keys_the_recorded_kind_is_asked_for(server: SshHost) -> None:
    rsa = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
    server.close()
    server.host_keys.append(rsa)
    server.listen()
    recorded = rsa.export_public_key().decode()
    with SshClient(server.address, PRIVATE, known_host_key=recorded) as host:
        assert host.run("echo in").stdout == "in\n"


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ecdsa-sha2-nistp256"])
def test_another_host_key_is_refused(server: SshHost, kind: str) -> None:
    recorded = asyncssh.generate_private_key(kind).export_public_key().decode()
    with (
        SshClient(server.address, PRIVATE, known_host_key=recorded) as host,
        pytest.raises(HostKeyChanged, match="recorded at first contact"),
    ):
        host.run("echo in")
    assert server.logins == 0


def test_first_contact_binds_the_calls_after_it(server: SshHost, host: SshClient) -> None:
    host.connect()
    server.close()
    server.host_keys[:] = [asyncssh.generate_private_key("ssh-ed25519")]
    server.listen()

    with pytest.raises(HostKeyChanged):
        host.run("true")


def test_a_key_that_is_not_taken(server: SshHost) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode()
    with (
        SshClient(server.address, other) as host,
        pytest.raises(LoginRefused, match=f"{server.address} does not take") as caught,
    ):
        host.run("true")
    assert other not in str(caught.value)


def test_nobody_listens(server: SshHost, host: SshClient) -> None:
    server.close()

    with pytest.raises(HostUnreachable, match="refuses the connection") as caught:
        host.run("true")
    assert caught.value.reason == "refused"


def test_somebody_listens_and_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = HostAddress("127.0.0.1", silent.getsockname()[1])
        with (
            SshClient(address, PRIVATE, connect_timeout=0.2) as host,
            pytest.raises(HostUnreachable, match="does not answer") as caught,
        ):
            host.run("true")
    assert caught.value.reason == "timed_out"


def test_somebody_listens_and_hangs_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as rude:

        def hang_up() -> None:
            rude.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with (
            SshClient(HostAddress("127.0.0.1", rude.getsockname()[1]), PRIVATE) as host,
            pytest.raises(HostUnreachable) as caught,
        ):
            host.run("true")
        thread.join()
    assert caught.value.reason == "closed"


def test_a_connection_lost_between_calls_is_opened_anew(server: SshHost, host: SshClient) -> None:
    host.run("true")
    server.break_connections()

    assert host.run("echo again").stdout == "again\n"
    assert server.logins == 2


def test_a_connection_lost_during_a_call(server: SshHost, host: SshClient) -> None:
    fifo = server.home / "started"
    os.mkfifo(fifo)

    def break_when_started() -> None:
        fifo.read_text()
        server.break_connections()

    thread = threading.Thread(target=break_when_started)
    thread.start()
    with pytest.raises(HostUnreachable) as caught:
        host.run("echo > started; sleep 60")
    thread.join()

    assert caught.value.reason == "closed"
    assert host.run("echo again").stdout == "again\n"


def test_a_command_that_takes_too_long(host: SshClient) -> None:
    with pytest.raises(CommandFailed, match=r"'sleep 60; echo \*\*\*' .* did not end within 0.2 s"):
        host.run(f"sleep 60; echo {SECRET}", timeout=0.2)
    assert host.run("echo again").stdout == "again\n"


def test_puts_files_with_their_modes(server: SshHost, host: SshClient) -> None:
    host.put({"environment": (b"A=1\n", 0o600), "tls/extra/x.sh": (b"#!/bin/sh\n", 0o755)})

    environment = server.home / "serving" / "environment"
    script = server.home / "serving" / "tls" / "extra" / "x.sh"
    assert environment.read_bytes() == b"A=1\n"
    assert stat.S_IMODE(environment.stat().st_mode) == 0o600
    assert script.read_bytes() == b"#!/bin/sh\n"
    assert stat.S_IMODE(script.stat().st_mode) == 0o755
    assert list((server.home / "serving").glob(".incoming*")) == []


def test_a_file_is_replaced_not_written_over(server: SshHost, host: SshClient) -> None:
    host.put({"allowed_keys": (b"old\n", 0o600)})
    path = server.home / "serving" / "allowed_keys"
    with path.open() as opened_before:
        host.put({"allowed_keys": (b"new\n", 0o600)})
        assert opened_before.read() == "old\n"
    assert path.read_text() == "new\n"


def test_a_put_that_fails_leaves_what_stood_there(server: SshHost, host: SshClient) -> None:
    host.put({"serve.yaml": (b"old\n", 0o644), "taken": (b"", 0o644)})

    with pytest.raises(CommandFailed, match=f"on host {server.address} ended with"):
        host.put({"taken/below-a-file": (b"x", 0o644), "serve.yaml": (b"new\n", 0o644)})

    assert (server.home / "serving" / "serve.yaml").read_text() == "old\n"
    assert list((server.home / "serving").glob(".incoming*")) == []


def test_a_put_removes_what_one_that_was_cut_off_long_ago_left(
    server: SshHost, host: SshClient
) -> None:
    """It has secrets; one that runs beside this one keeps its own."""
    left, beside = (server.home / "serving" / f".incoming.{name}" for name in ("left", "beside"))
    for folder in (left, beside):
        folder.mkdir(parents=True)
        (folder / "environment").write_text(SECRET)
    long_ago = time.time() - 3600
    os.utime(left, (long_ago, long_ago))

    host.put({"environment": (b"", 0o600)})

    assert not left.exists()
    assert (beside / "environment").exists()


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "a b", "$(id)", ""])
def test_puts_nothing_outside_its_folder(host: SshClient, server: SshHost, name: str) -> None:
    with pytest.raises(ValueError, match="not a path under the serving folder"):
        host.put({name: (b"x", 0o644)})
    assert server.logins == 0


@pytest.fixture
def log(server: SshHost) -> Path:
    (server.home / "serving").mkdir()
    return server.home / "serving" / "vllm.log"


def test_a_log_is_read_on_from_where_it_was_left(host: SshClient, log: Path) -> None:
    assert host.read_log("vllm.log", 0) == ("", 0)
    log.write_text("first\n")
    assert host.read_log("vllm.log", 0) == ("first\n", 6)
    assert host.read_log("vllm.log", 6) == ("", 6)
    log.write_text("first\nsecond\n")
    assert host.read_log("vllm.log", 6) == ("second\n", 13)


def test_a_log_that_was_emptied_is_read_from_its_start(host: SshClient, log: Path) -> None:
    log.write_text("new\n")
    assert host.read_log("vllm.log", 5000) == ("new\n", 4)


def test_a_character_cut_in_two_waits_for_its_other_half(host: SshClient, log: Path) -> None:
    log.write_bytes("a█".encode()[:2])
    assert host.read_log("vllm.log", 0) == ("a", 1)
    log.write_bytes("a█".encode())
    assert host.read_log("vllm.log", 1) == ("█", 4)


def test_a_log_of_any_bytes_is_read_in_pieces(host: SshClient, log: Path) -> None:
    log.write_bytes(b"\xff\xfe" + b"x" * 997 + b"\n" + (b"x" * 999 + b"\n") * 1_499)
    text, offset = host.read_log("vllm.log", 0)
    assert (text[:3], len(text), offset) == ("\ufffd\ufffdx", 1_048_576, 1_048_576)
    rest, offset = host.read_log("vllm.log", offset)
    assert (len(rest), offset) == (1_500_000 - 1_048_576, 1_500_000)


def test_a_line_of_a_log_is_cut_before_anything_is_made_of_it(host: SshClient, log: Path) -> None:
    log.write_bytes(b"a" * 100_000 + b"\nb\n")
    text, offset = host.read_log("vllm.log", 0)
    assert [len(line) for line in text.split("\n")] == [LONGEST_LINE, 1, 0]
    assert offset == 100_003


def test_an_escape_sequence_cut_in_two_waits_for_its_other_half(host: SshClient, log: Path) -> None:
    log.write_bytes(b"a\x1b[3")
    assert host.read_log("vllm.log", 0) == ("a", 1)
    log.write_bytes(b"a\x1b[31mb\x1b]0;ti")
    assert host.read_log("vllm.log", 1) == ("b", 7)
    log.write_bytes(b"a\x1b[31mb\x1b]0;title\x07c\r\nd\re")
    assert host.read_log("vllm.log", 7) == ("c\nd\ne", 23)


def test_what_is_printed_is_lines_fit_to_be_shown(host: SshClient) -> None:
    done = host.run(r"printf '##[x]\n::y\033]0;t\007\n\342\200\256z\n'; printf '\2332J' >&2")
    assert done.stdout == "# #[x]\n: :y\nz\n"
    assert done.stderr == "\ufffd2J"


def test_a_command_that_prints_too_much_is_ended(host: SshClient) -> None:
    with pytest.raises(CommandFailed, match=f"'yes.*' .* prints more than {MOST_BYTES} bytes"):
        host.run("yes | head -c 3000000", timeout=20)
    assert host.run("echo again").stdout == "again\n"


@pytest.mark.parametrize(
    "printed", ["abc", "", "7", "-1", "0x1", "9" * 5000, "\u0661", "1\u0660", "1e3"]
)
def test_a_host_that_gives_no_piece_of_a_log(
    host: SshClient, log: Path, printed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = log_command
    log.write_text("x" * 5000)
    # The client's own command, of which the host runs something else.
    shadow = f"echo() {{ printf '%s\\n' '{printed}'; }}; "
    monkeypatch.setattr(module, "log_command", lambda name, at: shadow + genuine(name, at))
    with pytest.raises(Nonsense, match=r"gives no piece of vllm\.log"):
        host.read_log("vllm.log", 3)


@pytest.mark.parametrize(
    "line",
    [
        *(
            "phase_since=99999999999999",
            "phase_since=abc",
            "downloaded_kb=1e999",
            "last_exit=\u00b2",
        ),
        *("supervisor=perhaps", "config_digest=short", "companion_revisions=" + "a@" * 500),
        *("resolved_revision=$(id)", "restarts=-1", "server_pid=" + "9" * 5000),
    ],
)
def test_a_status_that_cannot_be(host: SshClient, line: str) -> None:
    host.put({"supervise.sh": (f"cat <<'END'\n{line}\nEND\n".encode(), 0o755)})
    with pytest.raises(Nonsense, match=f"says {line[:7]}.*which it never does"):
        host.status()


def test_status_is_read_from_the_supervisor(host: SshClient) -> None:
    script = b'echo supervisor=running; echo "phase=$1"; echo noise; echo new=1; echo reason=\n'
    host.put({"supervise.sh": (script, 0o755)})
    assert host.status() == {"supervisor": "running", "phase": "status", "reason": ""}


def test_status_without_a_word_of_the_supervisor(host: SshClient) -> None:
    host.put({"supervise.sh": (b"echo hello\n", 0o755)})
    with pytest.raises(Nonsense, match="says nothing of the supervisor, but 'hello"):
        host.status()


def test_status_where_no_supervisor_is(host: SshClient) -> None:
    with pytest.raises(CommandFailed, match=r"supervise.sh.* ended with"):
        host.status()


def test_no_secret_leaves_in_an_error(host: SshClient) -> None:
    complaint = f"echo 'denied: {SECRET}' >&2; exit 1".encode()
    host.put({"supervise.sh": (complaint, 0o755)})
    with pytest.raises(CommandFailed) as caught:
        host.status()
    assert "denied: ***" in str(caught.value)
    assert SECRET not in repr(caught.value)


def test_shows_no_key(host: SshClient, server: SshHost) -> None:
    assert repr(host) == f"SshClient({server.address})"
