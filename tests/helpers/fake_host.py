"""What the fakes of a host share with each other, and with what SSH gives.

`tests/process/machine/test_host_contract.py` holds them to what `SshClient` does.
"""

from __future__ import annotations

from components.machine.ssh_types import LOG_PIECE


def read_on(text: str, offset: int) -> tuple[str, int]:
    """Read a log on from a byte; from its start if it is shorter than that by now."""
    written = text.encode()
    start = offset if offset <= len(written) else 0
    piece = written[start : start + LOG_PIECE]
    return piece.decode(), start + len(piece)
