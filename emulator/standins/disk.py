"""The disk of an emulated host: how big it is, and what the container's files take of it.

Weights are sparse files, so a file takes what its size says, not the blocks that it has here.
"""

from __future__ import annotations

import os
from pathlib import Path

from emulator.standins.host import Host

GB = 1e9


def total_bytes(host: Host) -> int:
    """Return the size of the container's disk: what was rented, or what disk_short left of it."""
    fault = host.fault("disk_short")
    rented = host.disk_gb if fault is None else float(fault.get("gb", host.disk_gb / 2))
    return int(rented * GB)


def used_bytes(host: Host) -> int:
    """Return what the image and all files of the container take."""
    files = _tree_bytes(host.root) + _tree_bytes(host.directory / "tmp")
    return int(host.image_gb * GB) + files


def free_bytes(host: Host) -> int:
    """Return what is left, 0 or more."""
    return max(0, total_bytes(host) - used_bytes(host))


def _tree_bytes(top: Path) -> int:
    total = 0
    for directory, _, names in os.walk(top):
        for name in names:
            try:
                total += os.lstat(os.path.join(directory, name)).st_size  # noqa: PTH118  (hot)
            except OSError:
                continue
    return total
