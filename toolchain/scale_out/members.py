"""Members that serve on loopback: the process of their servers, and how to reach each."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from components.core.keys import digest, machine_key
from components.router.inputs import Member
from components.router.routes import GATE
from components.tls.authorities import Authority
from toolchain.scale_out.loopback import LOOPBACK, NotMeasured, identity

SERVER = "toolchain.scale_out.member_server"


@dataclasses.dataclass(frozen=True)
class Machine:
    """A member that serves."""

    contract: int
    port: int
    key: str = dataclasses.field(repr=False)
    """Its own, which its gate takes."""
    process: int
    """Serves it, and those that were started with it."""

    @property
    def member(self) -> Member:
        """As the router is told of it."""
        return Member(contract=self.contract, address=LOOPBACK, port=self.port)


@contextlib.contextmanager
def serving(
    folder: Path, authority: Authority, contracts: Sequence[int], *, stack_key: str, scope: str
) -> Iterator[list[Machine]]:
    """Start members in one other process, each with its own certificate and key.

    Raises:
        NotMeasured: if they do not start.
    """
    keys = {contract: machine_key(stack_key, scope, contract) for contract in contracts}
    for contract, key in keys.items():
        own = folder / str(contract)
        own.mkdir()
        (own / "key_gate.py").write_bytes(GATE.read_bytes())
        (own / "allowed_keys").write_text(f"{digest(key)}\n")
        (own / "pem").write_text(identity(authority, contract))
    command = [sys.executable, "-m", SERVER, LOOPBACK, str(folder)]
    # It ends when its input does, so it ends with this process, however that ends.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # noqa: S603  (our own arguments)
        if process.stdin is None or process.stdout is None:
            raise TypeError("pipes were asked for")
        try:
            line = process.stdout.readline()
            if not line:
                raise NotMeasured("the members' process has ended instead of serving")
            ports = {int(contract): int(port) for contract, port in json.loads(line).items()}
            yield [
                Machine(contract, ports[contract], key, process.pid)
                for contract, key in keys.items()
            ]
        finally:
            process.stdin.close()
