"""The client of a host that keeps each piece of a log that it reads, while `RECORD=1`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from components.core.record import Record
from components.machine.ssh import SshClient
from components.machine.ssh_types import HostAddress

LOG = "log"
"""The kind of these entries."""


class RecordedSshClient(SshClient):
    """An `SshClient` whose logs are kept. Commands and files are not: secrets go with them."""

    def __init__(
        self,
        address: HostAddress,
        private_key: str,
        *,
        record: Record,
        secrets: Sequence[str] = (),
        **given: Any,
    ) -> None:
        """As `SshClient`; `record` receives the logs without `secrets`."""
        super().__init__(address, private_key, secrets=secrets, **given)
        self._record = record
        self._where = str(address)
        self._withheld = (*secrets, private_key)

    def read_log(self, name: str, offset: int) -> tuple[str, int]:
        """See `SshClient`."""
        text, after = super().read_log(name, offset)
        if text:
            self._record.write(
                LOG,
                self._withheld,
                host=self._where,
                name=name,
                offset=offset,
                after=after,
                text=text,
            )
        return text, after
