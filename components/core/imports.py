"""Imports of other packages: without what they need not, and kept out of the garbage collector.

Python's collector goes through all that is loaded, again and again while more is loaded, and once
more as the process ends. A third of a short process's time is that, and it frees nothing. Pure.
"""

from __future__ import annotations

import contextlib
import ctypes.util
import gc
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def without(package: str) -> Iterator[None]:
    """Let what is imported in the block find `package` not installed; it is left to all others."""
    loaded = sys.modules.get(package)
    sys.modules[package] = None  # type: ignore[assignment]  # how Python marks what is not there
    try:
        yield
    finally:
        del sys.modules[package]
        if loaded is not None:
            sys.modules[package] = loaded


@contextlib.contextmanager
def without_library(*names: str) -> Iterator[None]:
    """Let what is imported in the block find none of these shared libraries."""
    find = ctypes.util.find_library
    ctypes.util.find_library = lambda name: None if name in names else find(name)
    try:
        yield
    finally:
        ctypes.util.find_library = find


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
