"""Imports without what another package takes along only where it is installed. Pure."""

from __future__ import annotations

import contextlib
import ctypes.util
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
