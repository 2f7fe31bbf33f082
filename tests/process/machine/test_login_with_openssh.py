"""Run the lines that docs/use.md has for a look inside, against a real SSH server.

`pulumi stack output` is a script that answers what the component's outputs would be.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.machine.login import known_hosts, ssh_command
from components.machine.ssh_library import asyncssh
from tests.helpers.documented import block
from tests.helpers.ssh_host import SshHost

PULUMI = """#!/bin/sh
[ "$1 $2" = "stack output" ] && cat "$ANSWERS/$3"
"""


def lines() -> str:
    return block("docs/use.md", "Look inside").rstrip()


class Person:
    """Whoever follows docs/use.md in a folder of their own."""

    def __init__(self, folder: Path, host: SshHost, key: asyncssh.SSHKey) -> None:
        self.folder = folder
        self._answers = folder / "answers"
        self._bin = folder / "bin"
        for place in (self._answers, self._bin):
            place.mkdir()
        (self._bin / "pulumi").write_text(PULUMI)
        (self._bin / "pulumi").chmod(0o755)
        ip, port = host.address.ip, host.address.port
        recorded = host.host_keys[0].export_public_key().decode().strip()
        self.answer("ssh_private_key", key.export_private_key().decode())
        self.answer("known_hosts", known_hosts(ip, port, recorded))
        self.answer("ssh_command", ssh_command(ip, port))

    def answer(self, output: str, value: str) -> None:
        (self._answers / output).write_text(f"{value}\n")

    def log_in(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run README's lines and, in place of a shell to type in, `command` there."""
        return subprocess.run(
            ["bash", "-euc", f"{lines()} {command}"],
            cwd=self.folder,
            env={
                "PATH": f"{self._bin}:{os.environ['PATH']}",
                "ANSWERS": str(self._answers),
                "SSH_AUTH_SOCK": str(self.folder / "agent"),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            text=True,
            timeout=60,
        )


@pytest.fixture
def key() -> asyncssh.SSHKey:
    return asyncssh.generate_private_key("ssh-ed25519")


@pytest.fixture
def host(tmp_path: Path, key: asyncssh.SSHKey) -> Iterator[SshHost]:
    home = tmp_path / "host"
    home.mkdir()
    with SshHost(home, key) as host:
        yield host


@pytest.fixture
def person(tmp_path: Path, host: SshHost, key: asyncssh.SSHKey) -> Person:
    return Person(tmp_path, host, key)


def test_the_lines_let_one_in(person, host):
    done = person.log_in("'echo $((6 * 7)); env'")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "42"
    assert "SSH_AUTH_SOCK" not in done.stdout
    assert host.logins == 1
    assert (person.folder / "stack.key").stat().st_mode & 0o077 == 0


def test_another_host_is_refused_before_a_login_begins(person, host):
    host.close()
    host.host_keys = [asyncssh.generate_private_key("ssh-ed25519")]
    host.listen()
    done = person.log_in("true")
    assert done.returncode == 255
    assert "Host key verification failed" in done.stderr
    assert host.logins == 0


def test_a_host_whose_key_was_not_recorded_is_refused(person, host):
    person.answer("known_hosts", "")
    done = person.log_in("true")
    assert done.returncode == 255
    assert "Host key verification failed" in done.stderr
    assert host.logins == 0


def test_a_key_that_a_host_shows_is_not_learned(person):
    person.log_in("true")
    before = (person.folder / "answers/known_hosts").read_text()
    assert (person.folder / "stack.known").read_text() == before
