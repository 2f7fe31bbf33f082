"""Imports of what stays as long as the process.

Python's garbage collector goes through all that is loaded, again and again while more is loaded,
and once more as the process ends. A third of a short process's time is that, and it frees nothing.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def to_stay() -> Iterator[None]:
    """Load what the block imports without the garbage collector, and keep it out of it for good."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()
