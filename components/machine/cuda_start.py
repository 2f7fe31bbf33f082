"""Does CUDA start on a machine? Asked over SSH before any download. Verdicts are pure.

nvidia-smi asks the driver's management library, which answers even where CUDA does not start. An
NVLink board without its fabric manager gives error 802. An update of the driver without a reboot
gives error 803. vLLM would find out after the download. So the driver is started here once as vLLM
does it, with a context on each GPU, by the image's own Python and nothing else.
"""

from __future__ import annotations

import re

from components.machine.errors import HostUnfit

TIMEOUT = 120.0
"""Seconds. A GPU without persistence mode takes some to wake up, and a machine may have eight."""

_PROGRAM = """
import ctypes
def call(name, *arguments):
    code = getattr(cuda, name)(*arguments)
    if code:
        said = ctypes.c_char_p()
        cuda.cuGetErrorName(code, ctypes.byref(said))
        print("failed", name, code, (said.value or b"unnamed").decode())
        raise SystemExit
try:
    cuda = ctypes.CDLL("libcuda.so.1")
except OSError as error:
    print("failed library", error)
    raise SystemExit
count = ctypes.c_int()
call("cuInit", 0)
call("cuDeviceGetCount", ctypes.byref(count))
for number in range(count.value):
    device, context = ctypes.c_int(), ctypes.c_void_p()
    call("cuDeviceGet", ctypes.byref(device), number)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
print("started", count.value)
"""
"""`judge` reads its output. It must contain no single quote."""

COMMAND = f"""\
[ ! -f "$HOME/.container-environment" ] || . "$HOME/.container-environment"
command -v python3 >/dev/null || {{ echo "unknown"; exit 0; }}
python3 -c '{_PROGRAM}'
"""
"""With the variables of the image, which say where its CUDA libraries are."""

_STARTED = re.compile(r"^started ([0-9]{1,3})$", re.MULTILINE)
_FAILED = re.compile(
    r"^failed (cu[A-Za-z0-9]{1,50}) ([0-9]{1,6}) ([A-Za-z0-9_]{1,100})$", re.MULTILINE
)
_NO_LIBRARY = re.compile(r"^failed library (.{1,200})", re.MULTILINE)

_MEANINGS = {
    "802": "the NVLink fabric of the machine is not up: its fabric manager does not run",
    "803": "its driver was updated and not loaded anew, so its two halves do not match",
    "804": "its driver is too old for the image, and its GPUs take no newer library",
    "100": "CUDA sees no GPU",
    "999": "its driver is broken",
}
"""What an error of the driver means for its machine."""


def judge(printed: str, num_gpus: int) -> None:
    """Read what `COMMAND` printed. An image without Python is no verdict on its machine.

    Raises:
        HostUnfit: if CUDA does not start, or not on every GPU.
    """
    started = _STARTED.search(printed)
    if started and int(started.group(1)) != num_gpus:
        raise HostUnfit(
            f"CUDA starts on {started.group(1)} of the {num_gpus} GPUs that were rented"
        )
    failed = _FAILED.search(printed)
    if failed:
        call, code, name = failed.groups()
        meaning = f": {_MEANINGS[code]}" if code in _MEANINGS else ""
        raise HostUnfit(
            f"CUDA does not start on it ({call} ends with error {code}, {name}){meaning}"
        )
    missing = _NO_LIBRARY.search(printed)
    if missing:
        raise HostUnfit(
            f"CUDA does not start on it: the driver's library is not there ({missing.group(1)})"
        )
