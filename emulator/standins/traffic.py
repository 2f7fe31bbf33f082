"""What a container downloaded: a number in its `traffic` file, which the emulator bills."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path


def charge(directory: Path, count: int) -> int:
    """Add `count` bytes to the container's traffic and return the new sum.

    Safe against others that add at the same time, and against a reader in the middle.
    """
    path = directory / "traffic"
    with (directory / "traffic.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        total = _read(path) + count
        fresh = path.with_name(f"traffic.{os.getpid()}")
        fresh.write_text(str(total))
        fresh.replace(path)
    return total


def _read(path: Path) -> int:
    with suppress(OSError, ValueError):
        return int(float(path.read_text()))
    return 0
