"""A router as its resource runs it: on this computer or over SSH, in front of real members."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import shutil
import socket
import ssl
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil

from components.core.clock import SystemClock
from components.core.progress import Progress
from components.machine.own_computer import OwnComputer
from components.machine.ssh_library import asyncssh
from components.router import installation, upkeep
from components.router.access import Access, Limits
from components.router.asking import HttpsRouter
from components.router.state import RouterRequest, RouterState, Signer, WantedMember, url_of
from tests.helpers.gates import bearer
from tests.helpers.router_requests import request
from tests.helpers.router_world import (
    AUTHORITY,
    STACK_KEY,
    Machines,
    Server,
    haproxy_command,
)
from tests.helpers.ssh_host import SshHost
from toolchain.scale_out.loopback import LOOPBACK, WITHIN

SHORT = Limits(look=0.05, proof=10.0, back=5.0, checks=10.0, stop=2.0, end=20.0)

NO_SYSTEMD = "#!/bin/sh\nexit 1\n"
"""A `systemctl` of a computer that was not started by systemd."""


def member(server: Server) -> WantedMember:
    """As the router is told of a machine."""
    return WantedMember(str(server.contract), LOOPBACK, server.port)


class Shifted(SystemClock):
    """A clock that is wrong by some seconds."""

    def __init__(self, by: float) -> None:
        self._by = by

    def epoch(self) -> float:
        return super().epoch() + self._by


class Scene:
    """A computer for routers, machines, and what was said."""

    def __init__(self, folder: Path, machines: Machines) -> None:
        self.folder = folder
        self.machines = machines
        self.said: list[str] = []
        self.host = ""
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.environment = {
            "HOME": str(folder),
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "VASTVLLM_ROUTERS": str(folder / "routers"),
        }
        self.command("systemctl", NO_SYSTEMD)
        self._random = itertools.count(1)
        self._reserved = socket.socket()
        # HAProxy binds with the same option, and nobody else meanwhile.
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._reserved.bind((LOOPBACK, 0))
        self.port = int(self._reserved.getsockname()[1])

    def command(self, name: str, script: str) -> Path:
        """Let the computer have a command."""
        path = self.bin / name
        path.write_text(script)
        path.chmod(0o755)
        return path

    def access(self, **changes: Any) -> Access:
        """What the procedures reach this scene by."""
        clock = SystemClock()
        plain = Access(
            connect=lambda host: OwnComputer(host, self.environment),
            ask=lambda url, authorities, identity: HttpsRouter(url, authorities, identity, clock),
            clock=clock,
            progress=Progress("router", clock, self.said.append),
            program_here=self.environment.get("VASTVLLM_HAPROXY", haproxy_command()),
            random_text=lambda: f"owner-{next(self._random)}",
            limits=SHORT,
        )
        return dataclasses.replace(plain, **changes)

    def wanted(self, *servers: Server, **changes: Any) -> RouterRequest:
        """What a stack with these machines asks for."""
        authorities = {
            "authorities": AUTHORITY.certificate,
            "signer": Signer(AUTHORITY.key, AUTHORITY.certificate),
        }
        wanted = request(self.port, *map(member, servers), host=self.host, **authorities)
        return dataclasses.replace(wanted, **changes)

    def servers(self, *contracts: int) -> list[Server]:
        """Machines that serve."""
        return [self.machines.add(contract) for contract in contracts]

    def up(
        self, wanted: RouterRequest, state: RouterState | None = None, **changes: Any
    ) -> RouterState:
        """Do what an `up` does; the state goes through its property bag."""
        made = installation.install(wanted, state, self.access(**changes))
        return RouterState.from_bag(made.to_bag())

    def refreshed(self, state: RouterState) -> RouterState:
        """Do what a refresh does."""
        return upkeep.refreshed(state, self.access())

    def down(self, state: RouterState, **changes: Any) -> None:
        """Do what `destroy` does."""
        upkeep.end(state, self.access(**changes))

    def client(self, state: RouterState, key: str = STACK_KEY) -> httpx.Client:
        """A client of the router."""
        context = ssl.create_default_context(cadata=state.request.authorities)
        return httpx.Client(
            base_url=url_of(state.request.address, state.request.port),
            verify=context,
            headers=bearer(key) if key else {},
            timeout=WITHIN,
            trust_env=False,
        )

    def master(self, state: RouterState) -> psutil.Process:
        """The router's first process."""
        return psutil.Process(int((Path(state.folder) / "haproxy.pid").read_text().split()[0]))

    def end(self) -> None:
        """End each router of this scene, whatever became of it."""
        for process in psutil.process_iter(["cmdline"]):
            if any(f"{self.folder}/" in word for word in process.info["cmdline"] or ()):
                with contextlib.suppress(psutil.Error):
                    process.kill()
        self._reserved.close()


@contextlib.contextmanager
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A computer in a folder whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="rt-", dir="/tmp") as name, Machines(tmp_path) as made:
        found = Scene(Path(name), made)
        try:
            yield found
        finally:
            found.end()


@contextlib.contextmanager
def over_ssh(found: Scene) -> Iterator[SshHost]:
    """Let the scene's routers run behind a real SSH server; `ssh` is the real one as well.

    `ssh` reads the user's own configuration wherever `HOME` is, so it is named another one here.
    """
    ssh = shutil.which("ssh")
    assert ssh, "the program `ssh` is needed"
    key = asyncssh.generate_private_key("ssh-ed25519")
    home = found.folder / "h"
    home.mkdir()
    with SshHost(home, key, {"PATH": found.environment["PATH"]}) as host:
        (found.folder / "key").write_bytes(key.export_private_key())
        (found.folder / "key").chmod(0o600)
        write_ssh(found, host, ssh, host.host_keys[:1])
        found.host = "root@router.test"
        yield host


def write_ssh(found: Scene, host: SshHost, ssh: str, known: Sequence[asyncssh.SSHKey]) -> None:
    """Write the configuration of a user, who knows these host keys."""
    lines = [f"router.test {key.export_public_key().decode()}" for key in known]
    (found.folder / "known_hosts").write_text("".join(lines))
    (found.folder / "config").write_text(
        "Host router.test\n"
        f"  HostName {LOOPBACK}\n"
        f"  Port {host.address.port}\n"
        f"  HostKeyAlias router.test\n"
        f"  IdentityFile {found.folder}/key\n"
        "  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {found.folder}/known_hosts\n"
        "  GlobalKnownHostsFile /dev/null\n"
    )
    found.command("ssh", f'#!/bin/sh\nexec {ssh} -F {found.folder}/config "$@"\n')
