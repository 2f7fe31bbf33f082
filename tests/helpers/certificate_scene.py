"""A machine that is asked over SSH for the key of its server, in a world of its own."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from components.machine.ssh_types import HostAddress, HostUnreachable, Result
from components.resources.context import Context


class FakeHost:
    """A machine that has a key, and is asked over SSH."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.asked: list[tuple[str, str | None]] = []
        """The address, and the host key that it was held to."""
        self.prints: str | None = None
        self.is_down = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, command: str, *, timeout: float) -> Result:
        assert "openssl req -new" in command
        assert timeout < 60
        if self.is_down:
            raise HostUnreachable(HostAddress("203.0.113.1", 22), "timed_out")
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        request = builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
        return Result(0, request if self.prints is None else self.prints, "")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MachineContext(Context):
    machine: FakeHost

    def market(self, *, patient: bool = True) -> Any:
        del patient

    def host(self, address: HostAddress, *_: object, **given: Any) -> Any:
        self.machine.asked.append((str(address), given["known_host_key"]))
        return self.machine


def names(leaf: str) -> list[str]:
    certificate = x509.load_pem_x509_certificate(leaf.encode())
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(one.value) for one in found]
