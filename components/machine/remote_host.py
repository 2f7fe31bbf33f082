"""A remote host as SSH reaches it: where it is, which key it has to show, and ours. Pure.

Whoever keeps one in a state keeps these four properties of it; nobody else reads them there.
"""

from __future__ import annotations

import dataclasses

from components.core.property_bag import BagReader, text, whole
from components.machine.ssh_types import HostAddress


@dataclasses.dataclass(frozen=True)
class RemoteHost:
    """A host that was met before."""

    address: HostAddress
    host_key: str
    """As OpenSSH writes it, seen at first contact; another one is another machine."""
    private_key: str = dataclasses.field(repr=False)
    """The stack's own, OpenSSH's PEM."""
    secrets: tuple[str, ...] = dataclasses.field(default=(), repr=False)
    """What no error of this host may show."""

    @classmethod
    def from_bag(cls, bag: BagReader) -> RemoteHost:
        """Read `public_ip`, `ssh_port`, `host_key` and `private_key`.

        Raises:
            StateUnreadable: naming the property that is missing or none of its kind.
        """
        address = HostAddress(bag.need("public_ip", text, ""), bag.need("ssh_port", whole, 0))
        return cls(address, bag.need("host_key", text, ""), bag.need("private_key", text, ""))

    def to_bag(self) -> dict[str, object]:
        """Write what `from_bag` reads; `private_key` is a secret."""
        return {
            "public_ip": self.address.ip,
            "ssh_port": self.address.port,
            "host_key": self.host_key,
            "private_key": self.private_key,
        }

    def hiding(self, *secrets: str) -> RemoteHost:
        """The same host, whose errors leave out `secrets` too."""
        return dataclasses.replace(self, secrets=(*self.secrets, *secrets))
