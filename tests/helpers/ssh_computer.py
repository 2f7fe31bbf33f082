"""A second computer of the user's, which vanishes: a real SSH server, and the real `ssh` to it."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Self

import psutil

from components.machine.ssh_library import asyncssh
from tests.helpers.ssh_host import SshHost

NAME = "router.test"


class SshComputer:
    """A context manager. `bin` has a program `ssh` that knows the computer by its name."""

    host = f"root@{NAME}"
    """As `routerHost` takes it."""

    def __init__(self, folder: Path, path: str) -> None:
        """Lie in `folder`, which must be short enough for sockets; `path` is its `PATH`."""
        self._folder = folder
        self._key = asyncssh.generate_private_key("ssh-ed25519")
        self.bin = folder / "bin"
        home = folder / "h"
        for one in (self.bin, home):
            one.mkdir(parents=True)
        environment = {"PATH": path, "VASTVLLM_ROUTERS": str(folder / "r")}
        self._host = SshHost(home, self._key, environment)

    def __enter__(self) -> Self:
        self._host.__enter__()
        self._write()
        return self

    def __exit__(self, *_: object) -> None:
        self._end_processes()
        self._host.__exit__()

    def vanish(self) -> None:
        """Answer nobody any more, and end what runs there, without a word."""
        self._host.close()
        self._end_processes()

    def _end_processes(self) -> None:
        for process in psutil.process_iter(["cmdline"]):
            if any(f"{self._folder}/r/" in word for word in process.info["cmdline"] or ()):
                with contextlib.suppress(psutil.Error):
                    process.kill()

    def _write(self) -> None:
        """Write the configuration of a user who knows the computer's host key."""
        key, known, config = (self._folder / name for name in ("key", "known_hosts", "config"))
        key.write_bytes(self._key.export_private_key())
        key.chmod(0o600)
        public = self._host.host_keys[0].export_public_key().decode()
        known.write_text(f"{NAME} {public}")
        config.write_text(
            f"Host {NAME}\n"
            "  HostName 127.0.0.1\n"
            f"  Port {self._host.address.port}\n"
            f"  HostKeyAlias {NAME}\n"
            f"  IdentityFile {key}\n"
            "  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {known}\n"
            "  GlobalKnownHostsFile /dev/null\n"
        )
        program = self.bin / "ssh"
        program.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {config} "$@"\n')
        program.chmod(0o755)
