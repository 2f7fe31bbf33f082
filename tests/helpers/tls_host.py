"""A machine's folder for TLS, as its own shell and OpenSSL fill it."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

from components.machine.ssh_types import Result

FORMER = """[req]
prompt = no
distinguished_name = name
x509_extensions = extensions
[name]
CN = {ip}
[extensions]
subjectAltName = IP:{ip}
basicConstraints = critical,CA:TRUE
keyUsage = critical,digitalSignature,keyCertSign
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
"""
"""Word for word what hosts made under older releases."""


class TlsHost:
    """A `HostClient` whose commands run here, with a home of their own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.tls = home / "serving" / "tls"
        self.commands: list[str] = []

    def run(self, command: str, *, stdin: bytes | str | None = None, timeout: float = 30) -> Result:
        assert stdin is None
        self.commands.append(command)
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=self.home,
            env={"HOME": str(self.home), "PATH": os.environ["PATH"]},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def put(self, files: Mapping[str, tuple[bytes, int]]) -> None:
        for name, (content, mode) in files.items():
            file = self.home / "serving" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            file.chmod(mode)

    def read_log(self, name: str, offset: int) -> tuple[str, int]:
        raise NotImplementedError

    def status(self) -> dict[str, str]:
        raise NotImplementedError

    def make_former_certificate(self, ip: str) -> str:
        """Make key and certificate as an older release did; give the certificate."""
        self.tls.mkdir(parents=True, exist_ok=True)
        (self.tls / "request.cnf").write_text(FORMER.format(ip=ip))
        subprocess.run(
            shlex.split(
                "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -sha256 "
                "-days 3650 -config request.cnf -keyout key.pem -out cert.pem"
            ),
            cwd=self.tls,
            capture_output=True,
            check=True,
        )
        return (self.tls / "cert.pem").read_text()

    def key(self) -> str:
        return (self.tls / "key.pem").read_text()
