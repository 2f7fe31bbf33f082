"""A Python program that starts CUDA, with the driver's library of the emulated host.

`python3` of a container hands such a program over; all others are the real Python's. The library
has the calls that start CUDA and no others.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

from emulator.standins import gpus
from emulator.standins.host import Host, host_or_exit

LIBRARY = "libcuda"

_NO_DEVICE = 100
_NAMES = {
    _NO_DEVICE: b"CUDA_ERROR_NO_DEVICE",
    802: b"CUDA_ERROR_SYSTEM_NOT_READY",
    803: b"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
    804: b"CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE",
    999: b"CUDA_ERROR_UNKNOWN",
}


class Driver:
    """The driver's library: what `byref` points to is filled in, as C would."""

    def __init__(self, host: Host) -> None:
        """Answer for `host`."""
        self._gpus = gpus.visible_count(host)
        self._error = gpus.cuda_error(host, serving=False)

    def cuInit(self, _flags: int) -> int:  # noqa: N802  (the library's own names)
        """Start the driver."""
        return self._error or (0 if self._gpus else _NO_DEVICE)

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        """Count the GPUs."""
        count._obj.value = self._gpus  # noqa: SLF001  (what byref points to)
        return 0

    def cuDeviceGet(self, device: Any, number: int) -> int:  # noqa: N802
        """Name a GPU."""
        device._obj.value = number  # noqa: SLF001
        return 0

    def cuDevicePrimaryCtxRetain(self, context: Any, _device: Any) -> int:  # noqa: N802
        """Open a GPU."""
        context._obj.value = 1  # noqa: SLF001
        return 0

    def cuGetErrorName(self, code: int, name: Any) -> int:  # noqa: N802
        """Name an error."""
        name._obj.value = _NAMES.get(code, b"CUDA_ERROR_UNKNOWN")  # noqa: SLF001
        return 0


def main() -> None:
    """Run the program that is the one argument."""
    host = host_or_exit("python3", os.environ)
    real: Any = ctypes.CDLL

    def load(name: str, *rest: Any) -> Any:
        return Driver(host) if name.startswith(LIBRARY) else real(name, *rest)

    ctypes.CDLL = load  # type: ignore[assignment, misc]
    exec(compile(sys.argv[1], "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102  (-c)


if __name__ == "__main__":
    main()
