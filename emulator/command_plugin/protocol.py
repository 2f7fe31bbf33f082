"""Pulumi's provider protocol as the SDK has it generated, without the SDK.

The engine starts the plugin several times in each command. `import pulumi` takes most of such a
start, and loads what a program needs. So the generated modules are loaded as a package of another
name, from their place in the installed SDK: they import each other by relative names alone.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import TYPE_CHECKING, Any

_PACKAGE = f"{__name__}_generated"


def _generated(*names: str) -> tuple[Any, ...]:
    """Load generated modules by name.

    Raises:
        ImportError: if no SDK is installed, or it keeps them elsewhere.
    """
    if _PACKAGE not in sys.modules:
        sdk = importlib.util.find_spec("pulumi")
        if sdk is None or not sdk.submodule_search_locations:
            raise ImportError("the package pulumi is not installed: run `make setup`")
        spec = ModuleSpec(_PACKAGE, None, is_package=True)
        spec.submodule_search_locations = [
            str(Path(folder, "runtime", "proto")) for folder in sdk.submodule_search_locations
        ]
        sys.modules[_PACKAGE] = importlib.util.module_from_spec(spec)
    return tuple(importlib.import_module(f"{_PACKAGE}.{name}") for name in names)


if TYPE_CHECKING:
    from pulumi.runtime.proto import (
        engine_pb2,
        engine_pb2_grpc,
        plugin_pb2,
        provider_pb2,
        provider_pb2_grpc,
    )
else:
    engine_pb2, engine_pb2_grpc, plugin_pb2, provider_pb2, provider_pb2_grpc = _generated(
        "engine_pb2", "engine_pb2_grpc", "plugin_pb2", "provider_pb2", "provider_pb2_grpc"
    )

__all__ = ["engine_pb2", "engine_pb2_grpc", "plugin_pb2", "provider_pb2", "provider_pb2_grpc"]
