"""Which tests belong together: how much of the world each of them needs.

`unit`     decisions and fakes in this process; opens no connection and starts no process
`process`  servers on loopback, shells and local processes, without Pulumi
`cli`      the real `pulumi`, `make` and the project's commands against an emulator
`faults`   the fault matrix: what goes wrong while the real `pulumi` works

A test stands in the folder of its tier; `tests/unit` and `tests/process` mirror the tree of the
code. `make test-fast` plays the first two tiers.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Literal, get_args

Tier = Literal["unit", "process", "cli", "faults"]

TIER_NAMES: tuple[Tier, ...] = get_args(Tier)

TIERS: dict[str, Tier] = {
    "tests/cli": "cli",
    "tests/emulator": "process",
    "tests/faults": "faults",
    "tests/process": "process",
    "tests/real_vllm": "process",
    "tests/unit": "unit",
}

FORBIDDEN = frozenset(
    {"os.fork", "os.posix_spawn", "os.system", "socket.bind", "socket.connect", "subprocess.Popen"}
)
"""What Python's own audit reports, and a unit test has no business with."""

LIBRARIES = "site-packages"
"""The folder of what is installed."""

IMPORTER = "<frozen importlib"
"""How the files begin that Python's own import stands in."""

_guarded: dict[int, str] = {}
"""The unit test that a thread plays. What else works meanwhile, worlds of faults for one, may."""


class WithoutTier(Exception):
    """A test file lies where nobody can tell how much of the world it needs."""


class NotAUnitTest(Exception):
    """A test reached beyond this process though the table says that it does not."""


def tier_of(path: str) -> Tier:
    """Give the tier of a test file or node id, relative to the repository."""
    folder = "/".join(path.split("/")[:2])
    if folder not in TIERS:
        raise WithoutTier(f"{path} stands in no folder of a tier: {', '.join(TIERS)}")
    return TIERS[folder]


@contextmanager
def within(path: str) -> Iterator[None]:
    """Hold what runs in the block to the tier of `path`."""
    if tier_of(path) == "unit":
        _guarded[threading.get_ident()] = path
    try:
        yield
    finally:
        _guarded.pop(threading.get_ident(), None)


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in FORBIDDEN:
        return
    path = _guarded.get(threading.get_ident())
    if path is not None and not _loads_a_library(sys._getframe()):
        raise NotAUnitTest(f"{path} uses {event}{arguments[1:2]}: its tier is not `unit`")


def _loads_a_library(frame: FrameType | None) -> bool:
    """Tell whether an import of an installed library is under way.

    A library may look about when it is loaded: matplotlib lists a machine's fonts the first time.
    That is the doing of whichever test comes first, so it is held against none.
    """
    while frame is not None and frame.f_back is not None:
        code, caller = frame.f_code, frame.f_back.f_code
        is_imported = code.co_name == "<module>" and caller.co_filename.startswith(IMPORTER)
        if is_imported and LIBRARIES in Path(code.co_filename).parts:
            return True
        frame = frame.f_back
    return False


sys.addaudithook(_watch)
